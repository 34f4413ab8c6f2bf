"""`Ids`: what images are called, a million of them in little memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from doorward.core.files import atomic_write
from doorward.core.opening import open_file

_LONGEST = 4096  # characters, as long as a path can be
_LONGEST_LINE = 12 * _LONGEST + 3  # bytes: a character beyond 16 bits is two escapes of six; quotes and the line's end
_PER_STEP = 65_536


class Ids(Sequence[str]):
    """Names of images: text, or their numbers as text where there is nothing better.

    Args:
        values: names; or indices of a larger set, int64 ``[N]``; or N, for the indices ``0..N-1``.
    """

    def __init__(self, values: Iterable[str] | NDArray[Any] | int) -> None:
        self._values: NDArray[Any] | range
        if isinstance(values, int):
            self._values = range(values)
        elif isinstance(values, np.ndarray):
            self._values = values
        else:
            self._values = np.array([_text(v) for v in values], dtype=np.dtypes.StringDType())

    @property
    def plain(self) -> bool:
        """True for the indices ``0..N-1``: the images have no names."""
        return isinstance(self._values, range)

    def take(self, rows: NDArray[np.int64]) -> Ids:
        """The names of these rows, in that order; indices stay those of the set that they were first given for."""
        return Ids(np.asarray(rows, np.int64) if isinstance(self._values, range) else self._values[rows])

    def __len__(self) -> int:
        return len(self._values)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Ids: ...
    def __getitem__(self, index: int | slice) -> str | Ids:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        return str(self._values[index])

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _PER_STEP):
            part = self._values[start : start + _PER_STEP]
            yield from map(str, part if isinstance(part, range) else part.tolist())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def __hash__(self) -> int:
        return hash((len(self), *self[:10]))

    def __repr__(self) -> str:
        shown = ", ".join(repr(self[i]) for i in range(min(3, len(self))))
        return f"Ids({shown}{', ...' if len(self) > 3 else ''})"

    def save(self, path: Path | str) -> None:
        """Write one JSON string on every line; indices of the set itself need no file, and an old one goes."""
        if self.plain:
            Path(path).unlink(missing_ok=True)
            return

        def write(temporary: Path) -> None:
            with temporary.open("w", encoding="ascii") as file:
                file.writelines(json.dumps(name) + "\n" for name in self)

        atomic_write(path, write)

    @classmethod
    def load(cls, path: Path | str, count: int) -> Ids:
        """Read what `save` wrote.

        Raises:
            DoorwardError: no regular file, or a link out of its folder.
        ValueError: another number of names, or lines that are no text.
        """
        path = Path(path)
        if not os.path.lexists(path):
            return cls(count)
        with open_file(path, inside=path.parent) as file:
            names = [_name(path, line) for line in islice(iter(lambda: file.readline(_LONGEST_LINE), b""), count + 1)]
        if len(names) != count:
            told = f"more than {count}" if len(names) > count else str(len(names))
            raise ValueError(f"{path.name}: {told} names for {count} images")
        return cls(names)


def _name(path: Path, line: bytes) -> str:
    if len(line) == _LONGEST_LINE and not line.endswith(b"\n"):
        raise ValueError(f"{path.name}: a line of more than {_LONGEST_LINE:,} bytes")
    name = json.loads(line.decode("ascii")) if line[:1] == b'"' else None
    if not isinstance(name, str) or len(name) > _LONGEST:
        raise ValueError(f"{path.name}: a line that is no text of at most {_LONGEST:,} characters")
    return name


def _text(value: object) -> str:
    """Text that can be written anywhere: bytes of a file name that are no UTF-8 become escapes."""
    text = str(value)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def distinct(names: Sequence[str]) -> Sequence[str]:
    """The names, all different: the second ``a.png`` becomes ``a.png#2``."""
    taken = set(names)
    if len(taken) == len(names):
        return names
    seen: set[str] = set()
    numbers: dict[str, int] = {}
    found = []
    for name in names:
        new = name
        while new in seen or (new != name and new in taken):
            numbers[name] = numbers.get(name, 1) + 1
            new = f"{name}#{numbers[name]}"
        seen.add(new)
        found.append(new)
    return found
