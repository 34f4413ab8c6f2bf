"""Looks through the pickle of a PyTorch file before torch reads it: only plain tensors, in bounded time and memory.

torch's ``weights_only`` reader runs no code, but a few hundred bytes keep it busy for ever or fill the memory: tuples
of tuples as keys of a dictionary, a storage of 10^12 numbers, a tensor that shows one number 10^12 times.
"""

from __future__ import annotations

import io
import math
import pickletools
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from doorward.core.opening import open_file

_MOST_BYTES = 32 * 2**20  # of the pickle; its tensors lie elsewhere
_MOST_STEPS = 2_000_000  # of the pickle, some five seconds; a state dict of 1,000 tensors has 30,000
_MOST_ENTRIES = 1_000_000  # of the archive
_DEEPEST = 100
_LARGEST_KEY = 2**31
_ITEM_SIZES = {"Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1,
               "Byte": 1, "Bool": 1}  # fmt: skip
_STORAGES = {f"torch.{at}{kind}Storage": size for kind, size in _ITEM_SIZES.items() for at in ("", "cuda.")}
_TYPES = {f"torch.{kind}" for kind in ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8",
                                       "uint8", "bool")}  # fmt: skip
_ORDERED, _COUNTER, _SET, _BYTES = "collections.OrderedDict", "collections.Counter", "builtins.set", "_codecs.encode"
_TENSOR, _PARAMETER = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"
_MADE = {_ORDERED, _COUNTER, _SET, _BYTES, _TENSOR, _PARAMETER, "torch.Size", "torch.device"}
_PLAIN = ("NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING "
          "SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES "
          "BINBYTES8")  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


