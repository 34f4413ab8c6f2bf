"""`load_images`: one door for everything that holds labelled images."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from doorward.core.errors import DoorwardError, NoSplitError
from doorward.core.files import read_json
from doorward.core.images import ImageSet
from doorward.data.checks import Split, check_auditable, class_names, guarded, show
from doorward.data.named import catalogue, find, load_named
from doorward.data.readers.archives import is_archive, unpacked, without_ending
from doorward.data.readers.arrays import from_arrays
from doorward.data.readers.cifar import find_binary, read_binary, refuse_python_version
from doorward.data.readers.dataset import read_dataset
from doorward.data.readers.folder import read_class_folders, visible
from doorward.data.readers.idx import find_idx, is_idx, read_idx
from doorward.data.readers.npz import read_npz
from doorward.data.readers.parquet import read_parquet
from doorward.data.readers.tables import read_csv

_KINDS = (
    "a named set (see: doorward data list), a folder of class folders, a doorward run, .npz, .csv, .parquet, "
    "MNIST IDX or CIFAR files, .tar.gz or .zip"
)
# Where torchvision and the archives' own authors put the raw files inside the folder that a user knows.
_KNOWN_FOLDERS = (
    "MNIST/raw", "raw", "cifar-10-batches-bin", "cifar-100-binary", "cifar-10-batches-py", "cifar-100-python",
    "data",
)  # fmt: skip


def load_images(source: Any, *, split: Split = "train", name: str | None = None) -> ImageSet:
    """Load labelled images from a name, a path or a Python object.

    Args:
        source: a named set (``mnist-5k``, ``mnist``, ``cifar10``, ``cifar100``; write ``./mnist`` for a folder of that
            name); a folder with one subfolder per class, or ``train`` and ``test`` with such folders inside; a folder
            that doorward wrote; an ``.npz`` file; a CSV or Parquet manifest; Parquet with image bytes; a folder of
            MNIST IDX files or of CIFAR files (binary version); an archive of one of these; a pair (images,
            labels) of arrays or tensors; a map-style dataset.
        split: ``train`` or ``test``, for sources that have both; other sources are one set, ``train``.
        name: what to call the set; by default the source's own name.

    Returns:
        The set. Above 512 MB of pixels it is memory-mapped from the cache folder.

    Raises:
        DoorwardError: one line that names the file or setting, its value and what was expected. Refused are fewer than
            two classes, a class with one image, mixed sizes or modes, values outside the 8-bit range, and whatever
            could lead outside the source or run code.

    Nothing in a file is ever executed, and nothing is written outside the cache folder.
    """
    if split not in ("train", "test"):
        raise DoorwardError(f"split {show(split)!r}; expected train or test")
    if isinstance(source, str | os.PathLike):
        images, called = _from_text(source, split)
    else:
        images, called = _from_python(source, split), "images"
    check_auditable(images.labels, images.classes, show(called))
    class_names(images.classes, show(called))
    provenance = {"source": show(source) if isinstance(source, str | os.PathLike) else type(source).__name__}
    renamed = replace(images, name=show(name or called), provenance={**images.provenance, **provenance})
    if "hash" in vars(images):
        vars(renamed)["hash"] = images.hash  # the name is no part of the hash, so it is not computed again
    return renamed


def load_test_images(source: Any) -> ImageSet:
    """The test images where a source has some apart, else all of it; arguments and errors as for `load_images`."""
    try:
        return load_images(source, split="test")
    except NoSplitError:
        return load_images(source)


def _from_python(source: Any, split: Split) -> ImageSet:
    if split == "test":
        raise NoSplitError(f"split 'test' of a {type(source).__name__}; expected split 'train', which is all of it")
    if isinstance(source, ImageSet):
        return source
    if isinstance(source, tuple | list):
        if len(source) != 2:
            raise DoorwardError(f"a {type(source).__name__} of {len(source)}; expected a pair (images, labels)")
        with guarded("(images, labels)", "arrays or tensors of images and of labels"):
            return from_arrays(source[0], source[1], "(images, labels)")
    if hasattr(source, "__len__") and hasattr(source, "__getitem__") and not isinstance(source, bytes | dict):
        return read_dataset(source, type(source).__name__)
    raise DoorwardError(f"a {type(source).__name__}; expected a path, a pair (images, labels) or a map-style dataset")


def _from_text(source: str | os.PathLike[str], split: Split) -> tuple[ImageSet, str]:
    """The set, and what to call it by default."""
    if isinstance(source, str) and source in {entry.name for entry in catalogue()}:
        return load_named(find(source), split), f"{source}-{split}"
    with guarded(source, _KINDS):
        path = Path(source).expanduser()
        if not path.exists():
            raise DoorwardError(f"{show(source)}: does not exist; expected {_KINDS}")
        if is_archive(path) and path.is_file():
            return _from_folder(unpacked(path), split)[0], without_ending(path)
        if path.is_dir():
            return _from_folder(path, split)
        return _from_file(path, split), path.stem


def _from_file(path: Path, split: Split) -> ImageSet:
    ending = path.suffix.lower()
    if not path.is_file():
        raise DoorwardError(f"{show(path)}: not a regular file; expected {_KINDS}")
    if ending == ".npz":
        return read_npz(path, split)
    if ending in (".csv", ".parquet"):
        _only_train(path, split)
        return read_csv(path) if ending == ".csv" else read_parquet([path], path)
    raise DoorwardError(f"{show(path)}: a file ending in {show(ending)!r}; expected {_KINDS}")


def _only_train(path: Path, split: Split) -> None:
    if split == "test":
        raise NoSplitError(f"{show(path)}: holds one set; expected split 'train', which is all of it")


def _from_folder(path: Path, split: Split) -> tuple[ImageSet, str]:
    called = path.resolve().name or "images"
    names = [entry.name for entry in visible(path)]
    if not names:
        raise DoorwardError(f"{show(path)}: an empty folder; expected {_KINDS}")
    if "images.npy" in names:
        _only_train(path, split)
        saved = _saved(path)
        return saved, saved.name
    if "run.json" in names:
        verb = show(read_json(path / "run.json").get("verb"))
        raise DoorwardError(f"{show(path)}: a run of 'doorward {verb}' without images; expected one with images.npy")
    images = _raw(path, names, split)
    if images is not None:
        return images, f"{called}-{split}"
    for known in _KNOWN_FOLDERS:
        if (path / known).is_dir():
            images = _raw(path / known, [entry.name for entry in visible(path / known)], split)
            if images is not None:
                return images, f"{called}-{split}"
    parts = path / split
    if _holds_class_folders(path / "train"):
        if not parts.is_dir():
            raise NoSplitError(f"{show(path)}: holds no folder {split!r}; expected one beside 'train'")
        return read_class_folders(parts), f"{called}-{split}"
    _only_train(path, split)
    return read_class_folders(path), called


def _holds_class_folders(path: Path) -> bool:
    """True for a split's folder (folders only), false for a class that is called ``train`` (images inside)."""
    return path.is_dir() and all(entry.is_dir() for entry in visible(path))


