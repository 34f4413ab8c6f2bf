"""Weights in the containers that people keep them in: read without running code, written back as they came."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from doorward.core import tensors
from doorward.core.errors import DoorwardError, brief, show
from doorward.core.files import atomic_write
from doorward.core.opening import check_file
from doorward.core.text import plural
from doorward.models.pickled import check_pickled

_WRAPPERS = ("state_dict", "model_state_dict", "net", "model", "netC")
_PLAIN = {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
          torch.int8, torch.uint8, torch.bool}  # fmt: skip
_PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and of torch.compile


@dataclass(frozen=True)
class Weights:
    """Tensors by the names that a net has for them, and how the file named and wrapped them.

    Args:
        tensors: as the file holds them, in its types.
        safetensors: the container; else a PyTorch file.
        whole: all that a PyTorch file holds.
        wrappers: keys under which the tensors lay, from the outside in.
        prefix: what stood before every name.
    """

    tensors: dict[str, Tensor]
    safetensors: bool
    whole: Mapping[str, Any] = field(default_factory=dict)
    wrappers: tuple[str, ...] = ()
    prefix: str = ""

    def stripped(self, prefix: str) -> Weights:
        """The same without ``prefix`` before every name."""
        shorter = {name.removeprefix(prefix): tensor for name, tensor in self.tensors.items()}
        return replace(self, tensors=shorter, prefix=self.prefix + prefix)

    def fitted(self, net: nn.Module) -> Weights:
        """Without what stands before every name, such as ``model.``, where that makes them the net's names."""
        expected, found = set(net.state_dict()), set(self.tensors)
        first = {name.split(".", 1)[0] for name in found}
        if found & expected or len(first) != 1:
            return self
        shorter = self.stripped(f"{first.pop()}.")
        return shorter if set(shorter.tensors) & expected else self


