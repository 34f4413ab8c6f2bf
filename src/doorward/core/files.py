"""Files that are whole or absent."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doorward.core.errors import CannotWriteError

_synced: set[tuple[int, ...]] = set()  # files whose content was waited for; a second wait costs milliseconds


def atomic_write(path: Path | str, content: str | bytes | Callable[[Path], object]) -> None:
    """Write a file under a temporary name beside it, flush it to disk, rename: the file is whole or absent.

    Args:
        path: the file; an older one is replaced at the end. Folders above it are made.
        content: text (UTF-8, line ends as they are), bytes, or a function that writes the path that it is given.

    Raises:
        CannotWriteError: the place cannot be written or the disk is full. The older file is still there.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
            _synced.add(_state(os.fstat(file.fileno())))
        temporary.replace(path)
        if (path.parent / "run.json").exists():  # nobody sweeps a finished run
            drop_abandoned(path)
    except OSError as error:
        told = error.strerror or error
        raise CannotWriteError(f"{path}: cannot be written ({told}); expected a writable place") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def is_synced(path: Path) -> bool:
    """Whether the disk is known to hold the content of a file, since `atomic_write` wrote it in this process."""
    return _state(path.stat()) in _synced


def _state(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def drop_abandoned(path: Path | str) -> None:
    """Remove what processes that were killed began to write in place of a file."""
    path = Path(path)
    ours = re.compile(rf"{re.escape(path.name)}\.(\d{{1,9}})\.tmp")
    with suppress(OSError):
        for found in path.parent.iterdir():
            match = ours.fullmatch(found.name)
            if match is not None and not _is_running(int(match[1])):
                found.unlink(missing_ok=True)


def _is_running(number: int) -> bool:
    if sys.platform == "win32":  # there the question would end the process
        return True
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def write_json(path: Path | str, value: Any) -> None:
    """Write JSON; NaN and infinity are refused. The file is whole or absent."""
    atomic_write(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def write_array(path: Path | str, array: NDArray[Any]) -> None:
    """Write one NumPy array as ``.npy``; the file is whole or absent."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    atomic_write(path, buffer.getvalue())