def _raw(path: Path, names: list[str], split: Split) -> ImageSet | None:
    """The set in a folder of raw files, or None for a folder of another kind."""
    if found := find_idx(names, split):
        return read_idx(path / found[0], path / found[1])
    if files := find_binary(names, split):
        return read_binary(path, files)
    refuse_python_version(path, names)
    tables = [name for name in names if name.lower().endswith(".parquet") and name != "truth.parquet"]
    if parts := [name for name in tables if name.startswith(f"{split}-") or name == f"{split}.parquet"]:
        return read_parquet([path / name for name in parts], path)
    if tables or any(is_idx(name) for name in names):
        raise NoSplitError(f"{show(path)}: holds no files of the {split} split; expected names that begin with it")
    return None


def _saved(path: Path) -> ImageSet:
    """A set that doorward wrote, checked against the hash that it wrote beside it."""
    images = ImageSet.load(path)
    expected = read_json(path / "images.json").get("sha256")
    if images.hash != expected:
        raise DoorwardError(
            f"{show(path)}: content hashes to {images.hash[:16]}..., images.json says {show(expected)[:16]}...; "
            "expected a set that was not changed after it was written"
        )
    return images


def open_images(source: str, split: Literal["train", "test"] | None) -> ImageSet:
    """The split asked for; else the test images where the source has some, for a classifier has not seen them."""
    return load_test_images(source) if split is None else load_images(source, split=split)
