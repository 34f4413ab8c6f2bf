"""Tar files that anyone may have made: no header is larger, and nothing unpacks to more, than a real one's would."""

from __future__ import annotations

import gzip
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from doorward.core.errors import DoorwardError, show
from doorward.core.opening import open_file
from doorward.data.limits import MAX_HEADER, most_unpacked

STEP = MAX_HEADER  # bytes that are read at once, at most
_MAX_PADDING = 16 * 2**20
_GZIP = b"\x1f\x8b"
_MAX_FIELDS = 1000  # of the extended headers that hold for all entries; tarfile copies them to every one


class _Bounded:
    """A file for `tarfile`, which takes the length of an extended header from the file and reads it at once.

    Args:
        file: the content, unpacked.
        most: bytes that it may have.
        path: for messages.
    """

    def __init__(self, file: IO[bytes], most: int, path: Path) -> None:
        self._file, self._most, self._path = file, most, path

    def read(self, size: int) -> bytes:
        if size > STEP:
            raise DoorwardError(f"{show(self._path)}: a header of {size:,} bytes; expected at most {MAX_HEADER:,}")
        self._check(self._file.tell() + size)
        return self._file.read(size)

    def seek(self, place: int) -> int:
        if place < 0:
            raise DoorwardError(f"{show(self._path)}: an entry that begins before the file; expected a whole archive")
        self._check(place)
        return self._file.seek(place)

    def tell(self) -> int:
        return self._file.tell()

    def _check(self, place: int) -> None:
        if place > self._most:
            told = f"unpacks to more than {self._most:,} bytes"
            raise DoorwardError(f"{show(self._path)}: {told}; expected as many at most, a bomb or no whole archive")


@contextmanager
def opened_tar(path: Path, packed: bool = True) -> Iterator[tarfile.TarFile]:
    """A ``.tar`` or, where it may be ``packed``, a ``.tar.gz`` file; what tells is its content, not its name.

    Raises:
        DoorwardError: no regular file; later, a header or a content too large.
    """
    with open_file(path) as raw:
        size = os.fstat(raw.fileno()).st_size
        zipped = packed and raw.read(2) == _GZIP
        raw.seek(0)
        file = cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if zipped else raw
        bounded = _Bounded(file, most_unpacked(size) if zipped else size + _MAX_PADDING, path)
        with file, tarfile.open(fileobj=cast("IO[bytes]", bounded), mode="r:") as archive:
            yield archive


def members(archive: tarfile.TarFile, path: Path, most: int) -> Iterator[tarfile.TarInfo]:
    """The entries of a tar file one after another; `tarfile` would keep all of them, each with its headers."""
    for number, member in enumerate(archive):
        archive.members = []  # type: ignore[attr-defined]
        if number >= most:
            raise DoorwardError(f"{show(path)}: more than {most:,} entries; expected fewer")
        if len(archive.pax_headers) > _MAX_FIELDS:
            raise DoorwardError(f"{show(path)}: more than {_MAX_FIELDS} global fields; expected fewer")
        yield member


def entry_name(path: Path, name: str) -> str:
    return f"{show(path)}: entry {ascii(name)[:200]}"


def expect_end(archive: tarfile.TarFile, path: Path) -> None:
    """A file cut between two entries lacks the block of zeros; reading on to the end checks gzip's own checksum."""
    if archive.fileobj is None:
        return
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise DoorwardError(f"{show(path)}: ends without an end mark; expected a whole archive")
    for _ in range(_MAX_PADDING // STEP):
        if len(archive.fileobj.read(STEP)) < STEP:
            return
    raise DoorwardError(f"{show(path)}: goes on after its end mark; expected a whole archive")
