"""A folder with one subfolder per class."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from doorward.core.errors import DoorwardError, show
from doorward.core.ids import distinct
from doorward.core.images import ImageSet
from doorward.core.opening import home_of
from doorward.data.checks import class_names, guarded
from doorward.data.pictures import Pictures, files_state, read_pictures
from doorward.data.readers.decode import ENDINGS, Data
from doorward.data.reading import Reading

_READABLE = "a readable folder with one subfolder of images per class"
_NO_CLASS = "pictures"  # without class folders, where labels do not matter


def visible(folder: Path) -> list[os.DirEntry[str]]:
    """Entries of a folder in order of name, without hidden ones."""
    with guarded(folder, _READABLE), os.scandir(folder) as entries:
        return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)


def read_class_folders(root: Path, reading: Reading, base: Path | None = None) -> ImageSet:
    """Read images sorted into one subfolder per class; the classes are in order of name, as torchvision has them.

    Images may lie in deeper folders of their class. Hidden files are ignored; files with other endings are left out
    and noted.

    Args:
        root: the folder with the class folders.
        reading: size, what to do with files that cannot be read, whether there must be class folders.
        base: what ids are relative to; ``root`` unless given.

    Raises:
        DoorwardError: fewer than two classes or two images of a class, a file that cannot be decoded, a symbolic link
            that leaves the folder, mixed sizes without a size.
    """
    root = root.resolve()
    base = root if base is None else base.resolve()
    folders = [(entry.name, entry.path) for entry in visible(root) if _is_folder(entry)]
    if not folders and not reading.any_labels:
        raise DoorwardError(f"{show(root)}: holds no class folders; expected {_READABLE}")
    folders = folders or [(_NO_CLASS, str(root))]
    classes = class_names([name for name, _ in folders], root)
    classes = (*classes, "-") if len(classes) == 1 else classes
    names: list[str] = []
    left_out: list[str] = []
    sizes: list[int] = []
    for _, folder in folders:
        before = len(names)
        for path in _files(folder, root):
            relative = path[len(str(base)) :].lstrip("/").replace(os.sep, "/")
            (names if _is_picture(path) else left_out).append(relative)
        sizes.append(len(names) - before)
        if sizes[-1] == 0:
            raise DoorwardError(
                f"{show(folder)}: holds no images; expected files ending in {', '.join(sorted(ENDINGS))}"
            )
    labels = np.repeat(np.arange(len(folders), dtype=np.int64), sizes)
    prefix = "" if root == base else root.relative_to(base).as_posix()
    provenance: dict[str, object] = {"folders": prefix, **({"notes": _notes(left_out)} if left_out else {})}
    return read_pictures(of_files(root, base, names, labels, classes, provenance), reading)


def of_files(
    where: Path,
    base: Path,
    names: Sequence[str],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    provenance: dict[str, object],
) -> Pictures:
    """The pictures in these files, named relative to ``base``."""

    def items(many: int) -> Iterator[Sequence[Data]]:
        for start in range(0, len(names), many):
            yield [f"{base}/{name}" for name in names[start : start + many]]

    ids = distinct(names)
    known = {**provenance, "root": str(base)}
    return Pictures(where, labels, classes, ids, items, lambda: files_state(base, names), known)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    if entry.is_symlink() and entry.is_dir():
        raise DoorwardError(f"{show(entry.path)}: a symbolic link to a folder; expected the folder itself")
    return entry.is_dir()


def _is_picture(path: str) -> bool:
    return path[path.rfind(".") :].lower() in ENDINGS


def _files(folder: str, root: Path) -> Iterator[str]:
    """Every visible file below a class folder, in order of name; pipes with a picture's name are told as bad ones."""
    for entry in visible(Path(folder)):
        if _is_folder(entry):
            yield from _files(entry.path, root)
            continue
        if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(home_of(root)):
            raise DoorwardError(f"{show(entry.path)}: a symbolic link that leaves {show(root)}; expected files inside")
        if not entry.is_file() and (entry.is_symlink() or not _is_picture(entry.path)):
            raise DoorwardError(f"{show(entry.path)}: not a regular file; expected an image")
        yield entry.path


def _notes(left_out: Sequence[str]) -> list[str]:
    return [f"{len(left_out)} file(s) without an image ending were left out, first {show(left_out[0])}"]
