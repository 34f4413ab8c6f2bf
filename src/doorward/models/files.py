"""Classifiers and training states on disk: safetensors and JSON, never pickle."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from doorward.core.classifier import Classifier, place_net
from doorward.core.errors import DoorwardError, brief, show
from doorward.core.files import write_json
from doorward.core.tensors import read_header, read_tensors, write_tensors
from doorward.models.description import Description, check_images, read_description
from doorward.models.nets.architecture import Architecture
from doorward.models.nets.catalogue import NETS
from doorward.models.open import hugging_face
from doorward.models.open.architectures import Named, file_hash, find_architecture, is_file
from doorward.models.open.keras_weights import is_hdf5, save_keras
from doorward.models.weights import check_values, read_weights, unshared, write_weights


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
    about, weights = read_description(folder), folder / "weights.safetensors"
    shape, classes, name = about.shape, about.classes, about.arch
    architecture, notes = _architecture(folder, name, arch), tuple[str, ...]()
    if isinstance(arch, str) and is_file(name) and about.arch_sha256 not in (None, file_hash(arch)):
        notes = (f"{arch}: is another file than the one that the net of {folder} was trained with",)
    header = read_header(weights, inside=folder)
    if not any(sides[:1] == (len(classes),) for sides in header.shapes.values()):
        told = f"{weights}: no tensor is for the {len(classes):,} classes of classifier.json"
        raise DoorwardError(f"{told}; expected the weights of this net")
    if _is_ours(name):
        check_shapes(_without_memory(folder, architecture, about), header.shapes, weights)
    check_images(folder, about)
    net = architecture.build(shape, len(classes))
    net.load_state_dict(fitting_weights(net, weights, folder))
    place_net(net, device).eval()
    layer = about.feature_layer
    return Classifier(net, name, classes, shape, about.mean, about.std, layer, "classifier.json", notes)


def _without_memory(folder: Path, architecture: Architecture, about: Description) -> nn.Module:
    """The net that a folder speaks of; a size that is not the weights' is refused before memory is taken for it."""
    try:
        with torch.device("meta"):
            return architecture.build(about.shape, len(about.classes))
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        told = f"{folder / 'classifier.json'}: makes no net ({brief(error)})"
        raise DoorwardError(f"{told}; expected what 'doorward train' writes") from None


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


def fitting_weights(net: nn.Module, path: Path, folder: Path | None = None) -> dict[str, Tensor]:
    """The tensors of a safetensors file whose names, shapes and finite values all fit the net.

    Args:
        folder: that the file must lie in, links resolved.
    """
    check_shapes(net, read_header(path, inside=folder).shapes, path)
    tensors, expected = read_tensors(path, inside=folder), net.state_dict()
    for name, tensor in tensors.items():
        check_values(path, name, tensor, expected[name])
    return tensors


def check_shapes(net: nn.Module, shapes: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """Refuse weights of other names or shapes than the net's, which may be one without memory."""
    expected = net.state_dict()
    for name, tensor in expected.items():
        if name not in shapes:
            raise DoorwardError(f"{path}: has no tensor {name!r}; expected the weights of this net")
        if shapes[name] != tuple(tensor.shape):
            raise DoorwardError(
                f"{path}: tensor {name!r} has shape {list(shapes[name])}; expected {list(tensor.shape)}"
            )
    extra = sorted(set(shapes) - set(expected))
    if extra:
        raise DoorwardError(f"{path}: has a tensor {show(extra[0])!r} that this net does not have")


def save_state(
    path: Path, net: nn.Module, optimiser: torch.optim.Optimizer, epoch: int, figures: Sequence[float]
) -> None:
    """Write a training state, with figures of its last epoch; a kill during the write leaves the former one."""
    tensors = {f"net.{k}": v for k, v in unshared(net.state_dict()).items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{k}": torch.as_tensor(v) for k, v in state.items() if v is not None}
    tensors["epoch"] = torch.tensor(epoch)
    tensors["figures"] = torch.tensor(figures, dtype=torch.float64)
    write_tensors(path, tensors)


def load_state(path: Path, net: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[int, list[float]]:
    """Fill net and optimiser from a training state; the number of finished epochs, and the last one's figures."""
    tensors = read_tensors(path)
    try:
        net.load_state_dict({k.removeprefix("net."): v for k, v in tensors.items() if k.startswith("net.")})
        state: dict[int, dict[str, Any]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimiser."):
                _, index, key = name.split(".", 2)
                state.setdefault(int(index), {})[key] = tensor
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
        return int(tensors["epoch"]), tensors["figures"].tolist()
    except (RuntimeError, KeyError, ValueError) as error:
        line = str(error).splitlines()[0]
        raise DoorwardError(f"{path}: does not fit this training ({line}); delete it to start over") from None
