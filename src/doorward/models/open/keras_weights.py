"""Weights of Keras nets (HDF5), put into a PyTorch net whose layers have the same names."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from doorward.core.errors import DoorwardError, brief, show
from doorward.core.opening import check_file, open_file

Arrays = dict[str, NDArray[Any]]
Shapes = dict[str, tuple[int, ...]]
_MAGIC = b"\x89HDF\r\n\x1a\n"
_NORM_NAMES = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
_MOST_LINKS = 100_000  # names in a file; Keras writes some five a layer
_MOST_RATIO = 1100  # bytes of an array for one in the file: deflate comes to 1,032


def is_hdf5(path: Path) -> bool:
    """Whether the file begins like HDF5."""
    with open_file(path) as file:
        return file.read(8) == _MAGIC


def read_shapes(path: Path) -> dict[str, Shapes]:
    """Shapes of the arrays of every layer, by the layer's name and the weight's: kernel, bias, gamma ...

    Raises:
        DoorwardError: no HDF5 file of layers, links or arrays that lead out of it, arrays without content.
    """
    layers: dict[str, Shapes] = {}
    with _opened(path) as found:
        for (layer, key), array in found.items():
            layers.setdefault(layer, {})[key] = tuple(int(n) for n in array.shape)
    return layers


def _read_layers(path: Path, sizes: Mapping[str, Mapping[str, int]]) -> dict[str, Arrays]:
    """Arrays of the layers by names, where they have as many numbers as ``sizes`` says; no others are read."""
    layers: dict[str, Arrays] = {}
    with _opened(path) as found:
        for (layer, key), array in found.items():
            expected = sizes.get(layer, {}).get(key)
            if expected is None:
                continue
            if math.prod(array.shape) != expected:
                told = f"{path}: layer {layer!r}: {key!r} has shape {list(array.shape)}"
                raise DoorwardError(f"{told}; expected {expected:,} numbers, as the net has there")
            held = np.asarray(array)
            layers.setdefault(layer, {})[key] = held.astype(held.dtype.newbyteorder("="), copy=False)
    return layers


@contextmanager
def _opened(path: Path) -> Iterator[dict[tuple[str, str], Any]]:
    """The arrays of floats in a file by the last name of their layer and their own; nothing is executed or read yet."""
    try:
        import h5py
    except ImportError:
        raise DoorwardError(f"{path}: h5py is not installed; expected pip install 'doorward[keras]'") from None
    check_file(path)
    try:
        with h5py.File(path, "r") as file:
            _check_links(file, path)
            root = file.get("model_weights", file)
            found: dict[tuple[str, str], Any] = {}

            def keep(name: str, item: Any) -> None:
                parts = name.split("/")
                if isinstance(item, h5py.Dataset) and item.dtype.kind == "f" and parts[0] != "optimizer_weights":
                    _check_array(item, path)
                    found[parts[-2] if len(parts) > 1 else "", parts[-1].split(":")[0]] = item

            if isinstance(root, h5py.Group):
                root.visititems(keep)
            if not found:
                raise DoorwardError(f"{path}: holds no arrays of weights; expected Keras weights by layer")
            yield found
    except DoorwardError:
        raise
    except Exception as error:  # whatever HDF5 meets in a file that anyone may have written
        raise DoorwardError(f"{path}: {brief(error)}; expected a whole HDF5 file of Keras weights") from None


def _check_links(file: Any, path: Path) -> None:
    """Refuse names that lead to another file or to another name: Keras writes neither."""
    import h5py

    seen = list[str]()

    def look(name: bytes, link: Any) -> str | None:  # an error must not pass through the library that calls it
        seen.append(show(name.decode(errors="replace")))
        if link.type != h5py.h5l.TYPE_HARD:
            return f"{seen[-1]!r} is a link"
        return f"more than {_MOST_LINKS:,} names" if len(seen) > _MOST_LINKS else None

    wrong = file.id.links.visit(look, info=True)
    if wrong is not None:
        raise DoorwardError(f"{path}: {wrong}; expected plain weights")


def _check_array(array: Any, path: Path) -> None:
    """Refuse an array that lies in another file, or that takes far more memory than the file has for it."""
    name, kept = show(array.name), array.id.get_storage_size()
    if array.shape is None:
        raise DoorwardError(f"{path}: array {name!r} without numbers; expected plain weights")
    if array.external is not None or array.is_virtual:
        raise DoorwardError(f"{path}: array {name!r} lies in another file; expected plain weights")
    if array.dtype.itemsize > 8 or array.ndim > 8:
        raise DoorwardError(f"{path}: array {name!r} of {array.ndim} dimensions, {array.dtype}; expected plain weights")
    largest = max(math.prod(map(int, sides)) for sides in (array.shape, array.chunks or ())) * array.dtype.itemsize
    if largest > _MOST_RATIO * kept:
        told = f"{largest:,} bytes, for which the file holds {kept:,}"
        raise DoorwardError(f"{path}: array {name!r} of {told}; expected plain weights")


def keras_classes(path: Path) -> int | None:
    """Outputs of the layer called ``output``; None without one."""
    kernel = read_shapes(path).get("output", {}).get("kernel")
    return kernel[-1] if kernel else None


def _weighted(net: nn.Module) -> dict[str, nn.Module]:
    """The modules that have weights of their own, by name."""
    return {name: module for name, module in net.named_modules() if list(module.parameters(recurse=False))}


def check_keras(net: nn.Module, path: Path) -> dict[str, str]:
    """Hold the shapes in a file against a net, which may be one without memory; the layer for each of its modules.

    Raises:
        DoorwardError: see `read_shapes`; a layer that is not there, or whose arrays have other sizes than the net's.
    """
    layers, modules, names = read_shapes(path), _weighted(net), dict[str, str]()
    for name, module in modules.items():
        names[name] = name.replace(".", "/") if name.replace(".", "/") in layers else name
        if names[name] not in layers:
            raise DoorwardError(f"{path}: has no layer {name!r}; expected one for each of {', '.join(modules)}")
        for key, shape in layers[names[name]].items():
            wanted = getattr(module, _torch_name(key), None)
            if key in ("kernel", "bias") and wanted is None:
                held = f"{path}: layer {name!r} holds {', '.join(map(show, layers[names[name]]))}"
                raise DoorwardError(f"{held}; expected kernel and bias as the net has them")
            if isinstance(wanted, Tensor) and math.prod(shape) != wanted.numel():
                expected = f"expected the {wanted.numel():,} numbers of {list(wanted.shape)}"
                raise DoorwardError(f"{path}: layer {name!r}: {key!r} has shape {list(shape)}; {expected}")
    return names


def _torch_name(key: str) -> str:
    return "weight" if key == "kernel" else _NORM_NAMES.get(key, key)


def _arrays(net: nn.Module, path: Path) -> dict[str, Arrays]:
    """The arrays of a file by the name of the net's module, after `check_keras`; others are not read."""
    names, modules = check_keras(net, path), _weighted(net)
    sizes: dict[str, dict[str, int]] = {}
    for name, layer in names.items():
        keys = ("kernel", "bias", *_NORM_NAMES)
        held = {key: getattr(modules[name], _torch_name(key), None) for key in keys}
        sizes[layer] = {key: tensor.numel() for key, tensor in held.items() if isinstance(tensor, Tensor)}
    layers = _read_layers(path, sizes)
    return {name: layers.get(layer, {}) for name, layer in names.items()}


