"""`load_images`: one door for everything that holds labelled images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from doorward.core.errors import DoorwardError, NoSplitError, show
from doorward.core.images import ImageSet
from doorward.core.opening import check_file, read_json
from doorward.core.settings import build_settings
from doorward.data.checks import Split, class_names, guarded
from doorward.data.named import catalogue, find, load_named
from doorward.data.pictures import resized
from doorward.data.readers.archives import is_archive, unpacked, without_ending
from doorward.data.readers.arrays import from_arrays
from doorward.data.readers.arrow import is_saved_dataset, read_saved_dataset
from doorward.data.readers.cifar import find_binary, read_binary, refuse_python_version
from doorward.data.readers.dataset import read_dataset
from doorward.data.readers.folder import read_class_folders, visible
from doorward.data.readers.idx import find_idx, is_idx, read_idx
from doorward.data.readers.npz import read_npz
from doorward.data.readers.parquet import read_parquet
from doorward.data.readers.shards import expanded, is_shard, read_shards, shards_in
from doorward.data.readers.tables import read_csv
from doorward.data.reading import Reading, Resize

_KINDS = (
    "a named set (see: doorward data list), a folder of class folders, a doorward run, .npz, .csv, .parquet, "
    "MNIST IDX or CIFAR files, WebDataset shards, .tar.gz or .zip"
)
# Where torchvision and the archives' own authors put the raw files inside the folder that a user knows.
_KNOWN_FOLDERS = (
    "MNIST/raw", "raw", "cifar-10-batches-bin", "cifar-100-binary", "cifar-10-batches-py", "cifar-100-python",
    "data",
)  # fmt: skip


def load_images(
    source: Any,
    *,
    split: Split = "train",
    size: int | None = None,
    resize: Resize = "crop",
    skip_bad: bool = False,
    labels: bool = True,
    name: str | None = None,
) -> ImageSet:
    """Load labelled images from a name, a path or a Python object.

    Args:
        source: a named set (``mnist-5k``, ``mnist``, ``cifar10``, ``cifar100``; write ``./mnist`` for a folder of that
            name); a folder with one subfolder per class, or ``train`` and ``test`` with such folders inside; a folder
            that doorward wrote; an ``.npz`` file; a CSV or Parquet manifest; Parquet with image bytes; WebDataset
            shards (a ``.tar``, a folder of them, ``shards-{000..003}.tar``); a folder of ``datasets.save_to_disk``; a
            folder of MNIST IDX files or of CIFAR files (binary version); an archive of one of these; a pair (images,
            labels) of arrays or tensors; a map-style dataset.
        split: ``train`` or ``test``, for sources that have both; other sources are one set, ``train``.
        size: makes every picture N x N; needed where sizes differ.
        resize: ``crop`` (shorter side to N, then the centre) or ``squash`` (both sides to N).
        skip_bad: leave out files that cannot be read, instead of refusing the set.
        labels: False where labels do not matter, as for `screen`: a folder of pictures without class folders, or of one
            class, will do.
        name: what to call the set; by default the source's own name.

    Returns:
        The set. Its ``ids`` are paths inside the source, keys of a table, or indices. Its ``provenance`` tells what was
        ``converted`` (kind -> number of pictures) and ``skipped`` (name -> reason). Sets of many pictures are
        memory-mapped from the cache folder, where they are found again the next time.

    Raises:
        DoorwardError: one line that names the file or setting, its value and what was expected. Refused are fewer than
            two classes, a class with one image, mixed sizes without a size, values outside the 8-bit range, files that
            cannot be read, and whatever could lead outside the source or run code.

    Pictures become 8-bit grey, or RGB where one of them has colour: EXIF orientation applied, transparency over white,
    the first frame of an animation. Nothing in a file is ever executed, and nothing is written outside the cache
    folder.
    """
    if split not in ("train", "test"):
        raise DoorwardError(f"split {show(split)!r}; expected train or test")
    values = {"split": split, "size": size, "resize": resize, "skip_bad": skip_bad, "any_labels": not labels}
    return load_as(source, build_settings(Reading, "load_images", values), name)


def load_as(source: Any, reading: Reading, name: str | None = None) -> ImageSet:
    """`load_images` with its options as one object, such as a request that has the fields of `Reading`."""
    if isinstance(source, str | os.PathLike):
        images, called = _from_text(source, reading)
    else:
        images, called = _from_python(source, reading.split), "images"
    reading.check(images.labels, images.classes, show(called))
    class_names(images.classes, show(called))
    if reading.size and images.shape[1:] != (reading.size, reading.size):
        images = resized(images, reading)
    provenance = {"source": show(source) if isinstance(source, str | os.PathLike) else type(source).__name__}
    renamed = replace(images, name=show(name or called), provenance={**images.provenance, **provenance})
    if "hash" in vars(images):
        vars(renamed)["hash"] = images.hash  # the name is no part of the hash, so it is not computed again
    return renamed


def load_test_images(
    source: Any, *, size: int | None = None, resize: Resize = "crop", skip_bad: bool = False
) -> ImageSet:
    """The test images where a source has some apart, else all of it; arguments and errors as for `load_images`."""
    values = {"size": size, "resize": resize, "skip_bad": skip_bad}
    return load_for_test(source, build_settings(Reading, "load_test_images", values))


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


def _from_text(source: str | os.PathLike[str], reading: Reading) -> tuple[ImageSet, str]:
    """The set, and what to call it by default."""
    if isinstance(source, str) and source in {entry.name for entry in catalogue()}:
        return load_named(find(source), reading.split), f"{source}-{reading.split}"
    with guarded(source, _KINDS):
        path = Path(source).expanduser()
        if not path.exists():
            if shards := expanded(path):
                _only_train(path, reading.split)
                return read_shards(shards, path, reading), shards[0].parent.resolve().name
            raise DoorwardError(f"{show(source)}: does not exist; expected {_KINDS}")
        if path.is_file() and is_shard(path):
            _only_train(path, reading.split)
            return read_shards([path], path, reading), without_ending(path)
        if is_archive(path) and path.is_file():
            inner, base = unpacked(path)
            return _from_folder(inner, reading, base)[0], without_ending(path)
        if path.is_dir():
            return _from_folder(path, reading, path)
        return _from_file(path, reading), path.stem


def _from_file(path: Path, reading: Reading) -> ImageSet:
    ending = path.suffix.lower()
    if not path.is_file():
        raise DoorwardError(f"{show(path)}: not a regular file; expected {_KINDS}")
    if ending == ".npz":
        return read_npz(path, reading.split)
    if ending in (".csv", ".parquet"):
        _only_train(path, reading.split)
        return read_csv(path, reading) if ending == ".csv" else read_parquet([path], path, reading)
    raise DoorwardError(f"{show(path)}: a file ending in {show(ending)!r}; expected {_KINDS}")


def _only_train(path: Path, split: Split) -> None:
    if split == "test":
        raise NoSplitError(f"{show(path)}: holds one set; expected split 'train', which is all of it")


def _from_folder(path: Path, reading: Reading, base: Path) -> tuple[ImageSet, str]:
    called, split = path.resolve().name or "images", reading.split
    names = [entry.name for entry in visible(path)]
    if not names:
        raise DoorwardError(f"{show(path)}: an empty folder; expected {_KINDS}")
    if "images.npy" in names:
        _only_train(path, split)
        _check_inside(path, path, ("images.npy", "labels.npy", "images.json", "ids.jsonl"))
        saved = _saved(path)
        return saved, saved.name
    if "run.json" in names:
        verb = show(read_json(path / "run.json", inside=path).get("verb"))
        raise DoorwardError(f"{show(path)}: a run of 'doorward {verb}' without images; expected one with images.npy")
    for folder in (path, *(path / known for known in _KNOWN_FOLDERS)):
        if folder.is_dir():
            images = _raw(path, folder, [entry.name for entry in visible(folder)], reading)
            if images is not None:
                return images, f"{called}-{split}"
    _check_inside(path, path, [name for name in names if name.lower().endswith(".tar")])
    if shards := shards_in(path, names, split):
        if split == "test" and not all(shard.name.startswith("test") for shard in shards):
            _only_train(path, split)
        return read_shards(shards, path, reading), called
    parts = path / split
    if _holds_class_folders(path / "train"):
        if not parts.is_dir():
            raise NoSplitError(f"{show(path)}: holds no folder {split!r}; expected one beside 'train'")
        return read_class_folders(parts, reading, base), f"{called}-{split}"
    _only_train(path, split)
    return read_class_folders(path, reading, base), called


def _holds_class_folders(path: Path) -> bool:
    """True for a split's folder (folders only), false for a class that is called ``train`` (images inside)."""
    return path.is_dir() and all(entry.is_dir() for entry in visible(path))


