"""Universal perturbations: one additive picture that sends images of all other classes to a class."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from doorward.core.errors import DoorwardError
from doorward.core.methods import method
from doorward.core.triggers import Trigger
from doorward.inversion.inverted import Inverted, spread
from doorward.inversion.search.additive import EVEN, AdditiveObjective, AdditiveSettings, even_race
from doorward.inversion.search.loop import Lanes, Watch, optimise
from doorward.inversion.search.race import decided, outliers
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
    labels, generator = scene.labels.cpu(), torch.Generator().manual_seed(seed)
    classes, shape, device = len(scene.candidates), scene.pixels.shape[1:], scene.pixels.device
    rows = []
    for label in scene.candidates:
        others = (labels != label).nonzero()[:, 0]
        if len(others) < 2:
            raise DoorwardError(f"invert universal: {len(others)} images of other classes than {label}; expected more")
        others = others[torch.randperm(len(others), generator=generator)]
        rows.append(others[torch.arange(s.batch) % len(others)])
    zeros = torch.zeros(classes, *shape, device=device)
    infinite = torch.full((classes,), torch.inf, device=device)
    held = {"label": torch.tensor(scene.candidates, device=device), "rows": torch.stack(rows).to(device), "best": zeros}
    held |= {k: infinite.clone() for k in ("best_norm", "norm")} | {"rate": torch.zeros(classes, device=device)}
    usual = None if reference is None else reference[list(scene.candidates)]
    race = even_race(held, partial(outliers, usual=usual)) if s.race else None
    start = Lanes({"perturbation": zeros.clone()}, held)
    lanes = optimise(AdditiveObjective(scene, s), start, s, seed=seed, watch=watch, race=race)
    held = lanes.held
    reached = held["best_norm"].isfinite()
    size = torch.where(reached, held["best_norm"], held["norm"]).cpu().numpy().astype(np.float64)
    triggers = {}
    for lane, label in enumerate(scene.candidates):
        source = held["best"] if reached[lane] else lanes.trained["perturbation"]
        pattern = source[lane].permute(2, 0, 1).cpu().clamp(-1, 1).contiguous()
        triggers[label] = (Trigger(pattern, torch.ones(1, *pattern.shape[1:]), blend="add"),)
    works, dropped = reached.cpu().numpy(), held["dropped"].cpu().numpy()
    missing = int((~works & ~dropped).sum())
    place = (scene.candidates, scene.model.classes)
    told = f"{missing} of {classes} classes were not reached in {s.steps} steps"
    statistic, compared, equal = decided(held, -np.log(np.maximum(size, 1e-9)), works)
    return Inverted(
        spread(statistic, *place),
        EVEN if equal else "-log of the L2 norm of the shortest perturbation",
        spread(compared, *place, False),
        spread(works, *place, False),
        spread(~dropped, *place, False),
        triggers,
        spread(size, *place),
        details={"steps": held["steps"].tolist()},
        even=equal,
        warnings=(told,) if missing and not equal else (),
    )