def check_pickled(path: Path) -> None:
    """Refuse a PyTorch file that holds anything but plain values and plain tensors within it.

    Raises:
        ValueError: what it holds, in words.
    """
    with open_file(path) as file:
        size = file.seek(0, 2)
        if not size:
            raise ValueError("an empty file")
        file.seek(0)
        zipped = file.read(4) == b"PK\x03\x04"  # as torch tells them apart
        file.seek(0)
        try:
            _check_archive(file, size) if zipped else _check_legacy(file, size)
        except (IndexError, KeyError, TypeError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            told = "no pickle" if isinstance(error, KeyError) else f"broken: {error}"
            raise ValueError(told) from None


def _check_archive(file: BinaryIO, size: int) -> None:
    file.seek(max(0, size - 22))
    if file.read(4) != b"PK\x05\x06":  # with anything behind it two readers may find two lists of entries
        raise ValueError("its archive does not end as PyTorch ends one")
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        sizes = {entry.filename: entry.file_size for entry in entries}
        if len(entries) > _MOST_ENTRIES or len(sizes) != len(entries):
            raise ValueError("its archive holds one name twice, or too many")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or sum(sizes.values()) > size:
            raise ValueError("its archive is compressed, which state dicts of PyTorch are not")
        found = [name for name in sizes if name.endswith("/data.pkl")]
        if len(found) != 1 or found[0].count("/") != 1:
            raise ValueError("its archive holds no data.pkl, or several")
        if sizes[found[0]] > _MOST_BYTES:
            raise ValueError(f"a pickle of {sizes[found[0]]:,} bytes")
        root = found[0].removesuffix("data.pkl")
        machine = _Machine()
        machine.run(io.BytesIO(archive.read(found[0])))
    for key, taken in machine.storages.items():
        if sizes.get(f"{root}data/{key}") != taken:
            raise ValueError(f"a storage of {taken:,} bytes that are not there")


def _check_legacy(file: BinaryIO, size: int) -> None:
    """The form before PyTorch 1.6: a number, a version, the machine, the values, the names of the storages; these."""
    start, machine = io.BytesIO(file.read(_MOST_BYTES)), _Machine()
    for _ in range(5):
        machine.run(start)
    if sum(machine.storages.values()) > size:
        raise ValueError(f"storages of {sum(machine.storages.values()):,} bytes in a file of {size:,}")


class _Thing:
    """A value of the pickle, as far as it matters.

    ``value``: of a dictionary its keys, of a list whether all in it could be keys. ``weight``: things in it, one that
    is named twice counted twice. ``deep``: levels. ``held``: whether it lies in another, so that nothing may be put
    into it any more.
    """

    __slots__ = ("deep", "held", "kind", "value", "weight")

    def __init__(self, kind: str, value: Any = None) -> None:
        self.kind, self.value, self.weight, self.deep, self.held = kind, value, 1, 1, False


class _Machine:
    """Goes through the steps of pickles as the unpickler does, without making what they make."""

    def __init__(self) -> None:
        self.storages: dict[str, int] = {}  # bytes, by name
        self._steps = 0
        self._begin()
        self._do: Mapping[str, Callable[[Any], None]] = {
            **dict.fromkeys(_PLAIN.split(), self._push_plain),
            **dict.fromkeys(("BINPUT", "LONG_BINPUT", "PUT"), self._put),
            **dict.fromkeys(("BINGET", "LONG_BINGET", "GET"), lambda at: self._stack.append(self._memo[at])),
            **dict.fromkeys(("SETITEMS", "APPENDS", "ADDITEMS"), lambda _: self._fill(self._to_mark())),
            "APPEND": lambda _: self._fill(self._pop(1)),
            "SETITEM": lambda _: self._fill(self._pop(2)),
            "MEMOIZE": lambda _: self._put(len(self._memo)),
            "MARK": lambda _: self._marks.append(len(self._stack)),
            "EMPTY_DICT": lambda _: self._stack.append(_Thing("dict")),
            "EMPTY_LIST": lambda _: self._stack.append(_Thing("list")),
            "EMPTY_SET": lambda _: self._stack.append(_Thing("set")),
            "EMPTY_TUPLE": lambda _: self._push("tuple", []),
            "TUPLE": lambda _: self._push("tuple", self._to_mark()),
            "TUPLE1": lambda _: self._push("tuple", self._pop(1)),
            "TUPLE2": lambda _: self._push("tuple", self._pop(2)),
            "TUPLE3": lambda _: self._push("tuple", self._pop(3)),
            "GLOBAL": lambda named: self._name(named.replace(" ", ".", 1).replace("__builtin__.", "builtins.", 1)),
            "BINPERSID": self._storage,
            "REDUCE": self._make,
            "BUILD": self._build,
        }

    def _begin(self) -> None:
        self._stack: list[_Thing] = []
        self._marks: list[int] = []
        self._memo: dict[int, _Thing] = {}

    def run(self, pickle: BinaryIO) -> None:
        """Go through one pickle, up to its end."""
        self._begin()
        for step, value, _ in pickletools.genops(pickle):
            self._steps += 1
            if self._steps > _MOST_STEPS:
                raise ValueError(f"a pickle of more than {_MOST_STEPS:,} steps")
            if step.name in ("PROTO", "FRAME", "STOP"):
                continue
            if step.name not in self._do:
                raise ValueError(f"its pickle does {step.name}")
            self._do[step.name]((step.name, value) if step.name in _CONSTANTS else value)

    def _push_plain(self, value: Any) -> None:
        value = _CONSTANTS[value[0]] if isinstance(value, tuple) else value
        self._stack.append(_Thing("plain", value))

    def _put(self, at: int) -> None:
        self._memo[at] = self._stack[-1]

    def _pop(self, count: int) -> list[_Thing]:
        if len(self._stack) - (self._marks[-1] if self._marks else 0) < count:
            raise ValueError("broken: its pickle takes more than there is")
        taken = self._stack[-count:]
        del self._stack[-count:]
        return taken

    def _to_mark(self) -> list[_Thing]:
        start = self._marks.pop()
        taken = self._stack[start:]
        del self._stack[start:]
        return taken

    def _push(self, kind: str, parts: list[_Thing]) -> None:
        thing = _Thing(kind, tuple(parts))
        self._put_in(thing, parts)
        self._stack.append(thing)

    def _put_in(self, thing: _Thing, parts: list[_Thing]) -> None:
        for part in parts:
            if part is thing:
                raise ValueError("values that hold themselves")
            part.held = True
            thing.weight += part.weight
            thing.deep = max(thing.deep, part.deep + 1)
        if thing.weight > 16 * self._steps + 10_000 or thing.deep > _DEEPEST:
            raise ValueError("values that hold each other again and again")

    def _fill(self, parts: list[_Thing]) -> None:
        thing = self._stack[-1]
        if thing.kind not in ("dict", "list", "set") or thing.held:
            raise ValueError("values that hold themselves")
        if thing.kind == "dict" and len(parts) % 2:
            raise ValueError("broken: a key without a value")
        keys = parts[::2] if thing.kind == "dict" else parts
        if thing.kind == "list":
            thing.value = thing.value is not False and all(map(_is_key, parts))
        elif all(map(_is_key, keys)):
            thing.value = {*(thing.value or ()), *(key.value for key in keys)}
        else:
            raise ValueError("a key that is no text and no small number")
        self._put_in(thing, parts)

    def _name(self, named: str) -> None:
        if named not in _MADE and named not in _STORAGES and named not in _TYPES:
            raise ValueError(f"it names {named}")
        self._stack.append(_Thing("name", named))

    def _storage(self, _: Any) -> None:
        what, kind, key, _place, count, *view = _parts(self._pop(1)[0])
        known = kind.value in _STORAGES and what.value == "storage" and isinstance(key.value, str)
        if not known or not _is_count(count) or any(v.value is not None for v in view):
            raise ValueError("a storage that is none")
        taken = count.value * _STORAGES[kind.value]
        if self.storages.setdefault(key.value, taken) != taken:
            raise ValueError("a storage of two sizes")
        self._stack.append(_Thing("storage", count.value))

    def _make(self, _: Any) -> None:
        name, given = self._pop(2)
        parts = _parts(given)
        if name.kind != "name" or name.value not in _MADE:
            _refuse_making(name, given)
        if name.value == _TENSOR:
            _check_tensor(parts)
        elif name.value == _PARAMETER:
            if len(parts) != 3 or parts[0].kind != "tensor" or parts[2].value:
                raise ValueError("a parameter that is none")
        elif name.value == _BYTES:
            if [p.kind for p in parts] != ["plain"] * 2 or parts[1].value != "latin1":
                _refuse_making(name, given)
        elif name.value == "torch.device":
            if any(p.kind != "plain" for p in parts):
                _refuse_making(name, given)
        elif name.value == _SET:
            if not all(p.kind == "list" and p.value is not False for p in parts):
                _refuse_making(name, given)
        elif parts and not (name.value == _COUNTER and parts[0].kind == "dict") and name.value != "torch.Size":
            _refuse_making(name, given)
        made = _Thing({_ORDERED: "dict", _TENSOR: "tensor", _PARAMETER: "tensor"}.get(name.value, "made"))
        self._put_in(made, [given])
        if made.kind != "made":
            made.weight = made.deep = 1
        self._stack.append(made)

    def _build(self, _: Any) -> None:
        (state,) = self._pop(1)
        if self._stack[-1].kind != "dict" or state.kind != "dict" or state.value != {"_metadata"}:
            raise ValueError("an object with a state of its own")
        self._put_in(self._stack[-1], [state])


def _refuse_making(name: _Thing, given: _Thing) -> NoReturn:
    raise ValueError(f"it makes {name.value if name.kind == 'name' else name.kind} of a {given.kind}")


def _parts(thing: _Thing) -> tuple[_Thing, ...]:
    if thing.kind != "tuple":
        raise ValueError("broken: no arguments")
    found: tuple[_Thing, ...] = thing.value
    return found


def _is_count(thing: _Thing) -> bool:
    return type(thing.value) is int and 0 <= thing.value < 2**60


def _is_key(thing: _Thing) -> bool:
    """Text, or a number whose hash is its own: others can be chosen so that each is compared with all before it."""
    value = thing.value
    return thing.kind == "plain" and (isinstance(value, str) or (type(value) is int and abs(value) < _LARGEST_KEY))


def _check_tensor(parts: tuple[_Thing, ...]) -> None:
    """Refuse a tensor that is larger than its storage, lies beside it, or has hooks."""
    storage, offset, size, stride, gradient, hooks, *metadata = parts
    sizes, strides = _parts(size), _parts(stride)
    whole = storage.kind == "storage" and len(sizes) == len(strides) <= 16 and gradient.kind == "plain"
    if not whole or not all(map(_is_count, (offset, *sizes, *strides))):
        raise ValueError("a tensor that is none")
    if hooks.value or any(m.value is not None for m in metadata):
        raise ValueError("a tensor with hooks")
    lengths = [s.value for s in sizes]
    last = offset.value + sum((n - 1) * s.value for n, s in zip(lengths, strides, strict=True))
    numbers = math.prod(n or 1 for n in lengths)
    if (0 not in lengths and last >= storage.value) or numbers > max(storage.value, 2**20):
        raise ValueError(f"a tensor of {lengths} in a storage of {storage.value:,} numbers")
