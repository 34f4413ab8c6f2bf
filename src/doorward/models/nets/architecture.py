"""`Architecture`: how to make a net, whoever wrote it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

Shape = tuple[int, int, int]
Floats = tuple[float, ...]


@dataclass(frozen=True)
class Architecture:
    """How to make a net, and what its maker says of its images.

    Args:
        name: as the user named it.
        build: makes a net for (shape, number of classes); its call gives logits alone.
        takes_classes: whether the number of classes is the caller's choice.
        shape, mean, std, classes: of its images, on the scale [0, 1]; None where nobody says.
        folder: Hugging Face's, with the weights.
    """

    name: str
    build: Callable[[Shape, int], nn.Module]
    takes_classes: bool = True
    shape: Shape | None = None
    mean: Floats | None = None
    std: Floats | None = None
    classes: tuple[str, ...] | None = None
    folder: Path | None = None
    notes: tuple[str, ...] = ()