def load_keras(net: nn.Module, path: Path, shape: tuple[int, int, int]) -> None:
    """Fill every layer of the net from the Keras layer of its name.

    Convolutions turn from height, width, in, out to out, in, height, width. A dense layer that follows a flattened
    picture has its rows put from height, width, channels into channels, height, width; which picture that is shows in
    a forward pass.
    """
    layers, modules = _arrays(net, path), _weighted(net)
    pictures = _flattened_pictures(net, shape)
    filled: dict[str, Tensor] = {}
    for name, module in modules.items():
        for key, tensor in _converted(module, layers[name], pictures.get(name), f"{path}: layer {name!r}").items():
            filled[f"{name}.{key}"] = tensor
    expected = net.state_dict()
    for key, tensor in filled.items():
        if key not in expected or tensor.shape != expected[key].shape:
            found, wanted = list(tensor.shape), list(expected[key].shape) if key in expected else "no such weight"
            raise DoorwardError(f"{path}: {key!r} has shape {found}; expected {wanted}")
        if not bool(tensor.to(expected[key].dtype).isfinite().all()):
            raise DoorwardError(f"{path}: {key!r} holds NaN or infinity; expected finite weights")
    net.load_state_dict(filled, strict=False)


def save_keras(net: nn.Module, path: Path, shape: tuple[int, int, int]) -> None:
    """Put the net's weights into a Keras HDF5 file that `load_keras` has read into such a net; the rest stays.

    Raises:
        DoorwardError: the file is not that of such a net.
    """
    import h5py

    layers, names, modules = _arrays(net, path), check_keras(net, path), _weighted(net)
    pictures = _flattened_pictures(net, shape)
    with _opened(path) as found:
        places = {place: array.name for place, array in found.items()}
    with h5py.File(path, "r+") as file:
        for name, module in modules.items():
            for key, old in layers[name].items():
                new = _as_keras(module, key, pictures.get(name))
                if new is not None:
                    file[places[names[name], key]][...] = new.reshape(old.shape)


