"""Mask and pattern: the smallest blend that sends every image to a class."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from doorward.core.methods import method
from doorward.core.triggers import Trigger
from doorward.inversion.inverted import Inverted, spread
from doorward.inversion.search.loop import Lanes, LoopSettings, Objective, Tensors, Watch, optimise
from doorward.inversion.search.pictures import squash
from doorward.inversion.search.race import Race, decided, outliers
from doorward.inversion.search.rest import at_rest, remembered
from doorward.inversion.search.scene import Scene
from doorward.inversion.search.scores import scored
from doorward.inversion.search.stamping import blend_whole

_MAD_TO_DEVIATION = 1.4826  # of a normal distribution


class MaskSettings(LoopSettings):
    """Settings of mask and pattern inversion."""

    steps: int = Field(400, ge=1, description="optimiser steps at most")
    batch: int = Field(32, ge=1, description="images per class and step")
    success: float = Field(0.95, gt=0, le=1, description="share of images that a mask must send to the class")
    lr: float = Field(0.1, gt=0, description="learning rate of Adam on mask and pattern")
    cost: float = Field(1e-3, gt=0, description="first weight of the mask's size")
    factor: float = Field(1.5, gt=1, description="the cost's growth while the mask works; falls by its 1.5th power")
    window: int = Field(5, ge=1, description="steps over which the success rate is measured")
    patience: int = Field(8, ge=1, description="windows without a mask smaller by 2 % until a class is done")
    race: bool = Field(False, description="compare classes early, at equal effort, and end with those that stand out")
    glance: bool = Field(True, description="in a race without references: end sooner where nobody stands out at all")

    def for_reference(self) -> MaskSettings:
        """The same, but compared as late as any other net is."""
        return self.model_copy(update={"glance": False})


class MaskObjective(Objective):
    """Cross-entropy to the class plus cost times the mask's L1 norm, the cost set per lane by its success rate."""

    def __init__(self, scene: Scene, s: MaskSettings) -> None:
        self.scene, self.s = scene, s
        self.images = scene.normalised

    def draw(self, lanes: Lanes, batch: int, generator: torch.Generator) -> Tensors:
        """The images of the step, the same for all classes."""
        return {"rows": self.scene.draw(len(lanes), batch, generator)}

    def loss(self, lanes: Lanes, drawn: Tensors) -> tuple[Tensor, Tensors]:
        """Loss, hits, trials and size per lane; images of the class itself do not count."""
        mask, pattern = (squash(lanes.trained[k]) for k in ("mask", "pattern"))
        rows = drawn["rows"][0]
        stamped = blend_whole(self.images[rows][None], mask, self.scene.model.normalise(pattern))
        logits = self.scene.model.logits(stamped)
        each, hits, counts = scored(self.scene, logits, lanes.held["label"], rows)
        size, trials = mask.sum((1, 2, 3)), counts.sum(1)
        loss = (each * counts).sum(1) / trials.clamp(min=1) + lanes.held["cost"] * size
        return loss, {"hits": hits.sum(1), "trials": trials, "size": size.detach()}

    def optimiser(self, trained: list[Tensor]) -> torch.optim.Optimizer:
        """Adam as Neural Cleanse has it."""
        return torch.optim.Adam(trained, lr=self.s.lr, betas=(0.5, 0.9))

    def note(self, lanes: Lanes, told: Tensors, step: int) -> None:
        """At the end of a window: keep a smaller mask that works, raise or lower the cost."""
        held = lanes.held
        held["hits"] += told["hits"]
        held["trials"] += told["trials"]
        held["size"].copy_(told["size"])
        if (step + 1) % self.s.window:
            return
        works = held["hits"] >= self.s.success * held["trials"]
        better = works & (told["size"] < held["best_size"])
        shrunk = better & (told["size"] < 0.98 * held["best_size"])
        waiting = ~held["best_size"].isfinite() & ~better  # not yet working is not yet stalling
        held["stall"] = torch.where(shrunk | waiting, 0.0, held["stall"] + 1)
        held["best_size"] = torch.where(better, told["size"], held["best_size"])
        held["trail"] = remembered(held["trail"], held["best_size"])
        for key in ("mask", "pattern"):
            held[f"best_{key}"] = torch.where(
                better[:, None, None, None], lanes.trained[key].detach(), held[f"best_{key}"]
            )
        held["cost"] = torch.where(works, held["cost"] * self.s.factor, held["cost"] / self.s.factor**1.5).clamp(
            self.s.cost * 1e-2, self.s.cost * 1e4
        )
        held["hits"].zero_()
        held["trials"].zero_()

    def done(self, lanes: Lanes) -> Tensor:
        """Classes whose smallest mask no longer shrinks."""
        return lanes.held["stall"] >= self.s.patience

    def promise(self, lanes: Lanes) -> Tensor:
        """Small masks first."""
        return -torch.minimum(lanes.held["best_size"], lanes.held["size"])


