"""Images and a model that were not made for each other: classes matched by name, pictures brought to size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet, few
from doorward.core.progress import printable

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow turns colour into grey


def match_classes(images: ImageSet, model: Classifier) -> ImageSet:
    """The images with their labels in the order of the model's classes, matched by name.

    A model without names of its own (``classes_from`` is ``numbers``) takes the images' classes in their order.

    Raises:
        DoorwardError: another number of classes, or names that the other side does not have.
    """
    mine, theirs = images.classes, model.classes
    if len(mine) != len(theirs):
        raise DoorwardError(f"{images.name}: {few(mine)}; {model.arch} decides between {few(theirs)}; expected as many")
    if mine == theirs or (model.classes_from == "numbers" and set(mine) != set(theirs)):
        return images
    if len(set(mine)) != len(mine) or set(mine) != set(theirs):
        raise DoorwardError(
            f"{images.name}: without {_listed(theirs, mine)} of the model, with {_listed(mine, theirs)} that it does "
            "not have; expected the classes of the model by name"
        )
    place = np.array([theirs.index(name) for name in mine], dtype=np.int64)
    return images.fitted(labels=place[images.labels], classes=theirs)


def _listed(names: Sequence[str], others: Sequence[str]) -> str:
    lacking = [name for name in names if name not in set(others)]
    shown = ", ".join(repr(printable(name)[:40]) for name in lacking[:5])
    return f"class {shown}{f' and {len(lacking) - 5} more' if len(lacking) > 5 else ''}"


def fit_images(images: ImageSet, model: Classifier) -> tuple[ImageSet, tuple[str, ...], bool]:
    """Foreign pictures as the model takes them, for questions about the model alone.

    Channels and size are converted; where the class names do not match, the model's own decisions become the labels.

    Returns: the images, every conversion in words, and whether their own labels could be kept.
    """
    images, told = fit_pictures(images, model.shape)
    name, notes = images.name, list(told)
    try:
        matched = match_classes(images, model)
    except DoorwardError as error:
        notes.append(f"{error}; the model's own decisions are taken for labels")
        return decided(images, model), tuple(notes), False
    if matched is not images:
        notes.append(f"{name}: its classes, put into the model's order by name")
    return matched, tuple(notes), True


def decided(images: ImageSet, model: Classifier) -> ImageSet:
    """The images with the model's own decisions for labels."""
    return images.fitted(labels=model.predict(images.pixels), classes=model.classes)


def fit_pictures(images: ImageSet, shape: tuple[int, int, int]) -> tuple[ImageSet, tuple[str, ...]]:
    """The images brought to ``shape`` (channels, height, width), and every conversion in words."""
    notes: list[str] = []
    name, (channels, *size) = images.name, shape
    if images.shape[0] != channels:
        words = "grey images, repeated over three channels for a colour net"
        if channels == 1:
            words = "colour images, made grey for a grey net"
        notes.append(f"{name}: {words}")
        images = images.coloured() if channels == 3 else _grey(images)
    if list(images.shape[1:]) != size:
        was, now = (f"{height} x {width}" for height, width in (images.shape[1:], size))
        cut = images.shape[1] * size[1] != images.shape[2] * size[0]
        notes.append(f"{name}: images of {was}, resized to {now}{' and cut at the longer side' if cut else ''}")
        images = resized(images, (size[0], size[1]))
    return images, tuple(notes)


def _grey(images: ImageSet) -> ImageSet:
    pixels = np.empty((*images.pixels.shape[:3], 1), np.uint8)
    for rows in images.chunks():
        pixels[rows, ..., 0] = np.rint(images.pixels[rows] @ np.array(_LUMA)).astype(np.uint8)
    return images.fitted(pixels=pixels)


def resized(images: ImageSet, size: tuple[int, int]) -> ImageSet:
    """The images with the shorter side brought to size (bilinear, antialiased) and the longer one cut at both ends.

    Args:
        size: height, width.
    """
    if images.shape[1:] == size:
        return images
    pixels = np.empty((len(images), *size, images.shape[0]), np.uint8)
    for rows in images.chunks(max(1, (1 << 24) // (size[0] * size[1]))):
        pixels[rows] = _resized(images.pixels[rows], size)
    return images.fitted(pixels=pixels)


def _resized(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    height, width = pixels.shape[1:3]
    scale = max(size[0] / height, size[1] / width)
    within = max(size[0], round(height * scale)), max(size[1], round(width * scale))
    floats = torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float()
    large = functional.interpolate(floats, within, mode="bilinear", antialias=True, align_corners=False)
    top, left = (within[0] - size[0]) // 2, (within[1] - size[1]) // 2
    cut = large[:, :, top : top + size[0], left : left + size[1]]
    return cut.clamp(0, 255).round().byte().permute(0, 2, 3, 1).numpy()
