"""Classifiers and training states on disk: safetensors and JSON, never pickle."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from doorward.core.classifier import Classifier, place_net
from doorward.core.errors import DoorwardError
from doorward.core.files import read_json, write_json
from doorward.core.tensors import read_tensors, write_tensors
from doorward.models.nets.catalogue import build


def save_classifier(classifier: Classifier, folder: Path | str) -> None:
    """Write ``weights.safetensors`` and ``classifier.json`` into an existing folder."""
    folder = Path(folder)
    about = {
        "arch": classifier.arch,
        "classes": list(classifier.classes),
        "shape": list(classifier.shape),
        "mean": list(classifier.mean),
        "std": list(classifier.std),
        "feature_layer": classifier.feature_layer,
    }
    write_tensors(folder / "weights.safetensors", classifier.net.state_dict())
    write_json(folder / "classifier.json", about)


def load_classifier(folder: Path | str, device: torch.device | str = "cpu") -> Classifier:
    """Read a classifier that `save_classifier` wrote, in evaluation mode."""
    folder = Path(folder)
    if not (folder / "classifier.json").exists():
        raise DoorwardError(f"{folder}: holds no classifier.json; expected a folder written by 'doorward train'")
    about = read_json(folder / "classifier.json")
    try:
        shape = tuple(int(v) for v in about["shape"])
        classes = tuple(str(c) for c in about["classes"])
        conventions = {k: tuple(float(v) for v in about[k]) for k in ("mean", "std")}
        arch, layer = str(about["arch"]), about.get("feature_layer")
    except (KeyError, TypeError, ValueError) as error:
        raise DoorwardError(f"{folder / 'classifier.json'}: field {error} is missing or of a wrong type") from None
    if len(shape) != 3:
        raise DoorwardError(f"{folder / 'classifier.json'}: shape {list(shape)}; expected channels, height, width")
    if not all(map(math.isfinite, (*conventions["mean"], *conventions["std"]))) or min(conventions["std"]) <= 0:
        told = ", ".join(f"{k} {list(v)}" for k, v in conventions.items())
        raise DoorwardError(f"{folder / 'classifier.json'}: {told}; expected finite numbers, std above 0")
    with torch.device("meta"):  # a size that is not the weights' is refused before memory is taken for it
        outline = build(arch, shape, len(classes))
    tensors = fitting_weights(outline, folder / "weights.safetensors")
    net = build(arch, shape, len(classes))
    net.load_state_dict(tensors)
    place_net(net, device).eval()
    return Classifier(net, arch, classes, shape, conventions["mean"], conventions["std"], layer)


def fitting_weights(net: nn.Module, path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file whose names, shapes and finite values all fit the net."""
    tensors = read_tensors(path)
    expected = net.state_dict()
    for name, tensor in expected.items():
        if name not in tensors:
            raise DoorwardError(f"{path}: has no tensor {name!r}; expected the weights of this net")
        if tensors[name].shape != tensor.shape:
            found = list(tensors[name].shape)
            raise DoorwardError(f"{path}: tensor {name!r} has shape {found}; expected {list(tensor.shape)}")
        if tensors[name].is_floating_point() and not bool(tensors[name].isfinite().all()):
            raise DoorwardError(f"{path}: tensor {name!r} holds NaN or infinity; expected finite weights")
    extra = sorted(set(tensors) - set(expected))
    if extra:
        raise DoorwardError(f"{path}: has a tensor {extra[0]!r} that this net does not have")
    return tensors


def save_state(path: Path, net: nn.Module, optimiser: torch.optim.Optimizer, epoch: int) -> None:
    """Write a training state; a kill during the write leaves the former one."""
    tensors = {f"net.{k}": v for k, v in net.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{k}": torch.as_tensor(v) for k, v in state.items() if v is not None}
    tensors["epoch"] = torch.tensor(epoch)
    write_tensors(path, tensors)


def load_state(path: Path, net: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Fill net and optimiser from a training state; returns the number of finished epochs."""
    tensors = read_tensors(path)
    try:
        net.load_state_dict({k.removeprefix("net."): v for k, v in tensors.items() if k.startswith("net.")})
        state: dict[int, dict[str, Any]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimiser."):
                _, index, key = name.split(".", 2)
                state.setdefault(int(index), {})[key] = tensor
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
        return int(tensors["epoch"])
    except (RuntimeError, KeyError, ValueError) as error:
        line = str(error).splitlines()[0]
        raise DoorwardError(f"{path}: does not fit this training ({line}); delete it to start over") from None
