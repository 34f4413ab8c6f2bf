"""Files that somebody else may have made, opened with care: regular files, inside their folder, of bounded size."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import Any, BinaryIO

from doorward.core.errors import DoorwardError, show

MAX_JSON = 64 * 2**20  # bytes of a JSON file; a run of a million images writes less
_MAX_DEPTH = 64  # of lists and objects in each other
_MAX_DIGITS = 400  # of one number; the longest float is shorter

# A text that does not end is one match too: to try again at each of its quotes would take for ever.
_TEXT, _BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"?'), re.compile(r"[\[\]{}]")

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def check_file(path: Path | str, *, inside: Path | str | None = None, most: int | None = None) -> int:
    """Look at a file before a library opens it by name; returns its size in bytes.

    Links are followed, and must end inside ``inside`` where one is given: a data set may not show files of its
    reader's that lie elsewhere. Somebody who changes files at the same moment is not withstood.

    Args:
        path: the file.
        inside: a folder that it must lie in, links resolved.
        most: bytes that it may have.

    Raises:
        DoorwardError: absent, a folder, a named pipe, a device, outside of ``inside``, or larger than ``most``.
    """
    try:
        state = os.stat(path)  # noqa: PTH116 (a Path costs more than the call, and this comes before every picture)
    except OSError as error:
        raise DoorwardError(f"{show(path)}: {error.strerror}; expected a file") from None
    return _checked(path, state, inside, most)


def open_file(path: Path | str, *, inside: Path | str | None = None, most: int | None = None) -> BinaryIO:
    """Open a file for reading bytes; never waits for a pipe, never reads a device. Arguments, errors: `check_file`."""
    try:
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise DoorwardError(f"{show(path)}: {error.strerror}; expected a file") from None
    try:
        _checked(path, os.fstat(number), inside, most)
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


def read_bytes(path: Path | str, *, most: int, inside: Path | str | None = None) -> bytes:
    """The content of a file of at most ``most`` bytes; errors: `check_file`."""
    with open_file(path, inside=inside, most=most) as file:
        return file.read(min(most, os.fstat(file.fileno()).st_size))  # reading takes room for all that it is asked for


def read_text(path: Path | str, *, most: int, inside: Path | str | None = None) -> str:
    """The content of a UTF-8 file of at most ``most`` bytes; errors: `check_file`, and text that is no UTF-8."""
    try:
        return read_bytes(path, most=most, inside=inside).decode()
    except UnicodeDecodeError as error:
        raise DoorwardError(f"{show(path)}: {error.reason} at byte {error.start}; expected UTF-8 text") from None


def home_of(folder: Path) -> Path:
    """Where the files of a folder may lie: in it; of a snapshot in Hugging Face's cache, which is all links, beside it.

    The cache has ``datasets--NAME/snapshots/COMMIT``, whose files are links into ``datasets--NAME/blobs``.
    """
    for below in (folder, *folder.parents):
        apart = below.parent.parent.name.startswith(("models--", "datasets--"))
        if below.parent.name == "snapshots" and apart:
            return below.parent.parent
    return folder


def parse_json(text: str, where: object) -> Any:
    """Strict JSON: every key once, no NaN or infinity, bounded depth and length of numbers.

    Raises:
        DoorwardError: ``where`` and what is wrong.
    """
    try:
        _check_depth(text)
        return json.loads(
            text, object_pairs_hook=_once, parse_constant=_refuse, parse_int=_whole_number, parse_float=_finite
        )
    except (ValueError, RecursionError) as error:
        raise DoorwardError(f"{show(where)}: {error}; expected JSON") from None


def read_json(path: Path | str, *, most: int = MAX_JSON, inside: Path | str | None = None) -> dict[str, Any]:
    """A file that holds one strict JSON object; errors: `check_file`, `parse_json`, and anything but an object."""
    value = parse_json(read_text(path, most=most, inside=inside), path)
    if not isinstance(value, dict):
        raise DoorwardError(f"{show(path)}: holds a {type(value).__name__}; expected a JSON object")
    return value


def _checked(path: Path | str, state: os.stat_result, inside: Path | str | None, most: int | None) -> int:
    if not stat.S_ISREG(state.st_mode):
        kind = _KINDS.get(stat.S_IFMT(state.st_mode), "no file")
        raise DoorwardError(f"{show(path)}: is {kind}; expected a regular file")
    if most is not None and state.st_size > most:
        raise DoorwardError(f"{show(path)}: {state.st_size:,} bytes; expected at most {most:,}")
    if inside is not None and not Path(path).resolve().is_relative_to(home_of(Path(inside).resolve())):
        raise DoorwardError(f"{show(path)}: is a link that leaves {show(inside)}; expected files inside it")
    return state.st_size


def _check_depth(text: str) -> None:
    if text.count("[") + text.count("{") <= _MAX_DEPTH:
        return
    depth = 0
    for mark in _BRACKET.finditer(_TEXT.sub("", text)):
        depth += 1 if mark[0] in "[{" else -1
        if depth > _MAX_DEPTH:
            raise ValueError(f"more than {_MAX_DEPTH} lists and objects in each other")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the key {name[:80]!r} comes twice")
        found[name] = value
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"the number {constant}")


def _whole_number(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if len(digits) > _MAX_DIGITS or value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {digits[:40]}")
    return value
