"""Image filters h(x) that disturb a trigger more than an object (source of cluster impurity's measure)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from doorward.core.errors import DoorwardError

Filter = Callable[[Tensor, torch.Generator], Tensor]
SHARES = (24, 16, 12)  # windows of so many parts of the side, rising: tried on larger pictures
WIDE_FROM = 48  # pixels of the shorter side; below it these windows are of two pixels or hardly more
KEPT = 0.8  # of all decisions, poisoned or not, that a wider window must leave as they are


def mean_filter(images: Tensor, size: int) -> Tensor:
    """Average over ``size x size`` windows, edges repeated: a constant image stays as it is.

    An even window reaches one pixel further right and down.
    """
    if size > 3:  # rows, then columns: far less work
        return _mean_along(_mean_along(images, size, 2), size, 3)
    before, after = (size - 1) // 2, size // 2
    padded = functional.pad(images, (before, after, before, after), mode="replicate")
    return functional.avg_pool2d(padded, size, stride=1)


def _mean_along(images: Tensor, size: int, axis: int) -> Tensor:
    before, after = (size - 1) // 2, size // 2
    around = (0, 0, before, after) if axis == 2 else (before, after, 0, 0)
    window = (size, 1) if axis == 2 else (1, size)
    return functional.avg_pool2d(functional.pad(images, around, mode="replicate"), window, stride=1)


def mean_share(images: Tensor, part: int) -> Tensor:
    """`mean_filter` with a window of one ``part``-th of the shorter side, at least two pixels."""
    return mean_filter(images, max(2, round(min(images.shape[2:]) / part)))


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
    "mean-24th": lambda images, _: mean_share(images, 24),
    "mean-16th": lambda images, _: mean_share(images, 16),
    "mean-12th": lambda images, _: mean_share(images, 12),
    "median3": lambda images, _: median_filter(images),
    "quantise": lambda images, _: quantise(images),
    "quantise4": lambda images, _: quantise(images, 4),
    "gamma": lambda images, _: images**1.5,
    "noise": lambda images, generator: add_noise(images, generator),
}


def get_filter(name: str) -> Filter:
    """The filter of that name."""
    if name not in FILTERS:
        raise DoorwardError(f"filter {name!r}; expected mean, or one of {', '.join(FILTERS)}")
    return FILTERS[name]


def candidates(name: str, side: int) -> tuple[str, ...]:
    """Filters that a setting stands for on pictures of a shorter ``side``: itself, or for ``mean`` windows, rising."""
    if name != "mean":
        return (name,)
    return ("mean2", *(f"mean-{part}th" for part in SHARES)) if side >= WIDE_FROM else ("mean2",)


def widest(logits: NDArray[np.float32], under: Callable[[str], NDArray[np.float32]], names: Sequence[str]) -> str:
    """The last of ``names`` under which `KEPT` of all decisions stay as they are; the first where none does.

    It looks at all images together and at no label, so the choice favours no class. The last is tried first, and the
    first of them, which is taken where no other fits, never.

    Args:
        logits: ``[N, K]``.
        under: logits ``[N, K]`` of the images under the filter of a name; called until one fits.
    """
    decided = logits.argmax(axis=1)
    fit = (name for name in reversed(names[1:]) if (under(name).argmax(axis=1) == decided).mean() >= KEPT)
    return next(fit, names[0])
