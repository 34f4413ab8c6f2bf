"""`load_model`: the one way in for networks, whoever made them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field
from torch import nn

from doorward.core.arguments import check_images
from doorward.core.classifier import Classifier, pick_device
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.methods import Settings
from doorward.models.files import load_classifier
from doorward.models.open.architectures import FORMS, Named
from doorward.models.open.foreign import Given, open_foreign
from doorward.models.open.hugging_face import is_folder as is_hugging_face


class ModelOptions(Settings):
    """A model on disk and how images go into it, in plain values; what every verb's request has."""

    model: str
    arch: str | None = None
    classes: int | None = Field(None, ge=2)
    shape: tuple[int, int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    value_range: tuple[float, float] | None = None
    size: int | None = Field(None, ge=1)
    feature_layer: str | None = None
    device: str = "auto"

    def open(self, like: ImageSet | None = None, *, labelled: bool = True) -> Classifier:
        """The classifier; ``like`` as in `load_model`, its class names only when ``labelled``."""
        options: dict[str, Any] = self.model_dump(include=set(ModelOptions.model_fields) - {"model"})
        return _load(self.model, like, labelled, **options)

    @property
    def has_conventions(self) -> bool:
        """Whether the model's folder says itself how images go in."""
        return has_conventions(self.model)


def has_conventions(path: Path | str) -> bool:
    """Whether the model is a folder of ``doorward train``, which says itself how images go in."""
    return (Path(path) / "classifier.json").exists()


def load_model(
    path: Path | str,
    *,
    arch: Named | None = None,
    like: ImageSet | None = None,
    classes: tuple[str, ...] | int | None = None,
    shape: tuple[int, int, int] | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    value_range: tuple[float, float] | None = None,
    size: int | tuple[int, int] | None = None,
    feature_layer: str | None = None,
    device: str = "auto",
) -> Classifier:
    """Open a network: a folder that Doorward wrote, or weights of others with their architecture.

    Nets whose call gives an object with ``.logits``, a dictionary or a tuple are understood. `Classifier.describe`
    tells what was understood.

    Args:
        path: a folder of ``doorward train`` or ``repair``; a folder of transformers (``config.json`` and
            ``model.safetensors``); or weights as safetensors, a PyTorch state dict (read with ``weights_only``) or
            Keras HDF5.
        arch: for weights of others: a built-in name; ``FILE.py:factory``; ``timm:NAME``; ``hf:FOLDER``; in Python also
            a module or a factory. A factory is ``f()``, ``f(classes)`` or ``f(shape, classes)``, told apart by how
            many arguments it must have. FILE.py is run: it must be your own. Nothing else is.
        like: images that the network takes: their size and class names are used where nothing else says them.
        classes: class names, or how many; else those of the configuration, else those of ``like``, else numbers.
        shape: channels, height, width of its images; else those of the configuration, else those of ``like``.
        mean, std: per channel, on the scale of ``value_range``; else those of the configuration, else 0 and 1.
        value_range: what black and white are to the network: (0, 1), (0, 255) or (-1, 1).
        size: height and width of its images, or the side of a square, in place of ``shape``.
        feature_layer: name of the layer whose input are the features; default the classification head. Of tokens the
            class token counts where there is one, else their mean; of a picture its global average.
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        the classifier, in evaluation mode; its logits and features were tried on two random images.

    Raises:
        DoorwardError: one line about the file, the architecture, or what is missing to open it.
    """
    return _load(
        path, like, True, arch=arch, classes=classes, shape=shape, mean=mean, std=std, value_range=value_range,
        size=size, feature_layer=feature_layer, device=device,
    )  # fmt: skip


def _load(path: Path | str, like: ImageSet | None, named: bool, *, device: str, **said: Any) -> Classifier:
    """`load_model`; without ``named`` the class names of ``like`` are not used."""
    if not isinstance(path, str | Path):
        how = ": doorward.Classifier.from_module opens one in memory" if isinstance(path, nn.Module) else ""
        raise DoorwardError(f"load_model: a {type(path).__name__}; expected a path{how}")
    if like is not None:
        check_images("load_model", "like", like)
    path, place, arch = Path(path), pick_device(device), said.pop("arch")
    check_path(path, arch)
    told = [f"--{n}" for n, k in (("mean", "mean"), ("std", "std"), ("range", "value_range")) if said[k]]
    size = said.pop("size")
    size = (size, size) if isinstance(size, int) else size
    if has_conventions(path):
        if told and arch is None:
            raise DoorwardError(f"{told[0]}: is for weights of others; a folder of 'doorward train' has its own")
        classifier = load_classifier(path, place, arch=arch)
        if size and size != classifier.shape[1:]:
            found, expected = ("x".join(map(str, s)) for s in (size, classifier.shape[1:]))
            raise DoorwardError(f"--size {found}: {path} takes images of {expected}; expected that size or none")
        if said["feature_layer"]:
            classifier = replace(classifier, feature_layer=said["feature_layer"])
        classifier.check()
        return classifier
    if arch is None:
        arch = f"hf:{path}"
    elif path.is_dir() and not is_hugging_face(path):
        path = path / "weights.safetensors"
    given = Given(
        size=size,
        like=None if like is None else like.shape,
        names=like.classes if like is not None and named else None,
        names_of="the images" if like is None else like.name,
        guess=None if like is None else len(like.classes),
        **said,
    )
    classifier = open_foreign(path, arch, given, place)
    classifier.check()
    return classifier


def check_path(path: Path, arch: Named | None) -> None:
    """Refuse at once what is no model, before pictures are read for it."""
    if not path.exists():
        raise DoorwardError(f"{path}: no such file or folder; expected a folder of a model, or a file of weights")
    if arch is not None or has_conventions(path) or is_hugging_face(path):
        return
    if path.is_dir():
        raise DoorwardError(
            f"{path}: holds no classifier.json; expected a folder written by 'doorward train', or one of transformers "
            "with config.json and model.safetensors"
        )
    raise DoorwardError(f"{path}: weights alone; expected --arch with them: {FORMS}")
