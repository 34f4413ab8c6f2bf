"""A folder with one subfolder per class."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.data.assemble import assemble
from doorward.data.cache import file_state
from doorward.data.checks import check_auditable, class_names, guarded, show
from doorward.data.readers.decode import ENDINGS, decode_into, probe

_READABLE = "a readable folder with one subfolder of images per class"


def visible(folder: Path) -> list[os.DirEntry[str]]:
    """Entries of a folder in order of name, without hidden ones."""
    with guarded(folder, _READABLE), os.scandir(folder) as entries:
        return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)


def read_class_folders(root: Path) -> ImageSet:
    """Read images sorted into one subfolder per class; the classes are in order of name, as torchvision has them.

    Images may lie in deeper folders of their class. Hidden files are ignored; files with other endings are left out
    and noted. Orientation tags are not applied: the pixels are audited as they are stored.

    Raises:
        DoorwardError: fewer than two classes or two images of a class, images of different size or mode, a file that
            cannot be decoded, a symbolic link that leaves the folder.
    """
    root = root.resolve()
    folders = [entry for entry in visible(root) if _is_folder(entry)]
    if not folders:
        raise DoorwardError(f"{show(root)}: holds no class folders; expected {_READABLE}")
    names = class_names([entry.name for entry in folders], root)
    files: list[Path] = []
    left_out: list[Path] = []
    sizes: list[int] = []
    for entry in folders:
        before = len(files)
        for path in _files(Path(entry.path), root):
            (files if path.suffix.lower() in ENDINGS else left_out).append(path)
        sizes.append(len(files) - before)
        if sizes[-1] == 0:
            raise DoorwardError(
                f"{show(entry.path)}: holds no images; expected files ending in {', '.join(sorted(ENDINGS))}"
            )
    labels = np.repeat(np.arange(len(names), dtype=np.int64), sizes)
    return decode_files(root, files, labels, names, _notes(left_out, root))


def decode_files(
    where: Path, files: Sequence[Path], labels: np.ndarray[tuple[int], np.dtype[np.int64]], names: Sequence[str],
    notes: Sequence[str] = (),
) -> ImageSet:  # fmt: skip
    """The set of these files, each with its label; the first file decides size and mode for all."""
    check_auditable(labels, names, where)
    look = probe(files[0], files[0])
    shape = (len(files), look.height, look.width, look.channels)
    all_notes = [*notes, look.note] if look.note else list(notes)
    items = [(path, path) for path in files]
    return assemble(
        where, shape, labels, names, lambda target: decode_into(target, items, look, files[0]),
        key=lambda: file_state(files), notes=all_notes,
    )  # fmt: skip


def _is_folder(entry: os.DirEntry[str]) -> bool:
    if entry.is_symlink() and entry.is_dir():
        raise DoorwardError(f"{show(entry.path)}: a symbolic link to a folder; expected the folder itself")
    return entry.is_dir()


def _files(folder: Path, root: Path) -> Iterator[Path]:
    """Every visible file below a class folder, in order of name."""
    for entry in visible(folder):
        if _is_folder(entry):
            yield from _files(Path(entry.path), root)
            continue
        path = Path(entry.path)
        if entry.is_symlink() and not path.resolve().is_relative_to(root):
            raise DoorwardError(f"{show(path)}: a symbolic link that leaves {show(root)}; expected files inside it")
        if not entry.is_file():
            raise DoorwardError(f"{show(path)}: not a regular file; expected an image")
        yield path


def _notes(left_out: Sequence[Path], root: Path) -> list[str]:
    if not left_out:
        return []
    first = show(left_out[0].relative_to(root))
    return [f"{len(left_out)} file(s) without an image ending were left out, first {first}"]
