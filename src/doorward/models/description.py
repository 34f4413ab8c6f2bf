"""``classifier.json``: what a folder says of its net; every field is checked before anything is made of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from doorward.core.errors import DoorwardError, show
from doorward.core.opening import read_json
from doorward.models.nets.architecture import Floats, Shape

_MOST_PIXELS, _MOST_CHANNELS = 2**22, 256  # of an image
_MOST_CLASSES, _LONGEST = 10_000_000, 10_000  # class names, and characters of one
_COUNTED = 2**50  # numbers of an image; of more no library keeps count
_LARGEST = 1e6  # of mean and deviation, and 1 / of the smallest deviation; [0, 255] comes to 1 / 255


@dataclass(frozen=True)
class Description:
    """The fields of ``classifier.json``, as `doorward.core.classifier.Classifier` has them."""

    arch: str
    classes: tuple[str, ...]
    shape: Shape
    mean: Floats
    std: Floats
    feature_layer: str | None
    arch_sha256: str | None


def read_description(folder: Path) -> Description:
    """Read ``classifier.json`` of a folder.

    Raises:
        DoorwardError: one line with the file, the field, its value and what was expected.
    """
    path = folder / "classifier.json"
    about = read_json(path, inside=folder)
    for name in ("arch", "classes", "shape", "mean", "std"):
        if name not in about:
            raise DoorwardError(f"{path}: has no {name!r}; expected what 'doorward train' writes")

    def expect(right: bool, name: str, expected: str) -> None:
        if not right:
            raise DoorwardError(f"{path}: {name} {show(about[name])}; expected {expected}")

    arch, classes, shape = about["arch"], about["classes"], about["shape"]
    expect(isinstance(arch, str) and 0 < len(arch) <= _LONGEST, "arch", "the name of an architecture")
    named = isinstance(classes, list) and all(isinstance(c, str) and len(c) <= _LONGEST for c in classes)
    expect(named, "classes", f"a list of names, each of at most {_LONGEST:,} characters")
    expect(2 <= len(classes) <= _MOST_CLASSES, "classes", "two names or more")
    sized = isinstance(shape, list) and len(shape) == 3 and all(type(n) is int and n > 0 for n in shape)
    expect(sized and math.prod(shape) < _COUNTED, "shape", "channels, height, width, whole numbers above 0")
    for name, least in (("mean", -_LARGEST), ("std", 1 / _LARGEST)):
        values = about[name]
        good = _is_numbers(values) and len(values) > 0 and all(least <= v <= _LARGEST for v in values)
        expect(good, name, f"finite numbers{', std above 0' if name == 'std' else ''}")
    for name in ("feature_layer", "arch_sha256"):
        expect(isinstance(about.get(name), str | None), name, "text or null")
    mean, std = (tuple(float(v) for v in about[name]) for name in ("mean", "std"))
    layer, known = about.get("feature_layer"), about.get("arch_sha256")
    return Description(arch, tuple(classes), tuple(shape), mean, std, layer, known)


def check_images(folder: Path, about: Description) -> None:
    """Refuse images whose way through a net would fill the memory: a net of convolutions alone fits any size.

    Raises:
        DoorwardError: more than 256 channels, or 4,194,304 pixels; as many means or deviations as no channels.
    """
    shape = about.shape
    for name, values in (("mean", about.mean), ("std", about.std)):
        if len(values) not in (1, shape[0]):
            told = f"{folder / 'classifier.json'}: {name} of {len(values)} numbers for {shape[0]} channels"
            raise DoorwardError(f"{told}; expected 1 or one per channel")
    if shape[0] > _MOST_CHANNELS or shape[1] * shape[2] > _MOST_PIXELS:
        expected = f"expected at most {_MOST_CHANNELS} channels of {_MOST_PIXELS:,} pixels"
        raise DoorwardError(f"{folder / 'classifier.json'}: shape {list(shape)}; {expected}")


def _is_numbers(values: Any) -> TypeGuard[list[float]]:
    return isinstance(values, list) and all(type(v) in (int, float) for v in values)
