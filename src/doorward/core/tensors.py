"""Safetensors files: written whole or not at all and the same for the same tensors; read with suspicion."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeGuard

import numpy as np

from doorward.core.errors import DoorwardError, brief, show, writing_failed
from doorward.core.files import atomic_write
from doorward.core.opening import open_file, parse_json

_MOST_HEADER = 16 * 2**20  # bytes; 100,000 tensors take less
_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_UNPAIRED = re.compile(r"[\ud800-\udfff]")  # half a character, which UTF-8 does not have
SMALL = 2**30  # bytes of a file that holds no net: a trigger, a screen


@dataclass(frozen=True)
class Header:
    """What a safetensors file says of itself.

    Args:
        shapes: of the tensors by name, in the file's order.
        metadata: texts that lie beside them.
    """

    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, str]


def write_tensors(path: Path | str, tensors: Mapping[str, Any], metadata: dict[str, str] | None = None) -> None:
    """Write NumPy arrays or torch tensors (all of one kind); the file is whole or absent, and equal for equal content.

    Raises:
        CannotWriteError: the disk is full or the place cannot be written.
    """
    atomic_write(path, lambda temporary: _save(temporary, tensors, metadata))


def _save(path: Path, tensors: Mapping[str, Any], metadata: dict[str, str] | None) -> None:
    from safetensors import SafetensorError

    try:
        if all(isinstance(value, np.ndarray) for value in tensors.values()):
            from safetensors.numpy import save_file as save_arrays

            save_arrays({k: np.ascontiguousarray(v) for k, v in tensors.items()}, str(path), metadata)
        else:
            from safetensors.torch import save_file

            save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, str(path), metadata)
    except SafetensorError as error:
        raise writing_failed(error, path) from None
    if metadata and len(metadata) > 1:
        _sort_metadata(path)


def _sort_metadata(path: Path) -> None:
    """Put the texts of a header in the order of their names: the library writes them as a hash table has them."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        old = file.read(length)
        header = json.loads(old)
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        new = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(new) <= length:  # always: both are without spaces, and escape what must be
            file.seek(8)
            file.write(new.ljust(length))


def read_tensors(path: Path | str, *, inside: Path | str | None = None, most: int | None = None) -> dict[str, Any]:
    """All torch tensors of a file, on the CPU; memory is taken when they are used.

    Args:
        inside, most: as for `check_file`.

    Raises:
        DoorwardError: see `read_header`.
    """
    return read_described(path, inside=inside, most=most)[0]


def read_described(
    path: Path | str,
    *,
    framework: Literal["pt", "np"] = "pt",
    inside: Path | str | None = None,
    most: int | None = None,
) -> tuple[dict[str, Any], Mapping[str, str]]:
    """All tensors of a file, and the texts beside them; arguments and errors as for `read_tensors`."""
    from safetensors import SafetensorError, safe_open

    header = read_header(path, inside=inside, most=most)
    try:
        with safe_open(str(path), framework) as file:
            return {name: file.get_tensor(name) for name in header.shapes}, header.metadata
    except (OSError, SafetensorError) as error:
        raise DoorwardError(f"{show(path)}: {brief(error)}; expected a whole safetensors file") from None


def reason(error: Exception, path: Path | str) -> str:
    """What an error of a reader says is wrong with the file, for a message that names the file itself."""
    told = brief(error, 2000)
    return told.removeprefix(f"{show(path)}: ").partition("; expected")[0] if isinstance(error, DoorwardError) else told


def read_header(path: Path | str, *, inside: Path | str | None = None, most: int | None = None) -> Header:
    """Names and shapes of the tensors, held against the size of the file before anything of them is read.

    Raises:
        DoorwardError: no regular file, see `check_file`; a header that is long, broken, or speaks of numbers of another
            type or of more than the file holds.
    """
    with open_file(path, inside=inside, most=most) as file:
        try:
            return _header(file)
        except ValueError as error:
            raise DoorwardError(f"{show(path)}: {error}; expected a whole safetensors file") from None


def _header(file: BinaryIO) -> Header:
    size = file.seek(0, 2)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if length > size - 8 or size < 8:
        raise ValueError(f"{size:,} bytes, of which the header were {length:,}")
    if length > _MOST_HEADER:
        raise ValueError(f"a header of {length:,} bytes; at most {_MOST_HEADER:,} are read")
    try:
        held = parse_json(file.read(length).decode(), "header")
    except (DoorwardError, UnicodeDecodeError) as error:
        raise ValueError(brief(error)) from None
    if not isinstance(held, dict):
        raise ValueError(f"the header holds a {type(held).__name__}")
    metadata = held.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("metadata that is no text")
    if any(_UNPAIRED.search(name) for name in (*held, *metadata, *metadata.values())):
        raise ValueError("half a character in a name")
    return Header({name: _shape(show(name), about, size - 8 - length) for name, about in held.items()}, metadata)


def _shape(name: str, about: Any, room: int) -> tuple[int, ...]:
    """The shape of one tensor, whose numbers take so many bytes as lie between its ends."""
    about = about if isinstance(about, dict) else {}
    kind, shape, ends = about.get("dtype"), about.get("shape"), about.get("data_offsets")
    if not (_counts(shape) and _counts(ends) and len(ends) == 2):
        raise ValueError(f"tensor {name!r} without type, shape and place")
    if not isinstance(kind, str) or kind not in _SIZES:
        raise ValueError(f"tensor {name!r} of type {show(kind)}, which is none of {', '.join(_SIZES)}")
    numbers = math.prod(v or 1 for v in shape)  # an empty tensor's other sides could be of any length
    taken = numbers * _SIZES[kind] if 0 not in shape else 0
    if ends[1] - ends[0] != taken or ends[1] > room or numbers > max(room, 2**20):
        raise ValueError(f"tensor {name!r} of shape {shape} in bytes {ends[0]} to {ends[1]} of {room}")
    return tuple(shape)


def _counts(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and len(values) <= 16 and all(type(v) is int and v >= 0 for v in values)