@method("invert", "mask", settings=MaskSettings, given={"scene", "seed", "watch", "reference"})
def mask(
    scene: Scene,
    s: MaskSettings,
    *,
    seed: int,
    watch: Watch,
    reference: NDArray[np.float64] | None = None,
) -> Inverted:
    """Find the smallest mask and pattern that send images of all other classes to each class.

    Neural Cleanse, Wang et al. 2019, section IV-A, equations 2 and 3: x' = (1 - m) x + m t over the whole image,
    cross-entropy plus cost times the L1 norm of m, the cost raised while the success rate holds and lowered while it
    does not; the smallest mask that held is kept. The authors' anomaly index (median and MAD of the norms) is shown
    but decides nothing. Deviations: all classes in one pass; the cost moves after every window; a mask is done when
    it stops shrinking.

    Args:
        scene: the frozen net and clean images of several classes.
        seed: of the starting point and the batches.
        reference: the statistic of clean nets ``[K]``, which a race takes out before it compares.

    Returns: statistic -log of the smallest mask's L1 norm in pixels, in a race one over the norm's square root (a side
        of a square that large): of clean nets p-values are uniform by the latter and too large by the former (mean 0.52
        and 0.65 of 19 nets that no table reports). One trigger per class. A class has converged when its mask works and
        became at most 10 % smaller over the last ``patience`` windows.

    Fails when: the trigger covers much of the image (blends, warps), works from few source classes only, or moves;
        every class is a target (all-to-all), for then none stands out.
    """
    lanes = start(scene, s, seed)
    race = racing(s, None if reference is None else reference[list(scene.candidates)])
    lanes = optimise(MaskObjective(scene, s), lanes, s, seed=seed, watch=watch, race=race)
    held = lanes.held
    works = held["best_size"].isfinite()
    size = torch.where(works, held["best_size"], held["size"]).clamp(min=1e-3).cpu().numpy().astype(np.float64)
    triggers = {}
    for lane, label in enumerate(scene.candidates):
        source = held if works[lane] else lanes.trained
        prefix = "best_" if works[lane] else ""
        alpha, pattern = (squash(source[f"{prefix}{k}"][lane]).permute(2, 0, 1).cpu() for k in ("mask", "pattern"))
        triggers[label] = (Trigger(pattern.contiguous(), alpha.contiguous()),)
    reached = works.cpu().numpy()
    rested = (works & (at_rest(held["trail"]) | (held["stall"] >= s.patience))).cpu().numpy()
    details: dict[str, Any] = {"mad_index": mad_index(size).tolist(), "steps": held["steps"].tolist()}
    dropped = held["dropped"].cpu().numpy()
    missing = int((~reached & ~dropped).sum())
    told = f"{missing} of {len(size)} classes: no mask reached a success rate of {s.success} in {s.steps} steps"
    place = (scene.candidates, scene.model.classes)
    statistic, compared, equal = decided(held, -np.log(size), rested)
    return Inverted(
        spread(statistic, *place),
        "one over the root of the L1 norm of the smallest mask that works, after equal effort"
        if equal
        else "-log of the L1 norm of the smallest mask that works",
        spread(compared, *place, False),
        spread(reached, *place, False),
        spread(~dropped, *place, False),
        triggers,
        spread(size, *place),
        details=details,
        even=equal,
        warnings=(told,) if missing and not equal else (),
    )


def racing(s: MaskSettings, usual: NDArray[np.float64] | None) -> Race | None:
    """Looks after 15 and 30 % of the steps, once four fifths of the classes have a mask that works.

    Args:
        usual: what clean nets show at the second look, by lane; then there is no first one.
    """

    def standing(held: Tensors) -> Tensor | None:
        works = held["best_size"].isfinite() & ~held["dropped"]
        if works.sum() < 0.8 * len(works):
            return None
        size = torch.where(works, held["best_size"], held["size"]).clamp(min=1e-3)
        return torch.where(held["dropped"], torch.nan, size.rsqrt())

    last = round(0.3 * s.steps)
    first = round(0.15 * s.steps) if s.glance and usual is None else last
    return Race(standing, first, last, partial(outliers, usual=usual)) if s.race else None


def start(scene: Scene, s: MaskSettings, seed: int) -> Lanes:
    """Every class starts from the same mask and pattern, so that sizes compare."""
    classes, (channels, height, width) = len(scene.candidates), scene.model.shape
    device = scene.pixels.device
    generator = torch.Generator().manual_seed(seed)
    free = {
        "mask": torch.randn(height, width, 1, generator=generator) * 0.1,
        "pattern": torch.randn(height, width, channels, generator=generator) * 0.1,
    }
    trained = {k: v.expand(classes, *v.shape).clone().to(device) for k, v in free.items()}
    zeros = torch.zeros(classes, device=device)
    held = {
        "label": torch.tensor(scene.candidates, device=device),
        "cost": zeros + s.cost,
        "best_size": zeros + torch.inf,
    }
    held |= {k: zeros.clone() for k in ("hits", "trials", "size", "stall")}
    held["trail"] = torch.full((classes, s.patience + 1), torch.inf, device=device)
    return Lanes(trained, held | {f"best_{k}": v.clone() for k, v in trained.items()})


def mad_index(size: np.ndarray[tuple[int], np.dtype[np.float64]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Neural Cleanse's anomaly index, ``[K]``: distance below the median in units of the scaled MAD; shown only."""
    median = np.quantile(size, 0.5)
    spread = _MAD_TO_DEVIATION * np.quantile(np.abs(size - median), 0.5)
    return np.asarray((median - size) / max(float(spread), 1e-12))
