"""A reader for the pickles of CIFAR that can build arrays, bytes, text, integers, lists and dicts, and nothing else.

A pickle is a program. This is not Python's unpickler with a filter in front: it is a machine of its own, in which
no instruction can import or call anything. `pickletools.genops` splits the file into instructions and does not run
them. A name such as ``numpy.dtype`` is only ever a word that is compared with the few words known here.
"""

from __future__ import annotations

import math
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from doorward.data.checks import guarded, show

_EXPECTED = "a pickle of arrays, text and numbers only"
_ARRAY_WORDS = {"numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"}
_BUFFER_WORDS = {"numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer"}
_DTYPE = re.compile(r"[<|=]?[iu][1248]|\|?b1")
_PUSHED = {
    "BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "STRING", "BINSTRING", "SHORT_BINSTRING",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple,
}  # fmt: skip
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Refused(ValueError):
    """Something that the machine does not do."""


@dataclass(frozen=True)
class _Word:
    """A name in the file; never looked up."""

    text: str


@dataclass
class _Array:
    """An array whose content comes with a later instruction."""

    value: Any = None


@dataclass(frozen=True)
class _Dtype:
    code: str


def loads(data: bytes, where: object) -> Any:
    """The value of a pickle of plain data: nested dicts, lists, tuples, numbers, text, bytes, NumPy integer arrays.

    Text of Python 2 comes back as ``str`` in Latin-1, one character per byte.

    Raises:
        DoorwardError: anything else in the file, the name of a function or class above all.
    """
    with guarded(where, _EXPECTED):
        return _finished(_Machine(len(data)).run(data), {})


def _finished(value: Any, done: dict[int, Any], depth: int = 0) -> Any:
    """The value with its arrays in place of their stand-ins."""
    if depth > 20:
        raise _Refused("nested deeper than 20 levels")
    if isinstance(value, _Array):
        if value.value is None:
            raise _Refused("an array without content")
        return value.value
    if isinstance(value, _Word | _Dtype):
        raise _Refused(f"holds {value}")
    if isinstance(value, dict | list | tuple):
        if id(value) not in done:
            done[id(value)] = None  # a value inside itself ends here
            if isinstance(value, dict):
                done[id(value)] = {k: _finished(v, done, depth + 1) for k, v in value.items()}
            else:
                done[id(value)] = type(value)(_finished(v, done, depth + 1) for v in value)
        return done[id(value)]
    return value


class _Machine:
    """The stack, the marks and the memo of the pickle language."""

    def __init__(self, size: int) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[Any, Any] = {}
        self.bytes_left = 4 * size + 1024  # what conversions may copy, so that a small file cannot fill the memory

    def run(self, data: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(data):
            name = opcode.name
            if name in _PUSHED:
                self.stack.append(bytes(argument) if isinstance(argument, bytearray) else argument)
            elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
                self.memo[argument] = self.stack[-1]
            elif name == "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            elif name in ("BINGET", "LONG_BINGET", "GET"):
                self.stack.append(self.memo[argument])
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name]())
            elif name == "STOP":
                return self.stack.pop()
            elif name not in ("PROTO", "FRAME"):
                self._other(name, argument)
        raise _Refused("no end")

    def _other(self, name: str, argument: Any) -> None:
        if name == "MARK":
            self.marks.append(len(self.stack))
        elif name in _TUPLES:
            count = _TUPLES[name]
            items = tuple(self.stack[-count:])
            if len(items) != count:
                raise _Refused("an empty stack")
            self.stack[-count:] = [items]
        elif name == "GLOBAL":
            self.stack.append(_Word(str(argument).replace(" ", ".")))
        elif name == "STACK_GLOBAL":
            attribute, module = self.stack.pop(), self.stack.pop()
            self.stack.append(_Word(f"{module}.{attribute}"))
        elif name == "REDUCE":
            arguments, word = self.stack.pop(), self.stack.pop()
            self.stack.append(self._make(word, arguments))
        elif name == "BUILD":
            state = self.stack.pop()
            self._build(self.stack[-1], state)
        else:
            self._collect(name)

    def _collect(self, name: str) -> None:
        """Instructions that move items into a list, a dict or a tuple."""
        if name == "APPEND":
            item = self.stack.pop()
            _list(self.stack[-1]).append(item)
        elif name == "SETITEM":
            value, key = self.stack.pop(), self.stack.pop()
            _dict(self.stack[-1])[key] = value
        elif name in ("APPENDS", "LIST", "TUPLE", "SETITEMS", "DICT"):
            items = self._to_mark()
            if name in ("SETITEMS", "DICT"):
                if name == "DICT":
                    self.stack.append({})
                _dict(self.stack[-1]).update(zip(items[::2], items[1::2], strict=True))
            elif name == "APPENDS":
                _list(self.stack[-1]).extend(items)
            else:
                self.stack.append(items if name == "LIST" else tuple(items))
        else:
            raise _Refused(f"instruction {name}")

    def _to_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _make(self, word: Any, arguments: Any) -> Any:
        """What stands for the call of a known word; the argument checks are the whole of what it can do."""
        text = word.text if isinstance(word, _Word) else type(word).__name__
        if not isinstance(arguments, tuple):
            raise _Refused("a call without arguments")
        if text in _ARRAY_WORDS and arguments and arguments[0] == _Word("numpy.ndarray"):
            return _Array()
        if text == "numpy.dtype" and arguments and _DTYPE.fullmatch(str(arguments[0])):
            return _Dtype(str(arguments[0]))
        if text == "_codecs.encode" and arguments[1:] in (("latin1",), ("latin-1",)):
            return self._bytes(arguments[0])
        if text in _BUFFER_WORDS and len(arguments) == 4:
            raw, dtype, shape, order = arguments
            return _Array(self._array(shape, dtype, order == "F", raw))
        raise _Refused(f"refers to {show(text)!r}, which is not data and was not run")

    def _build(self, target: Any, state: Any) -> None:
        if isinstance(target, _Dtype) and isinstance(state, tuple):
            if len(state) < 2 or state[1] not in ("<", "|", "="):
                raise _Refused("a big-endian or structured array")
        elif isinstance(target, _Array) and isinstance(state, tuple) and len(state) == 5:
            _, shape, dtype, fortran, raw = state
            target.value = self._array(shape, dtype, bool(fortran), raw)
        else:
            raise _Refused("an object that is not an array")

    def _array(self, shape: Any, dtype: Any, fortran: bool, raw: Any) -> Any:
        if not isinstance(dtype, _Dtype) or not isinstance(shape, tuple):
            raise _Refused("an array of objects")
        if len(shape) > 8 or not all(isinstance(n, int) and 0 <= n < 2**40 for n in shape):
            raise _Refused("an array of impossible shape")
        content, kind = self._bytes(raw), np.dtype(dtype.code)
        if math.prod(shape) * kind.itemsize != len(content):
            raise _Refused(f"an array of shape {list(shape)} with {len(content)} bytes")
        return np.frombuffer(content, kind).reshape(shape, order="F" if fortran else "C")

    def _bytes(self, value: Any) -> bytes:
        if isinstance(value, bytes):
            return value
        if not isinstance(value, str):
            raise _Refused("an array of objects")
        self.bytes_left -= len(value)
        if self.bytes_left < 0:
            raise _Refused("unpacks to far more than it holds")
        return value.encode("latin-1")


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _Refused("items for what is not a list")
    return value


def _dict(value: Any) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise _Refused("entries for what is not a dict")
    return value
