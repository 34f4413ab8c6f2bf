"""Image filters h(x) that disturb a trigger more than an object (source of cluster impurity's measure)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from doorward.core.errors import DoorwardError

Filter = Callable[[Tensor, torch.Generator], Tensor]


def mean_filter(images: Tensor, size: int) -> Tensor:
    """Average over ``size x size`` windows, edges repeated: a constant image stays as it is.

    An even window reaches one pixel further right and down.
    """
    before, after = (size - 1) // 2, size // 2
    padded = functional.pad(images, (before, after, before, after), mode="replicate")
    return functional.avg_pool2d(padded, size, stride=1)


def median_filter(images: Tensor, size: int = 3) -> Tensor:
    """Median over ``size x size`` windows (odd), edges repeated."""
    reach = size // 2
    padded = functional.pad(images, (reach,) * 4, mode="replicate")
    windows = padded.unfold(2, size, 1).unfold(3, size, 1).flatten(4)
    return windows.median(dim=4).values  # an odd number of values: the true median


def quantise(images: Tensor, levels: int = 8) -> Tensor:
    """Round to ``levels`` equally spaced grey values."""
    return (images * (levels - 1)).round() / (levels - 1)


def add_noise(images: Tensor, generator: torch.Generator, deviation: float = 0.05) -> Tensor:
    """Add Gaussian noise and clip to [0, 1]."""
    noise = torch.randn(images.shape, generator=generator).to(images)
    return (images + deviation * noise).clamp(0, 1)


FILTERS: dict[str, Filter] = {
    "mean2": lambda images, _: mean_filter(images, 2),
    "mean3": lambda images, _: mean_filter(images, 3),
    "median3": lambda images, _: median_filter(images),
    "quantise": lambda images, _: quantise(images),
    "noise": lambda images, generator: add_noise(images, generator),
}


def get_filter(name: str) -> Filter:
    """The filter of that name."""
    if name not in FILTERS:
        raise DoorwardError(f"filter {name!r}; expected one of {', '.join(FILTERS)}")
    return FILTERS[name]
