"""Classifiers of others: an architecture by name or from the user's own file, and weights that never run code."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from doorward.core import tensors
from doorward.core.classifier import Classifier, place_net
from doorward.core.errors import DoorwardError
from doorward.models.nets.catalogue import NETS, build
from doorward.models.open.keras_weights import is_hdf5, keras_classes, load_keras

Shape = tuple[int, int, int]
_WRAPPERS = ("state_dict", "model_state_dict", "net", "model", "netC")
_PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and of torch.compile


def load_foreign(
    path: Path,
    arch: str,
    shape: Shape,
    *,
    classes: tuple[str, ...] | int | None = None,
    mean: tuple[float, ...] = (0.0,),
    std: tuple[float, ...] = (1.0,),
    value_range: tuple[float, float] = (0.0, 1.0),
    device: torch.device | str = "cpu",
) -> Classifier:
    """Read a classifier that doorward did not train, in evaluation mode.

    Args:
        path: weights: safetensors, a PyTorch state dict (read with ``weights_only``; under ``net``, ``model`` or
            ``state_dict``, with or without ``module.`` before the names), or Keras HDF5 by layer names.
        arch: a net of the catalogue, or ``FILE.py:factory``; that file is run, so it must be the user's own. The
            factory is called with (shape, number of classes), or with nothing when it takes no arguments.
        shape: channels, height, width of its images.
        classes: names, or how many; read from the weights when absent.
        mean, std: per channel, on the scale of ``value_range``.
        value_range: what black and white are to the net: 0, 1 or 0, 255 or -1, 1.

    Raises:
        DoorwardError: one line about the file, the architecture or the number of classes.
    """
    if not path.is_file():
        raise DoorwardError(f"{path}: no such file; expected weights as .safetensors, .pt, .pth or .h5")
    keras = is_hdf5(path)
    if not keras and path.suffix in (".h5", ".hdf5"):
        raise DoorwardError(f"{path}: not an HDF5 file; expected weights as Keras saves them")
    tensors = {} if keras else read_tensors(path)
    found = keras_classes(path) if keras else _last_rows(tensors)
    count = classes if isinstance(classes, int) else len(classes) if classes is not None else found
    if count is None:
        raise DoorwardError(f"{path}: the number of classes cannot be told from the weights; expected it to be given")
    if found is not None and arch in NETS and found != count:
        raise DoorwardError(f"{path}: weights for {found} classes; expected {count}")
    net = make_net(arch, shape, count)
    if keras:
        load_keras(net, path, shape)
    else:
        _fill(net, tensors, path)
    names = classes if isinstance(classes, tuple) else tuple(str(k) for k in range(count))
    scaled_mean, scaled_std = conventions(mean, std, value_range, shape[0])
    place_net(net, device).eval()
    return Classifier(net, arch, names, shape, scaled_mean, scaled_std)


def conventions(
    mean: tuple[float, ...], std: tuple[float, ...], value_range: tuple[float, float], channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation on the scale [0, 1], so that (x - mean) / std is what the net wants."""
    low, high = value_range
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels):
            expected = "1 for grey images" if channels == 1 else f"1 or {channels}, one per channel"
            raise DoorwardError(f"--{name} of {len(values)} numbers; expected {expected}")
    if not high > low:
        raise DoorwardError(f"--range {low:g},{high:g}; expected LOW,HIGH with LOW below HIGH")
    if min(std) <= 0:
        raise DoorwardError(f"--std {min(std):g}; expected numbers above 0")
    span = high - low
    return tuple((m - low) / span for m in mean), tuple(s / span for s in std)


def make_net(arch: str, shape: Shape, classes: int) -> nn.Module:
    """A net by name, or from the factory in the user's own file."""
    if ":" not in arch:
        return build(arch, shape, classes)
    file, _, name = arch.rpartition(":")
    factory = _factory(Path(file), name)
    required = [
        p
        for p in inspect.signature(factory).parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    try:
        net = factory(shape, classes) if required else factory()
    except Exception as error:  # the user's own code
        raise DoorwardError(
            f"{arch}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        ) from None
    if not isinstance(net, nn.Module):
        raise DoorwardError(f"{arch}: gave a {type(net).__name__}; expected a torch.nn.Module")
    return net


def _factory(file: Path, name: str) -> Any:
    if file.suffix != ".py" or not file.is_file():
        raise DoorwardError(f"{file}: no such Python file; expected --arch FILE.py:factory")
    spec = importlib.util.spec_from_file_location(f"doorward_user_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's own code
        raise DoorwardError(
            f"{file}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        ) from None
    factory = getattr(module, name, None)
    if not callable(factory):
        raise DoorwardError(f"{file}: has no function {name!r}; expected the factory of the net")
    return factory


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file or of a PyTorch state dict, unwrapped, without prefixes."""
    if path.suffix == ".safetensors":
        return _without_prefix(tensors.read_tensors(path))
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a file that anyone may have written makes of the reader
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DoorwardError(
            f"{path}: not a plain state dict ({line[:120]}); expected weights alone, since a pickled model runs code"
        ) from None
    for _ in range(3):
        wrapped = next((k for k in _WRAPPERS if isinstance(held, dict) and isinstance(held.get(k), dict)), None)
        if wrapped is None:
            break
        held = held[wrapped]
    if not isinstance(held, dict) or not held or not all(isinstance(v, Tensor) for v in held.values()):
        raise DoorwardError(
            f"{path}: holds no state dict; expected names and tensors, or those under net or state_dict"
        )
    return _without_prefix({str(k): v for k, v in held.items()})


def _without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES * 2:
        if tensors and all(k.startswith(prefix) for k in tensors):
            tensors = {k.removeprefix(prefix): v for k, v in tensors.items()}
    return tensors


def _last_rows(tensors: dict[str, Tensor]) -> int | None:
    """Rows of the last matrix: the number of classes of a net that ends in a linear layer."""
    matrices = [v for v in tensors.values() if v.ndim == 2]
    if "output.weight" in tensors:
        return int(tensors["output.weight"].shape[0])
    return int(matrices[-1].shape[0]) if matrices else None


def _fill(net: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    expected = net.state_dict()
    missing = [k for k in expected if k not in tensors and not k.endswith("num_batches_tracked")]
    extra = sorted(set(tensors) - set(expected))
    if missing or extra:
        told = f"has no tensor {missing[0]!r}" if missing else f"has a tensor {extra[0]!r} that the net has not"
        raise DoorwardError(f"{path}: {told}; expected the weights of this architecture")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise DoorwardError(
                f"{path}: tensor {name!r} has shape {list(tensor.shape)}; expected {list(expected[name].shape)}"
            )
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise DoorwardError(f"{path}: tensor {name!r} holds NaN or infinity; expected finite weights")
    net.load_state_dict(tensors, strict=False)
