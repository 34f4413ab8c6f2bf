"""What lies beside an output under a temporary name, and what it means when its writer was killed.

``NAME.partial`` holds a run that is being written. With ``partial.json`` in it, or nothing yet, it is unfinished; with
``run.json`` and without ``partial.json`` it is complete and only lacks its name. ``NAME.partial.old`` holds the run
that is being replaced; without its ``run.json`` it is on the way out. ``NAME.partial.lock``: see `doorward.core.locks`.

Every step from one of these states to the next is one operation of the file system. `settle` brings what a killed
process left to the nearest state that is whole.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from doorward.core.errors import OutputExistsError, show
from doorward.core.files import is_synced
from doorward.core.locks import Lock, lock_path

FINISHED, UNFINISHED = "run.json", "partial.json"
PARTIAL = ".partial"  # ends the name of the folder of a run that is being written
_TEMPORARY = re.compile(r".*\.\d+\.tmp", re.DOTALL)  # of `doorward.core.files`, in no finished run


def work_path(path: Path) -> Path:
    """Where a run is written before it has its name."""
    return path.with_name(f"{path.name}{PARTIAL}")


def old_path(path: Path) -> Path:
    """Where the run lies that is being replaced."""
    return path.with_name(f"{path.name}.partial.old")


def leftovers(path: Path) -> bool:
    """Whether something of a run lies beside its name: it is being written, or was interrupted."""
    return any(os.path.lexists(p) for p in (work_path(path), old_path(path), lock_path(path)))


def has_its_name(path: Path) -> bool:
    """Whether something has the name; a whole run that a killed process left without is given it first.

    Raises:
        OutputExistsError: it has not, and another process is at it.
    """
    path = path.absolute()
    if not os.path.lexists(path):
        if is_complete(work_path(path)) or (old_path(path) / FINISHED).is_file():
            with suppress(OSError):
                _settle_locked(path)
    elif os.path.lexists(lock_path(path)) and (path / FINISHED).is_file():
        with suppress(OSError, OutputExistsError):  # it is whole, whoever is about to replace it
            _settle_locked(path)
    return path.exists()


def _settle_locked(path: Path) -> None:
    lock = Lock(path)
    try:
        settle(path)
    finally:
        lock.release()


def hint(path: Path) -> str:
    """What may be done where a run is expected and none is found."""
    path = path.absolute()
    if path.exists() or not path.name:
        return "expected a folder written by doorward"
    if is_complete(work_path(path)):
        return f"it is complete in {show(work_path(path))}, which cannot be renamed"
    if work_path(path).exists():
        return "its run is not finished, or was interrupted: then repeat the command to finish it"
    before = path.with_name(f"{path.name}.old")
    if (before / FINISHED).is_file():
        return f"{show(before)} holds a whole run; rename it, if that is the one"
    return "no such folder; expected one written by doorward"


def is_complete(work: Path) -> bool:
    """Whether a run was written to its end."""
    return (work / FINISHED).is_file() and not (work / UNFINISHED).exists()


def is_blank(work: Path) -> bool:
    """Whether a folder holds nothing that anybody would miss: its writer was killed before it began."""
    return work.is_dir() and not work.is_symlink() and all(_is_temporary(p.name) for p in work.iterdir())


def settle(path: Path) -> str:
    """Finish what a killed process left half done, under its lock; returns in words what was done to ``path``.

    A complete run gets its name if that is free; a run that was moved away for one that never came is put back.
    """
    work, old, told = work_path(path), old_path(path), ""
    if not os.path.lexists(path):
        if is_complete(work):
            told = "an interrupted command had finished it"
            _rename(work, path)
        elif (old / FINISHED).is_file():
            told = "it was put back after an interrupted --overwrite"
            _rename(old, path)
    discard(old)
    return told


def publish(path: Path) -> None:
    """Give the complete run its name; the one that had it goes when the new one is in its place."""
    work, old = work_path(path), old_path(path)
    if os.path.lexists(path):
        discard(old)
        path.rename(old)
        try:
            work.rename(path)
        except OSError:
            old.rename(path)
            raise
        sync(path.parent)
    else:
        _rename(work, path)
    with suppress(OSError):  # it is on its way out: the next command goes on with that
        discard(old)


def discard(folder: Path) -> None:
    """Remove a run so that it is none from the first moment, and known as ours up to the last."""
    if folder.is_symlink() or not folder.is_dir():
        folder.unlink(missing_ok=True)
        return
    empty(folder)
    folder.rmdir()


def empty(folder: Path) -> None:
    """Remove everything in a folder; ``partial.json``, by which it is known as ours, goes last."""
    known = folder / UNFINISHED
    if is_complete(folder):
        (folder / FINISHED).rename(known)
    for path in sorted(folder.iterdir(), key=lambda p: p == known):
        remove(path)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def drop(folder: Path) -> None:
    """Remove a folder within an unfinished run, where there is one: it is whole or gone for whoever goes on."""
    if folder.is_dir():
        gone = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove temporary files and folders of processes that are gone; nobody but the caller writes there."""
    for place, folders, files in os.walk(folder):
        for name in filter(_is_temporary, (*files, *folders)):
            remove(Path(place, name))
        folders[:] = [name for name in folders if not _is_temporary(name)]


def sync(folder: Path, *, below: bool = False) -> None:
    """Have the disk hold the names in a folder, and with ``below`` all that is in it; where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    paths = [folder]
    if below:
        for place, folders, files in os.walk(folder):
            paths += [Path(place, name) for name in (*files, *folders)]
    for path in paths:
        if path.is_symlink() or not (path.is_dir() or (path.is_file() and not is_synced(path))):
            continue
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        except OSError:
            if path.is_file():  # some file systems cannot do it for folders
                raise
        finally:
            os.close(number)


def _rename(source: Path, target: Path) -> None:
    source.rename(target)
    sync(target.parent)


def _is_temporary(name: str) -> bool:
    return _TEMPORARY.fullmatch(name) is not None