def read_weights(path: Path) -> Weights:
    """Read safetensors or a PyTorch state dict, unwrapped, without the prefixes of DataParallel and torch.compile.

    Raises:
        DoorwardError: no such file, a pickled model (which would run code), or no state dict.
    """
    check_weights_file(path)
    if path.suffix == ".safetensors":
        return _without_prefix(Weights(tensors.read_tensors(path), safetensors=True))
    try:
        check_pickled(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickles, which end in an error below or in plain tensors
            whole = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a file that anyone may have written makes of the reader
        told = f"{path}: not a plain state dict ({show(_reason(error))})"
        recipe = "torch.save(net.state_dict(), 'weights.pth')"
        raise DoorwardError(f"{told}; expected weights alone, as {recipe} writes: a pickled model runs code") from None
    held, wrappers = whole, []
    for _ in range(3):
        wrapped = next((k for k in _WRAPPERS if isinstance(held, dict) and isinstance(held.get(k), dict)), None)
        if wrapped is None:
            break
        held = held[wrapped]
        wrappers.append(wrapped)
    if not isinstance(held, dict) or not held or not all(isinstance(v, Tensor) for v in held.values()):
        raise DoorwardError(
            f"{path}: holds no state dict; expected names and tensors, or those under net or state_dict"
        )
    return _without_prefix(Weights({str(k): v for k, v in held.items()}, False, whole, tuple(wrappers)))


def check_weights_file(path: Path) -> None:
    """Refuse at once what is no file that could be read.

    Raises:
        DoorwardError: no such file, a folder, a named pipe, a device.
    """
    if not path.exists():
        raise DoorwardError(f"{path}: no such file; expected weights as .safetensors, .pt, .pth or .h5")
    check_file(path)


def _reason(error: Exception) -> str:
    """What the file names that is no plain tensor, or the reader's own words without its advice to trust the file."""
    named = re.search(r"GLOBAL (\S+)", str(error))
    if named:
        return f"it names {named[1]}"
    told = re.search(r"WeightsUnpickler error: ([^\n]+)", str(error))
    return brief(Exception(told[1] if told else str(error).replace("Weights only load failed. ", "")), 120)


def _without_prefix(weights: Weights) -> Weights:
    for prefix in _PREFIXES * 2:
        if weights.tensors and all(k.startswith(prefix) for k in weights.tensors):
            weights = weights.stripped(prefix)
    return weights


def write_weights(path: Path, like: Weights, net: nn.Module) -> tuple[str, ...]:
    """Write the net's weights as ``like`` were read: names, number types, container, and what else lay beside them.

    Returns: what is not as it was, in words.
    """
    state, written = net.state_dict(), dict[str, Tensor]()
    for name, old in like.tensors.items():
        written[like.prefix + name] = state[name].detach().cpu().to(old.dtype) if name in state else old
    if like.safetensors:
        tensors.write_tensors(path, unshared(written))
    else:
        whole: Any = {k: v.clone() for k, v in written.items()}
        for depth in reversed(range(len(like.wrappers))):
            outer: Any = like.whole
            for key in like.wrappers[:depth]:
                outer = outer[key]
            whole = {**outer, like.wrappers[depth]: whole}
        atomic_write(path, lambda temporary: _save(whole, temporary))
    rounded = sorted({str(v.dtype).removeprefix("torch.") for v in like.tensors.values() if _narrow(v)})
    return (f"weights rounded to {', '.join(rounded)}, as they came",) if rounded else ()


def _save(whole: Any, path: Path) -> None:
    with path.open("wb") as file:  # by its name torch would call what is in it after the process that writes it
        torch.save(whole, file)


def _narrow(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dtype.itemsize < 4


def unshared(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, those that share memory (tied weights) copied: safetensors holds each apart."""
    seen, apart = set[int](), dict[str, Tensor]()
    for name, tensor in state.items():
        at = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.detach().clone() if at in seen else tensor.detach()
        seen.add(at)
    return apart


def fill(net: nn.Module, weights: Weights, path: Path, arch: str) -> None:
    """Put the weights into the net.

    Raises:
        DoorwardError: tensors that are missing, too many, of another shape, or not finite as the net's numbers.
    """
    expected, found = net.state_dict(), weights.tensors
    _check_names(found, expected, path, arch)
    for name, tensor in found.items():
        check_values(path, name, tensor, expected[name])
    net.load_state_dict(found, strict=False)


def check_values(path: Path, name: str, tensor: Tensor, wanted: Tensor) -> None:
    """Refuse a tensor that is no plain array of the numbers that the net has in its place.

    Raises:
        DoorwardError: sparse, quantised, complex or without values; whole numbers where the net has others; NaN,
            infinity, or a number that is one in the net's type.
    """
    kind = str(tensor.dtype).removeprefix("torch.")
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta or tensor.dtype not in _PLAIN:
        raise DoorwardError(
            f"{path}: tensor {name!r} of {kind}, or without plain values; expected floats, 16 to 64 bits"
        )
    if wanted.is_floating_point() and not tensor.is_floating_point():
        raise DoorwardError(f"{path}: tensor {name!r} of {kind}; expected floats, as the net has there")
    if tensor.is_floating_point():
        cast = tensor.to(wanted.dtype) if wanted.is_floating_point() else tensor
        if not bool(cast.isfinite().all()):
            raise DoorwardError(f"{path}: tensor {name!r} holds NaN or infinity; expected finite weights")


def _check_names(found: Mapping[str, Any], expected: Mapping[str, Tensor], path: Path, arch: str) -> None:
    """Refuse other names or shapes than the net's; all that is read of a tensor is its shape."""
    missing = [k for k in expected if k not in found and not k.endswith("num_batches_tracked")]
    extra = sorted(set(found) - set(expected))
    if missing or extra:
        told = [f"lacks {_tensors(missing)}"] if missing else []
        told += [f"holds {_tensors(extra)} that the net has not"] if extra else []
        raise DoorwardError(f"{path}: {' and '.join(told)}; expected the weights of {arch}")
    others = [name for name, tensor in found.items() if tensor.shape != expected[name].shape]
    if others:
        raise DoorwardError(f"{path}: {_other_shapes(others, found, expected, arch)}")


def _tensors(names: Sequence[str], most: int = 3) -> str:
    """``5 tensors ('a', 'b', 'c', ...)``."""
    shown = ", ".join(map(repr, names[:most]))
    return f"{plural(len(names), 'tensor')} ({shown}{', ...' if len(names) > most else ''})"


def _other_shapes(names: Sequence[str], found: Mapping[str, Tensor], expected: Mapping[str, Tensor], arch: str) -> str:
    """Which tensors have other shapes; where that is the head alone, the numbers of classes say it better."""
    heads = {(*found[k].shape[:1], *expected[k].shape[:1]) for k in names}
    alike = all(found[k].shape[1:] == expected[k].shape[1:] for k in names)
    if len(heads) == 1 and len(names) <= 2 and alike and any(found[k].ndim > 1 for k in names):
        mine, theirs = heads.pop()
        return f"weights for {mine} classes; {arch} makes a net for {theirs}; expected as many"
    shown = ", ".join(f"{k!r} {list(found[k].shape)} in place of {list(expected[k].shape)}" for k in names[:3])
    more = ", ..." if len(names) > 3 else ""
    return f"{plural(len(names), 'tensor')} of other shapes ({shown}{more}); expected those of {arch}"


def fits(net: nn.Module, found: Mapping[str, Tensor]) -> bool:
    """Whether names and shapes are the net's."""
    expected = net.state_dict()
    known = all(k in expected and expected[k].shape == v.shape for k, v in found.items())
    return known and all(k in found or k.endswith("num_batches_tracked") for k in expected)


def class_counts(found: Mapping[str, Tensor]) -> list[int]:
    """How many classes the weights may be for, the likeliest first: the last matrix is mostly the head's."""
    found = {name: tensor for name, tensor in found.items() if tensor.numel()}  # an empty one could be of any length
    if "output.weight" in found and found["output.weight"].ndim:
        return [int(found["output.weight"].shape[0])]
    heads = [v for k, v in found.items() if re.search(r"(^|\.)(classifier|head|fc|output|linear)\.weight$", k)]
    matrices = [v for v in found.values() if v.ndim == 2]
    convolutions = [v for v in found.values() if v.ndim == 4 and v.shape[2:] == (1, 1)]
    likely = [*(v for v in heads if v.ndim == 2), *matrices[::-1], *convolutions[::-1]]
    return list(dict.fromkeys(int(v.shape[0]) for v in likely if v.shape[0] >= 2))


def channel_count(found: Mapping[str, Tensor]) -> int | None:
    """Channels of the images, as the first convolution on grey or colour has them; None without one."""
    return next((int(v.shape[1]) for v in found.values() if v.ndim == 4 and v.shape[1] in (1, 3)), None)
