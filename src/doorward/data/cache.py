"""The user's cache folder: whole entries only, written under a temporary name and renamed."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from doorward.core.errors import DoorwardError, show

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
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    _drop_unused(target.parent.glob(".*.partial"), _ABANDONED_DAYS)  # what a killed process left
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise DoorwardError(
            f"{show(target.parent)}: cannot be written ({error.strerror}); expected a writable cache folder "
            "(set DOORWARD_CACHE to choose another)"
        ) from None
    try:
        yield temporary
        with suppress(OSError):
            temporary.rename(target)
        if not target.is_dir():
            raise DoorwardError(f"{show(target)}: cannot be written; expected a writable cache folder")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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
                shutil.rmtree(entry, ignore_errors=True)
