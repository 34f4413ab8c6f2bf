"""One trigger per class by gradient descent on its pixels: the baseline of source and paper."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from doorward.core.errors import DoorwardError
from doorward.core.methods import method
from doorward.core.triggers import Placement, Trigger
from doorward.inversion.inverted import Inverted
from doorward.inversion.search.loop import Lanes, LoopSettings, Objective, Tensors, Watch, optimise
from doorward.inversion.search.scene import Scene
from doorward.inversion.search.scores import log_odds, scored
from doorward.inversion.search.stamping import corners, stamp_windows

_TAIL = 0.2  # share of the steps at the end over which the success rate is measured
_RISE = 3.0  # standard errors by which it may exceed that of as many steps before, in a search at rest


class PixelSettings(LoopSettings):
    """Settings of pixel-space gradient descent."""

    steps: int = Field(200, ge=1, description="optimiser steps")
    batch: int = Field(64, ge=1, description="images per class and step")
    size: int = Field(3, ge=1, description="side of the trigger in pixels; the slides assume it known")
    runs: int = Field(1, ge=1, description="random starting points per class; the authors average over 10")
    place: Literal["random", "fixed"] = Field(
        "random", description="where the trigger goes: drawn per image, or at row and column"
    )
    row: int = Field(0, ge=0, description="of a fixed trigger's top left corner")
    column: int = Field(0, ge=0, description="of a fixed trigger's top left corner")
    transparency: bool = Field(False, description="also search alpha: x' = (1 - alpha) x + alpha t")
    cost: float = Field(0.02, ge=0, description="weight of alpha's mean when it is searched")
    lr: float = Field(0.5, gt=0, description="learning rate of SGD on the pixels")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD")


class PixelObjective(Objective):
    """The attacker's loss: cross-entropy of stamped images to the class."""

    def __init__(self, scene: Scene, s: PixelSettings) -> None:
        self.scene, self.s = scene, s
        self.images = scene.normalised

    def draw(self, lanes: Lanes, batch: int, generator: torch.Generator) -> Tensors:
        """Images, the same for all lanes, and a place for each."""
        _, height, width = self.scene.model.shape
        top, left = corners(len(lanes), batch, (height, width), (self.s.size, self.s.size), generator)
        if self.s.place == "fixed":
            top, left = torch.full_like(top, self.s.row), torch.full_like(left, self.s.column)
        return {"rows": self.scene.draw(len(lanes), batch, generator), "top": top, "left": left}

    def loss(self, lanes: Lanes, drawn: Tensors) -> tuple[Tensor, Tensors]:
        """Mean cross-entropy per lane; images of the class itself do not count."""
        rows = drawn["rows"][0]
        pattern = self.scene.model.normalise(lanes.trained["pattern"])[:, None]
        alpha = lanes.trained["alpha"][:, None] if "alpha" in lanes.trained else None
        stamped = stamp_windows(self.images[rows][None], pattern, alpha, drawn["top"], drawn["left"])
        logits = self.scene.model.logits(stamped)
        each, hits, counts = scored(self.scene, logits, lanes.held["label"], rows)
        loss = (each * counts).sum(1) / counts.sum(1).clamp(min=1)
        if alpha is not None:
            loss = loss + self.s.cost * alpha.mean((1, 2, 3, 4))
        return loss, {"hits": hits.sum(1), "trials": counts.sum(1)}

    def optimiser(self, trained: list[Tensor]) -> torch.optim.Optimizer:
        """SGD with momentum."""
        return torch.optim.SGD(trained, lr=self.s.lr, momentum=self.s.momentum)

    def note(self, lanes: Lanes, told: Tensors, step: int) -> None:
        """Count hits: a moving average, and over the last steps."""
        lanes.held["success"].lerp_(told["hits"] / told["trials"].clamp(min=1), 0.05)
        for share, when in ((1 - _TAIL, ""), (1 - 2 * _TAIL, "earlier_")):
            if step >= self.s.steps * share:
                lanes.held[f"{when}hits"] += told["hits"]
                lanes.held[f"{when}trials"] += told["trials"]
                break

    def settle(self, lanes: Lanes) -> None:
        """Pixels and transparency stay in [0, 1]."""
        for tensor in lanes.trained.values():
            tensor.clamp_(0, 1)

    def promise(self, lanes: Lanes) -> Tensor:
        """Success first."""
        return lanes.held["success"]


