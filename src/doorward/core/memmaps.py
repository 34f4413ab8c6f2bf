"""Arrays in files, larger than memory."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from doorward.core.opening import open_file

_MAX_HEADER = 10_000  # bytes, as NumPy has it


def create(path: Path | str, dtype: DTypeLike, shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """A new ``.npy`` file, mapped for writing, with its disk space reserved.

    Raises:
        OSError: the disk is full. Without the reservation a full disk would kill the process (SIGBUS) at the first
            write to a page that has no place.
    """
    path = Path(path)
    array: np.memmap[Any, Any] = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, file.seek(0, os.SEEK_END))
            except OSError as error:
                path.unlink()
                raise OSError(error.errno, error.strerror, str(path)) from None
    return array


def open_array(path: Path | str, *, inside: Path | str | None = None) -> np.memmap[Any, Any]:
    """Map an ``.npy`` file for reading, whoever made it; never a pickle.

    Raises:
        DoorwardError: no regular file, or one that leaves the folder ``inside``.
        ValueError: no such array, or fewer bytes than its shape tells.
    """
    with open_file(path, inside=inside) as file:
        head = file.read(12)
    if len(head) < 12 or not head.startswith(np.lib.format.MAGIC_PREFIX):
        raise ValueError("no .npy file")
    if head[6] > 1 and int.from_bytes(head[8:12], "little") > _MAX_HEADER:  # which NumPy would read before it looks
        raise ValueError(f"a header of more than {_MAX_HEADER:,} bytes")
    return np.lib.format.open_memmap(path, mode="r")


def release(array: NDArray[Any]) -> None:
    """Give the pages of a memory-mapped array back to the system; they are read again when needed.

    Without this, a pass over a memory map counts as resident memory as if the set had been loaded.
    """
    base: object = array
    while isinstance(base, np.ndarray) and base.base is not None and not isinstance(base.base, mmap.mmap):
        base = base.base
    mapping = getattr(base, "base", None)
    if isinstance(mapping, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)
