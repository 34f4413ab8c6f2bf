"""Warps: one smooth displacement that sends images of all other classes to a class."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from doorward.attacks.warp import moved, smooth
from doorward.core.methods import method
from doorward.inversion.inverted import Inverted
from doorward.inversion.search.additive import AdditiveObjective, AdditiveSettings, Stride
from doorward.inversion.search.loop import Watch
from doorward.inversion.search.reach import reach
from doorward.inversion.search.scene import Scene


class WarpSettings(AdditiveSettings):
    """Settings of warping fields."""

    batch: int = Field(32, ge=1, description="images of other classes per class")
    success: float = Field(0.8, gt=0, le=1, description="share of them that must be decided as the class")
    stride: float = Field(0.2, gt=0, description="length of a step, root mean square, in percent of the shorter side")
    grid: int = Field(6, ge=2, description="control points per side")
    race: bool = Field(
        True, description="compare all classes as the first are nearly reached; most cannot be reached by a small warp"
    )


class WarpObjective(AdditiveObjective):
    """Cross-entropy of the images, moved along a smooth field, to the target."""

    s: WarpSettings
    at_the_end = True  # most classes are far, some nets' all of them: the end of the search is as good a length

    def stamped(self, images: Tensor, perturbation: Tensor) -> Tensor:
        """Images ``[L, B, H, W, C]`` sampled along every lane's field ``[L, g, g, 2]`` (x, y), of the shorter side."""
        lanes, count, height, width, channels = images.shape
        fields = smooth(perturbation.permute(0, 3, 1, 2), (height, width)) * min(height, width)
        flat = images.permute(0, 1, 4, 2, 3).reshape(lanes * count, channels, height, width)
        found = moved(flat, fields.repeat_interleave(count, 0))
        return found.view(lanes, count, channels, height, width).permute(0, 1, 3, 4, 2)

    def optimiser(self, trained: list[Tensor]) -> torch.optim.Optimizer:
        """Steps of fixed length."""
        return Stride(trained, self.s.stride / 100 * (2 * self.s.grid**2) ** 0.5)


@method("invert", "warp", settings=WarpSettings, given={"scene", "seed", "watch", "reference"})
def warp(
    scene: Scene,
    s: WarpSettings,
    *,
    seed: int,
    watch: Watch,
    reference: NDArray[np.float64] | None = None,
) -> Inverted:
    """Find, for every class, the smallest smooth displacement that sends images of all other classes to it.

    Made for triggers that move pixels in place of painting them (WaNet, Nguyen and Tran 2021): a field of a few control
    points, the same for every image, smoothly filled in between, as that attack draws it. A planted warp moves pixels
    by less than one; natural classes are as near only where images lie between two classes. Ours: the search is that of
    `universal`, with a field where that has a picture.

    Args:
        scene: the frozen net and clean images of several classes.
        seed: which images are taken.
        reference: the statistic of clean nets ``[K]``, which a race takes out before it compares.

    Returns: statistic -log of the smallest field's norm (root of the sum of squares over control points, of the
        shorter side); in a race minus the cube root of its loss. No trigger is made.

    Fails when: the field differs from image to image, has more folds than control points, or every class is a target;
        the trigger paints (`mask`, `universal`).
    """
    return reach(
        WarpObjective(scene, s),
        (s.grid, s.grid, 2),
        s,
        name="warp",
        meaning="-log of the norm of the smallest displacement",
        seed=seed,
        watch=watch,
        reference=reference,
    )