@method("invert", "pixel", settings=PixelSettings, given={"scene", "seed", "watch"}, accepts={"target_class"})
def pixel(scene: Scene, s: PixelSettings, *, seed: int, watch: Watch, target_class: int | None = None) -> Inverted:
    """Search one small trigger per class by SGD on its pixels with the attacker's loss.

    The baseline of Qiao, Yang and Li 2019 (slides "Challenge in backdoor defense", pixel space SGD): a random start,
    a random place per image, cross-entropy to the class. With ``transparency`` the slides' alpha channel is searched
    too. Deviations from the authors' notebook: a place per image instead of per batch; clipped after every step.

    Args:
        scene: the frozen net and clean images.
        seed: of the starting points, places and batches.
        target_class: look at this class alone; there is no verdict then.

    Returns: statistic log odds of the best run's success rate over the last fifth of the steps. A class has converged
        when that is no higher than over the fifth before, up to chance (three standard errors).

    Fails when: the loss over the trigger's pixels has poor local minima (try ``runs``); the trigger is larger than
        ``size``, or works at one place only while ``place`` is random.
    """
    channels, height, width = scene.model.shape
    if s.size > min(height, width) or (s.place == "fixed" and (s.row + s.size > height or s.column + s.size > width)):
        told = f"size {s.size}" + (f" at {s.row}, {s.column}" if s.place == "fixed" else "")
        raise DoorwardError(f"invert pixel: {told} on images of {height} x {width}; expected a trigger that fits")
    labels = list(scene.candidates) if target_class is None else [target_class]
    generator = torch.Generator().manual_seed(seed)
    pattern = torch.rand(s.runs, s.size, s.size, channels, generator=generator)
    trained = {"pattern": pattern.repeat(len(labels), 1, 1, 1).to(scene.pixels.device)}
    if s.transparency:
        trained["alpha"] = torch.full((*trained["pattern"].shape[:3], 1), 0.75, device=scene.pixels.device)
    label = torch.tensor(labels, device=scene.pixels.device).repeat_interleave(s.runs)
    counted = ("success", "hits", "trials", "earlier_hits", "earlier_trials")
    held = {"label": label} | {k: torch.zeros(len(label), device=label.device) for k in counted}
    lanes = optimise(PixelObjective(scene, s), Lanes(trained, held), s, seed=seed, watch=watch)
    return _result(scene, s, lanes, labels)


def _result(scene: Scene, s: PixelSettings, lanes: Lanes, labels: list[int]) -> Inverted:
    classes, held = scene.model.classes, {k: v.cpu() for k, v in lanes.held.items()}
    ended = held["trials"] > 0
    rate = torch.where(ended, held["hits"] / held["trials"].clamp(min=1), held["success"])
    placement = Placement("random") if s.place == "random" else Placement("fixed", s.row, s.column)
    statistic, size = np.full(classes, np.nan), np.full(classes, np.nan)
    rested = ~rising(held)
    works, ran_out, converged = np.zeros(classes, bool), np.zeros(classes, bool), np.zeros(classes, bool)
    triggers = {}
    for row, label in enumerate(labels):
        runs = torch.arange(row * s.runs, (row + 1) * s.runs)
        best_first = runs[rate[runs].argsort(descending=True, stable=True)]
        best = int(best_first[0])
        trials = int(held["trials"][best]) or s.batch
        statistic[label], works[label] = log_odds(float(rate[best]), trials), bool(rate[best] > 0.5)
        converged[label] = bool(rested[best])
        ran_out[label] = not bool(held["dropped"][runs].all())
        triggers[label] = tuple(_trigger(lanes, int(run), placement) for run in best_first)
        size[label] = float(triggers[label][0].alpha.sum())
    return Inverted(
        statistic,
        f"log odds of the success rate of a {s.size} x {s.size} trigger",
        converged,
        works,
        ran_out,
        triggers,
        size,
        details={"success": rate.view(len(labels), s.runs).tolist()},
    )


def rising(held: Tensors) -> Tensor:
    """Lanes whose success rate still rose at the end, beyond chance: its log odds over the last steps and before."""
    hits, trials = (torch.stack([held[f"earlier_{k}"], held[k]]) + 0.5 for k in ("hits", "trials"))
    misses = (trials - hits).clamp(min=0) + 0.5
    odds = (hits / misses).log()
    return (odds[1] - odds[0]) > _RISE * (1 / hits + 1 / misses).sum(0).sqrt()


def _trigger(lanes: Lanes, lane: int, placement: Placement) -> Trigger:
    pattern = lanes.trained["pattern"][lane].permute(2, 0, 1).cpu().contiguous()
    if "alpha" in lanes.trained:
        alpha = lanes.trained["alpha"][lane].permute(2, 0, 1).cpu().contiguous()
    else:
        alpha = torch.ones(1, *pattern.shape[1:])
    return Trigger(pattern, alpha, placement)
