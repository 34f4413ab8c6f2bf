"""Map-style datasets (torch, torchvision and whatever has ``__len__`` and ``__getitem__``)."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.progress import display
from doorward.data.assemble import assemble_late
from doorward.data.checks import guarded, name_labels
from doorward.data.readers.arrays import as_array, find_layout, is_tensor, to_8_bit


def read_dataset(dataset: Any, where: str) -> ImageSet:
    """Read every item of a map-style dataset once.

    Args:
        dataset: has a length; item i is ``(image, label)``. The image is a PIL image (8-bit grey or RGB), a tensor
            ``[C, H, W]`` or ``[H, W]``, or an array ``[H, W, C]`` or ``[H, W]``; uint8, or floats in [0, 1]. The
            label is an integer. A list ``dataset.classes`` names the classes.
        where: what to call it.

    Raises:
        DoorwardError: an item of another form, images of different sizes.

    The items are read one after another, in this thread, since the code behind them is the user's own. A dataset that
    normalises its images is refused (values outside [0, 1]): give the one without the transform.
    """
    count = len(dataset)
    if count == 0:
        raise DoorwardError(f"{where}: holds no items; expected at least two classes of two images")
    first, first_label = _item(dataset, 0, where)
    height, width, channels = first.shape

    def fill(target: NDArray[np.uint8]) -> tuple[NDArray[np.int64], Sequence[str]]:
        labels = np.empty(count, np.int64)
        target[0], labels[0] = first, first_label
        with display() as progress:
            for index in range(1, count):
                image, labels[index] = _item(dataset, index, where)
                if image.shape != first.shape:
                    raise DoorwardError(
                        f"{where}: item {index} has shape {list(image.shape)}, but item 0 has {list(first.shape)}; "
                        "expected one size"
                    )
                target[index] = image
                progress("reading items", index + 1, count)
        return name_labels(labels, count, _class_list(dataset), where)

    return assemble_late(where, (count, height, width, channels), fill)


def _item(dataset: Any, index: int, where: str) -> tuple[NDArray[np.uint8], int]:
    """Item ``index`` as uint8 ``[H, W, C]`` and its label."""
    name = f"{where}: item {index}"
    with guarded(name, "a pair (image, label)"):
        image, label = dataset[index]
        return _pixels(image, name), operator.index(label)


def _pixels(image: Any, name: str) -> NDArray[np.uint8]:
    if isinstance(image, Image.Image) and image.mode not in ("L", "RGB"):
        raise DoorwardError(f"{name}: a PIL image of mode {image.mode}; expected L (grey) or RGB")
    array = as_array(image)
    if array.ndim not in (2, 3):
        raise DoorwardError(f"{name}: an image of shape {list(array.shape)}; expected [C, H, W] or [H, W, C]")
    layout = find_layout((1, *array.shape), name, channels_first=is_tensor(image))
    return layout.arrange(to_8_bit(array[None], name))[0].astype(np.uint8, copy=False)


def _class_list(dataset: Any) -> Sequence[object] | None:
    found = getattr(dataset, "classes", None)
    return list(found) if isinstance(found, list | tuple) and found else None
