"""Classifiers and training states on disk: safetensors and JSON, never pickle."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from doorward.core.classifier import Classifier, place_net
from doorward.core.errors import DoorwardError
from doorward.core.files import write_json
from doorward.core.opening import read_json
from doorward.core.tensors import read_tensors, write_tensors
from doorward.models.nets.architecture import Architecture
from doorward.models.nets.catalogue import NETS
from doorward.models.open import hugging_face
from doorward.models.open.architectures import Named, file_hash, find_architecture, is_file
from doorward.models.open.keras_weights import is_hdf5, save_keras
from doorward.models.weights import read_weights, unshared, write_weights


def save_classifier(classifier: Classifier, folder: Path | str) -> None:
    """Write ``weights.safetensors`` and ``classifier.json`` into an existing folder.

    An architecture from the user's own file is kept by name, with the file's SHA-256; one of transformers with its
    ``config.json``.
    """
    folder = Path(folder)
    about = {
        "arch": classifier.arch,
        "classes": list(classifier.classes),
        "shape": list(classifier.shape),
        "mean": list(classifier.mean),
        "std": list(classifier.std),
        "feature_layer": classifier.feature_layer,
    }
    if is_file(classifier.arch):
        about["arch_sha256"] = file_hash(classifier.arch)
    if classifier.arch.startswith("hf:"):
        hugging_face.save_config(classifier.net, folder / "config.json", classifier.classes)
    write_tensors(folder / "weights.safetensors", unshared(classifier.net.state_dict()))
    write_json(folder / "classifier.json", about)


def load_classifier(folder: Path | str, device: torch.device | str = "cpu", *, arch: Named | None = None) -> Classifier:
    """Read a classifier that `save_classifier` wrote, in evaluation mode.

    Args:
        arch: for a net that a file of the user's own made (or a module in Python): that file's factory again. Nothing
            that only the folder names is run.
    """
    folder = Path(folder)
    if not (folder / "classifier.json").exists():
        raise DoorwardError(f"{folder}: holds no classifier.json; expected a folder written by 'doorward train'")
    about = read_json(folder / "classifier.json")
    try:
        shape = tuple(int(v) for v in about["shape"])
        classes = tuple(str(c) for c in about["classes"])
        conventions = {k: tuple(float(v) for v in about[k]) for k in ("mean", "std")}
        name, layer = str(about["arch"]), about.get("feature_layer")
    except (KeyError, TypeError, ValueError) as error:
        raise DoorwardError(f"{folder / 'classifier.json'}: field {error} is missing or of a wrong type") from None
    if len(shape) != 3:
        raise DoorwardError(f"{folder / 'classifier.json'}: shape {list(shape)}; expected channels, height, width")
    if not all(map(math.isfinite, (*conventions["mean"], *conventions["std"]))) or min(conventions["std"]) <= 0:
        told = ", ".join(f"{k} {list(v)}" for k, v in conventions.items())
        raise DoorwardError(f"{folder / 'classifier.json'}: {told}; expected finite numbers, std above 0")
    architecture, notes = _architecture(folder, name, arch), tuple[str, ...]()
    known = about.get("arch_sha256")
    if isinstance(arch, str) and is_file(name) and known not in (None, file_hash(arch)):
        notes = (f"{arch}: is another file than the one that the net of {folder} was trained with",)
    if _is_ours(name):
        with torch.device("meta"):  # a size that is not the weights' is refused before memory is taken for it
            fitting_weights(architecture.build(shape, len(classes)), folder / "weights.safetensors")
    net = architecture.build(shape, len(classes))
    net.load_state_dict(fitting_weights(net, folder / "weights.safetensors"))
    place_net(net, device).eval()
    return Classifier(
        net, name, classes, shape, conventions["mean"], conventions["std"], layer, "classifier.json", notes
    )


def _architecture(folder: Path, name: str, arch: Named | None) -> Architecture:
    """The architecture that a folder names, where making it runs no code that only the folder names."""
    if _is_ours(name) and not name.startswith("hf:"):
        return find_architecture(name)
    if name.startswith("hf:"):
        return hugging_face.of_folder(folder, name)
    if arch is not None:
        return find_architecture(arch)
    if is_file(name):
        told = f"its net is made by {name}, a file of somebody's own, which is not run unasked"
        raise DoorwardError(f"{folder}: {told}; expected --arch FILE.py:factory, if it is yours")
    known = f"{', '.join(NETS)}, or --arch FILE.py:factory for a net of your own"
    raise DoorwardError(f"net {name!r}; expected one of {known}")


def _is_ours(name: str) -> bool:
    """Whether the architecture is made without any file of the user's own."""
    return name in NETS or name.startswith(("timm:", "hf:"))


def save_like(
    classifier: Classifier, source: Path | str, arch: str | None, folder: Path | str
) -> tuple[Path, tuple[str, ...]]:
    """Write a classifier's weights in the form that its model came in: same names, same container.

    Args:
        classifier: such as a repaired one, opened by `load_model` from ``source`` and trained on.
        source: what it was opened from: a folder of Doorward or of transformers, safetensors, a PyTorch file, Keras
            HDF5. What else lay in a PyTorch file (epoch, optimiser) stays as it was.
        arch: with which it was opened.
        folder: an existing folder, or one to be made.

    Returns: the file or folder written, of the name that the source has; and in words what is not as it was.
    """
    source, folder = Path(source), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if (source / "classifier.json").exists():
        save_classifier(classifier, folder)
        return folder, ()
    if source.is_dir():
        hugging_face.save_folder(classifier.net, source, folder)
        return folder, ()
    target = folder / source.name
    if is_hdf5(source):
        shutil.copy(source, target)
        save_keras(classifier.net, target, classifier.shape)
        return target, ()
    if arch is not None and arch.startswith("hf:"):
        hugging_face.save_folder(classifier.net, Path(arch.removeprefix("hf:")), folder)
        return folder, (f"{source.name}: written as a folder of transformers",)
    like = read_weights(source)
    return target, write_weights(target, like.fitted(classifier.net), classifier.net)


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
        if tensor.is_floating_point() and not bool(tensors[name].to(tensor.dtype).isfinite().all()):
            raise DoorwardError(f"{path}: tensor {name!r} holds NaN or infinity; expected finite weights")
    extra = sorted(set(tensors) - set(expected))
    if extra:
        raise DoorwardError(f"{path}: has a tensor {extra[0]!r} that this net does not have")
    return tensors


def save_state(path: Path, net: nn.Module, optimiser: torch.optim.Optimizer, epoch: int) -> None:
    """Write a training state; a kill during the write leaves the former one."""
    tensors = {f"net.{k}": v for k, v in unshared(net.state_dict()).items()}
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