def _as_keras(module: nn.Module, key: str, picture: torch.Size | None) -> NDArray[Any] | None:
    """An array of a layer as Keras keeps it; the reverse of `_converted`."""
    tensor = getattr(module, _torch_name(key), None)
    if not isinstance(tensor, Tensor):
        return None
    tensor = tensor.detach().cpu()
    if key == "kernel" and isinstance(module, nn.Conv2d):
        tensor = tensor.permute(2, 3, 1, 0)
    elif key == "kernel":
        if picture is not None and tensor.shape[1] == picture.numel():
            tensor = tensor.view(-1, *picture).permute(0, 2, 3, 1).reshape(len(tensor), -1)
        tensor = tensor.T
    return tensor.contiguous().numpy()


def _converted(module: nn.Module, arrays: Arrays, picture: torch.Size | None, what: str) -> dict[str, Tensor]:
    if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
        return {_NORM_NAMES[k]: torch.from_numpy(v) for k, v in arrays.items() if k in _NORM_NAMES}
    if "kernel" not in arrays or (module.bias is not None) != ("bias" in arrays):
        raise DoorwardError(f"{what} holds {', '.join(arrays)}; expected kernel and bias as the net has them")
    kernel = torch.from_numpy(arrays["kernel"])
    found = {"bias": torch.from_numpy(arrays["bias"])} if "bias" in arrays else {}
    if isinstance(module, nn.Conv2d) and kernel.ndim == 4 and module.groups == 1:
        return {**found, "weight": kernel.permute(3, 2, 0, 1).contiguous()}
    if isinstance(module, nn.Linear) and kernel.ndim == 2:
        if picture is not None and kernel.shape[0] == picture.numel():
            channels, height, width = picture
            kernel = kernel.view(height, width, channels, -1).permute(2, 0, 1, 3).reshape(len(kernel), -1)
        return {**found, "weight": kernel.T.contiguous()}
    raise DoorwardError(f"{what} is a {type(module).__name__}; expected convolution, dense or batch norm")


@torch.no_grad()
def _flattened_pictures(net: nn.Module, shape: tuple[int, int, int]) -> dict[str, torch.Size]:
    """Names of linear layers whose input is a flattened picture, and its shape (channels, height, width)."""
    pictures: list[Tensor] = []
    found: dict[str, torch.Size] = {}
    names = {module: name for name, module in net.named_modules()}

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            pictures.append(output)

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        for picture in pictures:
            if picture[0].numel() == inputs[0][0].numel() and torch.equal(picture.flatten(1), inputs[0]):
                found[names[module]] = picture.shape[1:]

    handles = [m.register_forward_hook(keep) for m in net.modules() if not list(m.children())]
    handles += [m.register_forward_pre_hook(look) for m in net.modules() if isinstance(m, nn.Linear)]
    was_training = net.training
    try:
        net.eval()(torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)))
    except RuntimeError as error:
        size = "x".join(map(str, shape))
        raise DoorwardError(
            f"the net does not take images of {size} ({brief(error)}); expected the size it was made for"
        ) from None
    finally:
        net.train(was_training)
        for handle in handles:
            handle.remove()
    return found
