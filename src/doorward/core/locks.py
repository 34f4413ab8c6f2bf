"""One writer per output: a lock that the system itself opens when its process dies.

The lock is held on a file beside the output, ``NAME.partial.lock``. It says who holds it; that a file of that name is
there says nothing, since a killed process leaves it and the next one takes it over. It goes when the writer is done.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from doorward.core.errors import DoorwardError, OutputExistsError, show

_OURS = re.compile(rb"(?:doorward, process (\d{1,20}) on ([^\n]{0,255})\n?)?")
_BEYOND = 1 << 20  # Windows: the byte that is locked, where nobody reads
_ATTEMPTS, _PAUSE = 20, 0.05  # how often a holder is asked for that has not yet said who it is; seconds between


class Lock:
    """The right to write an output, from its creation to `release`.

    Args:
        output: what is to be written; the folder above it exists.

    Raises:
        OutputExistsError: another process (or thread) is writing it; the line says which.
        DoorwardError: something else lies at the lock's name.
        OSError: the place cannot be written.

    ``inherited``: whether a process that was killed held it; what lies beside under temporary names is then its own.
    Nothing is locked on file systems that know no locks.
    """

    def __init__(self, output: Path) -> None:
        self.path = lock_path(output)
        while True:
            number = _open(self.path)
            try:
                content = _content(number, self.path)
                if not _take(number):
                    told = f"{show(output)}: is being written by {_holder(number)}"
                    raise OutputExistsError(f"{told}; expected another name, or to wait until it is done")
                if _lies_at(number, self.path):  # else its holder removed it meanwhile
                    self._number, self.inherited = number, bool(content)
                    break
            except BaseException:
                os.close(number)
                raise
            os.close(number)
        os.truncate(number if os.truncate in os.supports_fd else self.path, 0)
        os.lseek(number, 0, os.SEEK_SET)
        os.write(number, f"doorward, process {os.getpid()} on {platform.node()[:200]}\n".encode())

    def release(self) -> None:
        """Remove the file and let go."""
        number, self._number = self._number, -1
        if number < 0:
            return
        if sys.platform == "win32":  # an open file cannot be removed there
            os.close(number)
            _remove(self.path)
            return
        _remove(self.path)
        os.close(number)


@contextmanager
def held(output: Path) -> Iterator[None]:
    """Be the only one who writes into ``output`` for a while; errors as of `Lock`."""
    output = output.absolute()
    output.parent.mkdir(parents=True, exist_ok=True)
    lock = Lock(output)
    try:
        yield
    finally:
        lock.release()


def hold_folder(folder: Path) -> int | None:
    """Lock a folder itself: a number to be closed, which its process does at its death.

    None where somebody else holds it, where it is gone, and where folders cannot be locked.
    """
    try:
        number = os.open(folder, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:  # on Windows always
        return None
    if _take(number, without=False) and _lies_at(number, folder):
        return number
    os.close(number)
    return None


def lock_path(output: Path) -> Path:
    """The file that is locked while ``output`` is written."""
    return output.with_name(f"{output.name}.partial.lock")


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    while True:
        try:
            return os.open(path, flags, 0o666)
        except PermissionError:  # Windows: it is just being removed
            if sys.platform != "win32" or not path.exists():
                raise
            time.sleep(_PAUSE)


def _content(number: int, path: Path) -> bytes:
    """What is written there, which must be ours: the file is removed in the end."""
    found = os.pread(number, 1024, 0) if hasattr(os, "pread") else os.read(number, 1024)
    if _OURS.fullmatch(found) is None:
        raise DoorwardError(f"{show(path)}: was not written by doorward; expected that name to be free")
    return found


def _holder(number: int) -> str:
    for _ in range(_ATTEMPTS):
        os.lseek(number, 0, os.SEEK_SET)
        found = _OURS.fullmatch(os.read(number, 1024))
        if found is not None and found[1]:
            elsewhere = f" on {show(found[2].decode(errors='replace'))}" if found[2].decode() != platform.node() else ""
            return f"process {int(found[1])}{elsewhere}"
        time.sleep(_PAUSE)
    return "another process"


def _lies_at(number: int, path: Path) -> bool:
    try:
        found = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    held = os.fstat(number)
    return (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino)


def _remove(path: Path) -> None:
    with suppress(OSError):  # else it stays, unlocked: the next writer takes it over
        path.unlink(missing_ok=True)


if sys.platform == "win32":
    import msvcrt

    def _take(number: int, *, without: bool = True) -> bool:
        os.lseek(number, _BEYOND, os.SEEK_SET)
        try:
            msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _take(number: int, *, without: bool = True) -> bool:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return without  # a file system that knows no locks
        return True
