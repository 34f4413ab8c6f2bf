"""A second device that is only pretended, for machines without a GPU: it finds values that are in the wrong place.

`pretended` registers PyTorch's spare backend ("PrivateUse1") under the name ``pretended``. A tensor there is an `Away`:
its `device`, its gradients and its place in the autograd graph are those of a tensor on another device, and its values
lie in a CPU tensor that it holds. Every operation computes on what is held, so that code whose path hangs on values
runs to its end, and whole verbs can go through it. Before it computes, what CUDA refuses is refused:

* tensors of both devices in one operation, but for a CPU tensor without dimensions in an operation element by element,
  CPU indices into a tensor that is away, and copies from one to the other;
* a result on the CPU that an operand on the device is added into, with or without dimensions;
* ``.numpy()`` and ``numpy.asarray`` of a tensor on the device;
* a generator of one device that draws for the other;
* a gradient on another device than its tensor (the autograd engine looks at that itself).

`Away.waits` counts the lines where the host waits until a GPU has done all before: values come from it or go to it
(but for ``non_blocking``), a mask becomes rows.

It cannot see: kernels that a GPU does not have, or that compute otherwise; other dtypes and memory formats that its
kernels want; how fast or large anything is; races (``non_blocking``); streams; two GPUs; code for ``cuda`` by name
(autocast to bf16, ``torch.cuda``, the ``foreach`` optimisers that PyTorch takes there); ``Module.to`` gives new
parameters here, where CUDA keeps the objects; worker processes, which do not know the device (threads do).

What else could serve, and does not: the ``meta`` device and ``FakeTensorMode`` have no values, so that the first
``if`` on one ends them; tensors that pretend to be on ``cuda`` abort the process in the autograd of a CPU build.
The backend cannot be taken back, so the process knows the device from then on; no other test looks for it.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, ClassVar
from unittest.mock import patch
from weakref import WeakValueDictionary

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend as _register

NAME = "pretended"
_register(NAME)
DEVICE = torch.device(NAME, 0)
_CPU = torch.device("cpu")
_COPIES = {"aten::copy_", "aten::_to_copy", "aten::to", "aten::_copy_from", "aten::_foreach_copy_"}
_INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index"}
_DECIDED = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::repeat_interleave"}
# Beside those that PyTorch marks as working element by element: a CPU scalar may go in.
_TAKES_SCALARS = {"aten::fill_", "aten::fill", "aten::where", "aten::masked_fill", "aten::masked_fill_"}


class MixedDevicesError(RuntimeError):
    """What CUDA refuses; kept in `Away.refused` too, for code that catches every error."""

    def __init__(self, told: str) -> None:
        super().__init__(told)
        Away.refused.append(told)


class Draws(torch.Generator):
    """A generator that remembers which device it was asked for; it draws on the CPU."""

    place: torch.device
    known: ClassVar[WeakValueDictionary[int, Draws]] = WeakValueDictionary()  # an operation sees it without its class

    def __new__(cls, device: torch.device | str = "cpu") -> Draws:
        made: Draws = super().__new__(cls, "cpu")
        made.place = torch.device(device)
        cls.known[made._cdata] = made
        return made

    @property
    def device(self) -> torch.device:
        return self.place


class Away(torch.Tensor):
    """A tensor on the pretended device; ``held`` has its values."""

    held: torch.Tensor
    waits: ClassVar[Counter[str]] = Counter()
    refused: ClassVar[list[str]] = []
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> Away:
        if torch.is_inference_mode_enabled():  # there `detach` gives up on one that was made in inference mode
            with torch.inference_mode(False):
                return Away(held)
        made: Away = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), held.stride(), held.storage_offset(), dtype=held.dtype, device=DEVICE
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})

    @property
    def data(self) -> torch.Tensor:
        return self.detach()

    @data.setter
    def data(self, other: torch.Tensor) -> None:
        torch.Tensor.data.__set__(self, other)
        self.held = _held(other)

    def numpy(self, *, force: bool = False) -> Any:
        if not force:
            told = f"can't convert {DEVICE} device type tensor to numpy. Use Tensor.cpu() first."
            Away.refused.append(told)
            raise TypeError(told)
        return self.detach().cpu().numpy()

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.held.untyped_storage()

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if not self.ndim else str(self)

    def __repr__(self, **_: Any) -> str:
        return f"Away({self.held!r})"


class _Factories(TorchDispatchMode):
    """Sees operations on CPU tensors too, among them those that make a tensor on the device."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else the compiler, which nothing here uses, is imported: two seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


@contextmanager
def pretended() -> Iterator[torch.device]:
    """Within the block, and in threads that it starts, the device can be used; begins to count and to keep anew."""
    run = threading.Thread.run
    Away.waits.clear()
    Away.refused.clear()

    def run_here(thread: threading.Thread) -> None:
        with _knowing():
            run(thread)

    with patch.object(threading.Thread, "run", run_here), patch.object(torch, "Generator", Draws), _knowing():
        yield DEVICE


