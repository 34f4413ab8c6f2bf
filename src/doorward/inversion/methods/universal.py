"""Universal perturbations: one additive picture that sends images of all other classes to a class."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from doorward.core.methods import method
from doorward.core.triggers import Trigger
from doorward.inversion.inverted import Inverted
from doorward.inversion.search.additive import AdditiveObjective, AdditiveSettings
from doorward.inversion.search.loop import Watch
from doorward.inversion.search.reach import reach
from doorward.inversion.search.scene import Scene


class UniversalSettings(AdditiveSettings):
    """Settings of universal perturbations."""

    batch: int = Field(64, ge=1, description="images of other classes per class")
    success: float = Field(0.8, gt=0, le=1, description="share of them that must be decided as the class")
    stride: float = Field(0.03, gt=0, description="L2 length of a step, in root mean square grey values per 100 pixels")


@method("invert", "universal", settings=UniversalSettings, given={"scene", "seed", "watch", "reference"})
def universal(
    scene: Scene,
    s: UniversalSettings,
    *,
    seed: int,
    watch: Watch,
    reference: NDArray[np.float64] | None = None,
) -> Inverted:
    """Find, for every class, the shortest additive picture that sends images of all other classes to it.

    The perturbation of Xiang, Miller and Kesidis 2020 with all other classes as its source at once, as universal
    adversarial perturbations are (Moosavi-Dezfooli et al. 2017). Made for blends and other faint triggers over the
    whole image, where a mask is large; natural classes need a long perturbation to be reached from everywhere.

    Args:
        scene: the frozen net and clean images of several classes.
        seed: which images are taken.
        reference: the statistic of clean nets ``[K]``, which a race takes out before it compares.

    Returns: statistic -log of the shortest norm into the class; in a race minus the cube root of its loss, all classes
        at the same length, when the first is three quarters on its way. The perturbation as an additive trigger.

    Fails when: the trigger works from few source classes only, moves, or is no smaller than a natural change; every
        class is a target.
    """
    return reach(
        AdditiveObjective(scene, s),
        scene.pixels.shape[1:],
        s,
        name="universal",
        meaning="-log of the L2 norm of the shortest perturbation",
        seed=seed,
        watch=watch,
        reference=reference,
        trigger=_trigger,
    )


def _trigger(perturbation: Tensor) -> Trigger:
    pattern = perturbation.permute(2, 0, 1).cpu().clamp(-1, 1).contiguous()
    return Trigger(pattern, torch.ones(1, *pattern.shape[1:]), blend="add")
