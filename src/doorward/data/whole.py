"""A file or a folder of files that gets its name when it is whole; nothing is ever replaced."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from doorward.core.errors import DoorwardError, OutputExistsError, show
from doorward.core.leftovers import FINISHED, UNFINISHED, sync
from doorward.core.locks import Lock, lock_path


def write_whole(target: Path, writer: Callable[[Path], None]) -> None:
    """Write what must not exist yet, as ``TARGET.partial`` first; one process at a time.

    Args:
        target: an absolute path.
        writer: writes the file or folder that it is given.

    Raises:
        OutputExistsError: the target, or a partial one that no export made, is there already.
        DoorwardError: a place that cannot be written, or a full disk; nothing is left.
    """
    partial = target.with_name(f"{target.name}.partial")
    if not os.path.lexists(lock_path(target)):  # a name that is taken is told without writing anything
        _refuse_if_taken(target, partial)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DoorwardError(f"{show(target.parent)}: cannot be made ({error.strerror}); expected a folder") from None
    try:
        lock = Lock(target)
    except OSError as error:
        raise DoorwardError(f"{show(target)}: cannot be written ({error.strerror}); expected a folder") from None
    try:
        if lock.inherited and not any((partial / name).exists() for name in (FINISHED, UNFINISHED)):
            _remove(partial)  # of an export that was killed; a run's is the run's
        _refuse_if_taken(target, partial)
        _write(writer, partial, target)
    finally:
        lock.release()


def _refuse_if_taken(*paths: Path) -> None:
    for path in filter(os.path.lexists, paths):
        raise OutputExistsError(f"{show(path)}: exists already; expected a new name, nothing is replaced")


def _write(writer: Callable[[Path], None], partial: Path, target: Path) -> None:
    """Write the whole, then give it its name; what fails leaves nothing."""
    try:
        writer(partial)
        _give_name(partial, target)
    except FileExistsError:  # somebody else's, made meanwhile
        raise OutputExistsError(f"{show(partial)}: exists already; expected that name to be free") from None
    except OSError as error:
        _remove(partial)
        told = error.strerror or error
        raise DoorwardError(f"{show(target)}: cannot be written ({told}); expected a place with room") from None
    except BaseException:
        _remove(partial)
        raise


def _give_name(partial: Path, target: Path) -> None:
    """Rename; a file that somebody made meanwhile is not replaced."""
    sync(partial)
    if partial.is_dir():
        partial.rename(target)
    else:
        try:
            target.hardlink_to(partial)
        except FileExistsError:
            _remove(partial)
            _refuse_if_taken(target)
            raise
        except OSError:  # a file system without links
            _refuse_if_taken(target)
            partial.rename(target)
        else:
            partial.unlink()
    sync(target.parent)


def _remove(partial: Path) -> None:
    """What this export made so far."""
    with suppress(OSError):
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)