def _check_inside(root: Path, folder: Path, names: Sequence[str]) -> None:
    """Refuse pipes, devices and links out of the folder that the user named; a file named itself may be a link."""
    for name in names:
        if os.path.lexists(folder / name):
            check_file(folder / name, inside=root)


def _raw(root: Path, path: Path, names: list[str], reading: Reading) -> ImageSet | None:
    """The set in a folder of raw files below the one that the user named, or None for a folder of another kind."""
    split = reading.split
    if is_saved_dataset(names):
        return read_saved_dataset(path, names, reading)
    if found := find_idx(names, split):
        _check_inside(root, path, found)
        return read_idx(path / found[0], path / found[1])
    if files := find_binary(names, split):
        _check_inside(root, path, files)
        return read_binary(path, files)
    refuse_python_version(path, names)
    tables = [name for name in names if name.lower().endswith(".parquet") and name != "truth.parquet"]
    if parts := [name for name in tables if name.startswith(f"{split}-") or name == f"{split}.parquet"]:
        _check_inside(root, path, parts)
        return read_parquet([path / name for name in parts], path, reading)
    if tables or any(is_idx(name) for name in names):
        raise NoSplitError(f"{show(path)}: holds no files of the {split} split; expected names that begin with it")
    return None


def _saved(path: Path) -> ImageSet:
    """A set that doorward wrote, checked against the hash that it wrote beside it."""
    images = ImageSet.load(path)
    expected = read_json(path / "images.json", inside=path).get("sha256")
    if images.hash != expected:
        raise DoorwardError(
            f"{show(path)}: content hashes to {images.hash[:16]}..., images.json says {show(expected)[:16]}...; "
            "expected a set that was not changed after it was written"
        )
    known = {key: value for key, value in images.provenance.items() if key not in ("root", "fitted_from")}
    return replace(images, provenance=known)  # neither a path nor a claim in a file of anyone's is followed


def load_for_test(source: Any, reading: Reading) -> ImageSet:
    """`load_as`: the test images where the source has some, for a classifier has not seen them, else all of it."""
    try:
        return load_as(source, reading.model_copy(update={"split": "test"}))
    except NoSplitError:
        return load_as(source, reading.model_copy(update={"split": "train"}))
