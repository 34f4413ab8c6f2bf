"""Weights of Keras nets (HDF5), put into a PyTorch net whose layers have the same names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from doorward.core.errors import DoorwardError, brief

Arrays = dict[str, NDArray[Any]]
_MAGIC = b"\x89HDF\r\n\x1a\n"
_NORM_NAMES = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
_LARGEST = 1 << 32  # bytes in one array


def is_hdf5(path: Path) -> bool:
    """Whether the file begins like HDF5."""
    with path.open("rb") as file:
        return file.read(8) == _MAGIC


def read_layers(path: Path) -> dict[str, Arrays]:
    """Arrays of every layer, by the layer's name and the weight's: kernel, bias, gamma ...; nothing is executed."""
    try:
        import h5py
    except ImportError:
        raise DoorwardError(f"{path}: h5py is not installed; expected pip install 'doorward[keras]'") from None
    layers: dict[str, Arrays] = {}

    def keep(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset) or item.dtype.kind != "f" or name.startswith("optimizer_weights"):
            return
        if item.nbytes > _LARGEST or item.external is not None or item.is_virtual:
            raise DoorwardError(f"{path}: array {name!r} is too large or lies in another file; expected plain weights")
        parts = name.split("/")
        layers.setdefault(parts[-2] if len(parts) > 1 else "", {})[parts[-1].split(":")[0]] = np.asarray(item)

    try:
        with h5py.File(path, "r") as file:
            file["model_weights" if "model_weights" in file else "/"].visititems(keep)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise DoorwardError(f"{path}: {brief(error)}; expected a whole HDF5 file of Keras weights") from None
    if not layers:
        raise DoorwardError(f"{path}: holds no arrays of weights; expected Keras weights by layer")
    return layers


def keras_classes(path: Path) -> int | None:
    """Outputs of the layer called ``output``; None without one."""
    kernel = read_layers(path).get("output", {}).get("kernel")
    return None if kernel is None else int(kernel.shape[-1])


def load_keras(net: nn.Module, path: Path, shape: tuple[int, int, int]) -> None:
    """Fill every layer of the net from the Keras layer of its name.

    Convolutions turn from height, width, in, out to out, in, height, width. A dense layer that follows a flattened
    picture has its rows put from height, width, channels into channels, height, width; which picture that is shows in
    a forward pass.
    """
    layers, modules = read_layers(path), {n: m for n, m in net.named_modules() if list(m.parameters(recurse=False))}
    pictures = _flattened_pictures(net, shape)
    filled: dict[str, Tensor] = {}
    for name, module in modules.items():
        arrays = layers.get(name.replace(".", "/"), layers.get(name))
        if arrays is None:
            raise DoorwardError(f"{path}: has no layer {name!r}; expected one for each of {', '.join(modules)}")
        for key, tensor in _converted(module, arrays, pictures.get(name), f"{path}: layer {name!r}").items():
            filled[f"{name}.{key}"] = tensor
    expected = net.state_dict()
    for key, tensor in filled.items():
        if tensor.shape != expected[key].shape:
            found, wanted = list(tensor.shape), list(expected[key].shape)
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

    layers, modules = read_layers(path), {n: m for n, m in net.named_modules() if list(m.parameters(recurse=False))}
    pictures, where = _flattened_pictures(net, shape), _datasets(path)
    with h5py.File(path, "r+") as file:
        for name, module in modules.items():
            for key, old in layers.get(name.replace(".", "/"), layers.get(name, {})).items():
                new = _as_keras(module, key, pictures.get(name))
                if new is not None:
                    file[where[name.rpartition(".")[2], key]][...] = new.reshape(old.shape)


def _datasets(path: Path) -> dict[tuple[str, str], str]:
    """Where in the file an array lies, by the last name of its layer and its own."""
    import h5py

    found: dict[tuple[str, str], str] = {}

    def keep(name: str, item: Any) -> None:
        parts = name.split("/")
        if isinstance(item, h5py.Dataset) and len(parts) > 1 and not name.startswith("optimizer_weights"):
            found[parts[-2], parts[-1].split(":")[0]] = item.name

    with h5py.File(path, "r") as file:
        file["model_weights" if "model_weights" in file else "/"].visititems(keep)
    return found


def _as_keras(module: nn.Module, key: str, picture: torch.Size | None) -> NDArray[Any] | None:
    """An array of a layer as Keras keeps it; the reverse of `_converted`."""
    name = "weight" if key == "kernel" else _NORM_NAMES.get(key, key)
    tensor = getattr(module, name, None)
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
