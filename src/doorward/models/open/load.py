"""`load_model`: the one way in for networks, whoever made them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from doorward.core.classifier import Classifier, pick_device
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.methods import Settings
from doorward.models.files import load_classifier
from doorward.models.open.foreign import load_foreign


class ModelOptions(Settings):
    """A model on disk and how images go into it, in plain values; what every verb's request has."""

    model: str
    arch: str | None = None
    classes: int | None = Field(None, ge=2)
    shape: tuple[int, int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    value_range: tuple[float, float] | None = None
    device: str = "auto"

    def open(self, like: ImageSet | None = None, *, labelled: bool = True) -> Classifier:
        """The classifier; ``like`` as in `load_model`, its class names only when ``labelled``."""
        options: dict[str, Any] = self.model_dump(include=set(ModelOptions.model_fields) - {"model"})
        if like is not None and not labelled:
            options["shape"], like = self.shape or like.shape, None
        return load_model(self.model, like=like, **options)

    @property
    def has_conventions(self) -> bool:
        """Whether the model is a folder of ``doorward train``, which says itself how images go in."""
        return has_conventions(self.model)


def has_conventions(path: Path | str) -> bool:
    """Whether the model is a folder of ``doorward train``, which says itself how images go in."""
    return (Path(path) / "classifier.json").exists()


def load_model(
    path: Path | str,
    *,
    arch: str | None = None,
    like: ImageSet | None = None,
    classes: tuple[str, ...] | int | None = None,
    shape: tuple[int, int, int] | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    value_range: tuple[float, float] | None = None,
    device: str = "auto",
) -> Classifier:
    """Open a network: a folder that Doorward wrote, or weights of others with their architecture.

    Args:
        path: a folder of ``doorward train`` or ``repair``; or weights as safetensors, a PyTorch state dict (read with
            ``weights_only``) or Keras HDF5.
        arch: for weights of others: a built-in name, or ``FILE.py:factory``. That file is run: it must be your own.
        like: images that the network takes: their size and class names are used where nothing else says them.
        classes: class names, or how many; else those of ``like``, else read from the weights.
        shape: channels, height, width of its images; else those of ``like``.
        mean, std: per channel, on the scale of ``value_range``; 0 and 1 when absent.
        value_range: what black and white are to the network: (0, 1), (0, 255) or (-1, 1).
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        the classifier, in evaluation mode.

    Raises:
        DoorwardError: one line about the file, the architecture, or what is missing to open it.
    """
    path, place = Path(path), pick_device(device)
    told = [f"--{n}" for n, v in (("mean", mean), ("std", std), ("range", value_range)) if v]
    if arch is None or has_conventions(path):
        if path.is_file():
            raise DoorwardError(f"{path}: weights alone; expected --arch NAME or --arch FILE.py:factory with them")
        if told and arch is None:
            raise DoorwardError(f"{told[0]}: is for weights of others; a folder of 'doorward train' has its own")
        return load_classifier(path, place)
    shape = shape or (None if like is None else like.shape)
    if shape is None:
        raise DoorwardError("--arch: the size of the images is not known; expected --images SOURCE or --shape C,H,W")
    return load_foreign(
        path / "weights.safetensors" if path.is_dir() else path,
        arch,
        shape,
        classes=classes or (None if like is None else like.classes),
        mean=mean or (0.0,),
        std=std or (1.0,),
        value_range=value_range or (0.0, 1.0),
        device=place,
    )
