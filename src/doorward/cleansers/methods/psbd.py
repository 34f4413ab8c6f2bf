"""PSBD: how far predictions shift under dropout."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from doorward.cleansers.parts.passes import class_groups, known_clean, own_copy, probabilities, spread_rows
from doorward.cleansers.suspicion import Suspicion
from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.methods import Settings, method

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Rows = NDArray[np.int64]
_LEAST = 10  # clean images: a quantile of fewer says nothing


class PsbdSettings(Settings):
    """Settings of PSBD."""

    rates: tuple[float, ...] = Field(
        (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9), min_length=1, description="dropout rates tried, each in [0, 1)"
    )
    passes: int = Field(3, ge=1, description="passes under dropout that are averaged")
    shift: float = Field(
        0.8, ge=0, le=1, description="share of the clean images' decisions that a rate must change to be chosen"
    )
    quantile: float = Field(
        0.25,
        gt=0,
        lt=1,
        description="of the clean images' uncertainty: what shifts less is flagged; 0.25 flags a quarter",
    )
    sample: int = Field(2000, ge=10, description="images of the set on which the rate is chosen, at most")


@method(
    "cleanse",
    "psbd",
    settings=PsbdSettings,
    given={"classifier", "pixels", "labels", "seed", "clean_images"},
    kind="decisions of a changed net",
)
def psbd(
    classifier: Classifier,
    pixels: Pixels,
    labels: Rows,
    clean_images: Rows,
    s: PsbdSettings,
    *,
    seed: int,
) -> Suspicion:
    """Flag the images whose confidence shifts least under dropout, compared with images known to be clean.

    PSBD, Li, Chen, Liu and Wang, CVPR 2025 (arXiv 2406.05826): the prediction shift uncertainty is the probability
    of the predicted class less its mean over 3 passes under dropout. Of the rates 0.1 to 0.9 that change at least
    80 % of the clean images' decisions, the one is taken at which the clean images' decisions change most often
    compared with those of the set. An image is flagged whose uncertainty is below the 25 % quantile of the clean
    images. The clean images choose the rate and the threshold, so the method cannot do without them; their labels
    are not used.

    Deviations: the paper drops elements after each residual connection of a ResNet; here of what enters each
    convolution and linear layer but the first, which any net has. A pass has one mask for all images and not one for
    each, so that an image's score does not hang on the others. The rate is chosen on at most 2,000 images of the set.
    The paper's clean images are held out; here they are rows of the set, on which the net was trained too: about a
    quarter of the other clean images is flagged.

    Args:
        classifier: it stays as it is.
        pixels: uint8 ``[N, H, W, C]``.
        labels: training labels ``[N]``, for the table alone.
        clean_images: rows of the training set that are known to be clean, ``[m]``, at least 10.
        seed: of the masks.

    Returns: an image's score is its uncertainty with the sign turned, at most 1; a group per class, its statistic the
        median score. The paper has no number per class, so no verdict rests on it alone.

    Raises:
        DoorwardError: rows that are none, or a net of one layer.

    Fails when: the net does not fit its training images, poisoned ones included; when the net is small or few of its
        layers carry the trigger; when the trigger is spread over the image. It flags a quarter of any set, poisoned or
        not, as its threshold says.
    """
    if not all(0 <= rate < 1 for rate in s.rates):
        raise DoorwardError(f"cleanse psbd: rates {', '.join(map(str, s.rates))}; expected numbers from 0 to below 1")
    trusted = known_clean(clean_images, len(pixels), "psbd", _LEAST)
    rows = spread_rows(len(pixels), s.sample)
    rate, shifted = _choose_rate(classifier, pixels[trusted], pixels[rows], s, seed)
    plain = probabilities(own_copy(classifier), pixels)
    decided, every = plain.argmax(axis=1), np.arange(len(pixels))
    under = np.mean([p[every, decided] for p in _dropped(classifier, pixels, rate, s.passes, seed)], axis=0)
    score = (under - plain[every, decided]).astype(np.float32)
    flag = score > np.quantile(score[trusted], 1 - s.quantile)
    warnings = []
    if shifted < s.shift:
        told = f"dropout changes {shifted:.0%} of the clean images' decisions at most, expected {s.shift:.0%}"
        warnings.append(f"{told}: this net is not what the method was made for")
    return Suspicion(score, flag, class_groups(labels, score, flag), tuple(warnings))


def _choose_rate(
    classifier: Classifier, clean: Pixels, some: Pixels, s: PsbdSettings, seed: int
) -> tuple[float, float]:
    """The rate, and how often the clean images' decisions change under it."""
    pixels, is_clean = np.concatenate([clean, some]), np.arange(len(clean) + len(some)) < len(clean)
    decided = probabilities(own_copy(classifier), pixels).argmax(axis=1)
    shifts = []
    for rate in s.rates:
        changed = [p.argmax(axis=1) != decided for p in _dropped(classifier, pixels, rate, s.passes, seed)]
        shifts.append([np.mean([c[part].mean() for c in changed]) for part in (is_clean, ~is_clean)])
    at = pick_rate(np.array(shifts), s.shift)
    return s.rates[at], float(shifts[at][0])


def pick_rate(shifts: NDArray[np.float64], least: float) -> int:
    """Which of the rates: the largest lead of the clean images' shift among those that shift enough of them.

    Args:
        shifts: share of decisions that change ``[rates, 2]``, of the clean images and of the set.
        least: share of the clean images; where no rate reaches it, the rate that comes nearest is taken.
    """
    enough = shifts[:, 0] >= least
    if not enough.any():
        return int(shifts[:, 0].argmax())
    return int(np.where(enough, shifts[:, 0] - shifts[:, 1], -np.inf).argmax())


def _dropped(classifier: Classifier, pixels: Pixels, rate: float, count: int, seed: int) -> Sequence[Floats]:
    """Probabilities ``[N, K]`` of ``count`` passes under dropout."""
    return [probabilities(under_dropout(classifier, rate, seed * count + i), pixels) for i in range(count)]


def under_dropout(classifier: Classifier, rate: float, seed: int) -> Classifier:
    """A copy that drops the same elements of every image, of what enters each weighted layer but the first.

    Raises:
        DoorwardError: a net of one such layer.
    """
    thinned = own_copy(classifier)
    layers = [m for m in thinned.net.modules() if isinstance(m, _ConvNd | nn.Linear)]
    if len(layers) < 2:
        told = f"{classifier.arch}: {len(layers)} convolutions and linear layers; expected at least 2"
        raise DoorwardError(f"cleanse psbd: {told}")
    drop = _dropout(rate, torch.Generator().manual_seed(seed))
    for layer in layers:
        layer.register_forward_pre_hook(drop)
    return thinned


def _dropout(rate: float, generator: torch.Generator) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    """Drops a share of what enters a layer, and scales up the rest; not of the first layer that is called."""
    first: list[nn.Module] = []
    masks: dict[tuple[object, ...], Tensor] = {}

    def drop(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        entering = inputs[0]
        if not first or first[0] is layer:
            first[:] = [layer]
            return inputs
        key = (layer, *entering.shape[1:])
        if key not in masks:
            kept = torch.rand((1, *entering.shape[1:]), generator=generator) >= rate
            masks[key] = kept.to(entering.device, entering.dtype) / (1 - rate)
        return (entering * masks[key], *inputs[1:])

    return drop