@contextmanager
def _knowing() -> Iterator[None]:
    """This thread knows the device; gradients are computed in it too."""
    lifts = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=) makes it on the CPU and moves it
    try:
        with torch.autograd.set_multithreading_enabled(False), _Factories():
            yield
    finally:
        torch._C._set_only_lift_cpu_tensors(lifts)


def _compute(func: Any, args: Any, kwargs: Any) -> Any:
    """One operation: refused, or computed on the CPU, its results where they belong."""
    named = dict(zip(_names(func), args, strict=False)) | kwargs
    tensors = list(_tensors(named.values()))
    there = [t for t in tensors if isinstance(t, Away)]
    asked = named.get("device")
    away = bool(there) if asked is None else asked.type == NAME
    if func is torch.ops.aten.copy_.default:
        away = isinstance(named["self"], Away)
    if len(there) != len(tensors):
        _check_devices(func, named, tensors, there)
    if "generator" in named:
        _check_generator(func, named["generator"], away)
    if not there and not away:
        return func(*args, **kwargs)
    if _waits(func, named, tensors, there, away):
        Away.waits[_caller()] += 1
    found = func(*[_held(a) for a in args], **{k: _held(v) for k, v in kwargs.items()})
    if asked is not None and asked.type == "meta":
        return found
    return _placed(found, {id(_held(t)): t for t in tensors}, away)


def _waits(func: Any, named: dict[str, Any], tensors: list[Any], there: list[Any], away: bool) -> bool:
    """Whether the host waits for a GPU here: values go over, or decide how large a result is."""
    if func._schema.name in _COPIES:
        return len(there) != len(tensors) and not named.get("non_blocking") if away else bool(there)
    masks = any(t.dtype == torch.bool for t in _tensors([named.get("indices")]))
    return bool(there) and (not away or masks or func._schema.name in _DECIDED)


def _placed(found: Any, given: dict[int, torch.Tensor], away: bool) -> Any:
    """A result as a tensor of its device; what an operation writes into is the tensor that it was given."""
    if isinstance(found, list | tuple):
        return type(found)([_placed(f, given, away) for f in found])
    if not isinstance(found, torch.Tensor):
        return found
    mine = given.get(id(found))
    if mine is not None and isinstance(mine, Away) == away:
        if mine.shape != found.shape or mine.stride() != found.stride():
            raise NotImplementedError("the pretended device cannot change the shape of a tensor in place")
        return mine
    own = found if mine is None else found.clone()
    return Away(own) if away else own


def _check_devices(func: Any, named: dict[str, Any], tensors: list[Any], there: list[Any]) -> None:
    if not there or func._schema.name in _COPIES:
        return
    here = [t for t in tensors if not isinstance(t, Away) and t.device.type != "meta"]
    name = func._schema.name
    if name in _INDEXED and isinstance(named["self"], Away):
        here = [t for t in _tensors([named.get("values")]) if not isinstance(t, Away)]
    scalars = torch.Tag.pointwise in func.tags or name in _TAKES_SCALARS or name in _INDEXED
    written = [t for k in _writes(func) for t in _tensors([named.get(k)])]
    into = any(t is w for t in here for w in written)
    if into or any(t.ndim or not scalars for t in here):
        shapes = ", ".join(f"{t.device} {list(t.shape)}" for t in tensors)
        raise MixedDevicesError(f"{func}: expected all tensors to be on the same device, but found {shapes}")


def _check_generator(func: Any, given: Any, away: bool) -> None:
    generator = Draws.known.get(getattr(given, "_cdata", 0))
    if generator is not None and (generator.place.type == NAME) != away:
        wanted = NAME if away else "cpu"
        raise MixedDevicesError(f"{func}: expected a '{wanted}' generator, but found one of '{generator.device}'")


@cache
def _names(func: Any) -> tuple[str, ...]:
    return tuple(a.name for a in func._schema.arguments)


@cache
def _writes(func: Any) -> tuple[str, ...]:
    return tuple(a.name for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write)


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _held(value: Any) -> Any:
    """An argument as the CPU takes it."""
    if isinstance(value, Away):
        return value.held
    if isinstance(value, list | tuple):
        return type(value)([_held(v) for v in value])
    return _CPU if isinstance(value, torch.device) and value.type == NAME else value


def _caller() -> str:
    """The line of the package that led here, or else of the test."""
    frame, first = sys._getframe(2), ""
    while frame is not None:
        path = frame.f_code.co_filename
        told = f"{path.rpartition('/doorward/')[2]}:{frame.f_lineno}"
        if "/src/doorward/" in path:
            return told
        if not first and "/tests/" in path and path != __file__:
            first = f"{path.rpartition('/tests/')[2]}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return first
