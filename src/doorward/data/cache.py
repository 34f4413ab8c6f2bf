"""The user's cache folder: whole entries only, written under a temporary name and renamed."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from doorward.core.errors import DoorwardError, show
from doorward.core.leftovers import sync
from doorward.core.locks import hold_folder

_UNUSED_DAYS = 30
_ABANDONED_DAYS = 7


def cache_root(cache: Path | str | None = None) -> Path:
    """The folder given, else ``$DOORWARD_CACHE``, ``$XDG_CACHE_HOME/doorward`` or ``~/.cache/doorward``."""
    if cache is not None:
        return Path(cache).expanduser().absolute()
    if own := os.environ.get("DOORWARD_CACHE"):
        return Path(own).expanduser().absolute()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared).expanduser() if shared else Path.home() / ".cache").absolute() / "doorward"


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to fill that becomes ``target`` when the block ends well, and is gone when it does not.

    When another process finished the same entry first, that one stays: entries are named by their content.
    """
    _drop_abandoned(target.parent)
    try:
        temporary, lock = _begun(target)
    except OSError as error:
        raise DoorwardError(
            f"{show(target.parent)}: cannot be written ({error.strerror}); expected a writable cache folder "
            "(set DOORWARD_CACHE to choose another)"
        ) from None
    try:
        yield temporary
        with suppress(OSError):
            temporary.rename(target)
            sync(target.parent)
        if not target.is_dir():
            raise DoorwardError(f"{show(target)}: cannot be written; expected a writable cache folder")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _begun(target: Path) -> tuple[Path, int | None]:
    """A folder beside ``target``, locked where that is possible."""
    while True:
        temporary = _beside(target)
        temporary.mkdir(parents=True)
        lock = hold_folder(temporary)
        if lock is None:
            time.sleep(0.05)  # somebody may just be removing it
        if temporary.exists():  # else it was taken for one that was left
            return temporary, lock


def _beside(target: Path) -> Path:
    """A name that says on which machine it was made: only there can others see whether its process lives."""
    return target.with_name(f".{target.name}.{_machine()}-{secrets.token_hex(4)}.partial")


def _machine() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _drop_abandoned(place: Path) -> None:
    """What killed processes left: those of this machine at once, others after a week."""
    for folder in place.glob(f".*.{_machine()}-*.partial"):
        lock = hold_folder(folder)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
    _drop_unused(place.glob(".*.partial"), _ABANDONED_DAYS)


def need_space(folder: Path, size: int, what: object) -> None:
    """Refuse to begin what the disk cannot hold."""
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if size > free:
        raise DoorwardError(
            f"{show(what)}: needs {size / 2**30:.1f} GiB in {show(folder)}, where {free / 2**30:.1f} GiB are free; "
            "expected enough room (set DOORWARD_CACHE to choose another place)"
        )


def fingerprint(*parts: object) -> str:
    """A name for derived data: a hash of everything that it depends on, as canonical JSON."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def file_state(paths: Iterable[Path]) -> list[tuple[str, int, int, int]]:
    """What changes when a file does: size, time of change of the content, time of change of the inode.

    The last one cannot be set back by whoever edits the file, so a quiet edit is not answered from the cache.
    """
    found = ((path, path.stat()) for path in paths)
    return [(str(path), s.st_size, s.st_mtime_ns, s.st_ctime_ns) for path, s in found]


def touch_and_prune(entry: Path) -> None:
    """Mark an entry as used, and drop its neighbours that nobody used for a month."""
    with suppress(OSError):
        os.utime(entry)
        _drop_unused((other for other in entry.parent.iterdir() if other != entry), _UNUSED_DAYS)


def _drop_unused(entries: Iterable[Path], days: int) -> None:
    limit = time.time() - days * 86_400
    with suppress(OSError):
        for entry in entries:
            if entry.stat().st_mtime < limit:
                gone = _beside(entry)
                entry.rename(gone)  # at once: an entry that is there is whole
                shutil.rmtree(gone, ignore_errors=True)
