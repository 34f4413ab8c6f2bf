"""Additive perturbations, one per lane: the shortest v for which clip(x + v) is decided as the lane's class."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from doorward.inversion.search.loop import Lanes, LoopSettings, Objective, Tensors
from doorward.inversion.search.race import Floats, Outlook, Race
from doorward.inversion.search.scene import Scene


class AdditiveSettings(LoopSettings):
    """Settings of the search for additive perturbations; a method gives its own defaults."""

    steps: int = Field(300, ge=1, description="optimiser steps at most")
    success: float = Field(0.9, gt=0, le=1, description="share of the images that must be decided as the class")
    stride: float = Field(0.05, gt=0, description="L2 length of a step, in root mean square grey values per 100 pixels")
    halve_from: int = Field(1 << 30, ge=2, description="never by default: all pairs are compared")
    race: bool = Field(
        False, description="compare all lanes as the first are nearly reached; end with those that stand out"
    )


EVEN = "minus the cube root of the loss at equal length"
NEAR = 0.75  # of the success that is asked for: a lane with so much is nearly there


class Stride(torch.optim.Optimizer):
    """A step of fixed L2 length per lane against the gradient: the norm grows evenly, so first successes compare."""

    def __init__(self, trained: list[Tensor], length: float) -> None:
        super().__init__(trained, {"length": length})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every lane by ``length``."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    gradient = parameter.grad.flatten(1)
                    norm = gradient.norm(dim=1, keepdim=True).clamp(min=1e-20)
                    parameter.sub_((group["length"] * gradient / norm).view_as(parameter))


class AdditiveObjective(Objective):
    """Cross-entropy of clip(x + v) to the target over the lane's images, until enough of them are decided so."""

    at_the_end = False  # whether lanes that hold ``even`` are compared at the last step where nobody was nearly there

    def __init__(self, scene: Scene, s: AdditiveSettings, near: int = 1) -> None:
        """``near``: lanes that have to be nearly there before all are compared, of those that hold ``even``."""
        self.scene, self.s, self.near = scene, s, near

    def loss(self, lanes: Lanes, drawn: Tensors) -> tuple[Tensor, Tensors]:
        """Mean cross-entropy per lane; tells the share decided as its class and the perturbation's norm."""
        images = self.scene.pixels[lanes.held["rows"]]
        stamped = self.stamped(images, lanes.trained["perturbation"])
        logits = self.scene.model.logits(self.scene.model.normalise(stamped))
        target = lanes.held["label"][:, None].expand(images.shape[:2])
        each = functional.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view(target.shape)
        rate = (logits.detach().argmax(2) == target).float().mean(1)
        norm = lanes.trained["perturbation"].detach().flatten(1).norm(dim=1)
        loss = each.mean(1)
        return loss, {"rate": rate, "norm": norm, "loss": loss.detach()}

    def stamped(self, images: Tensor, perturbation: Tensor) -> Tensor:
        """Every lane's images ``[L, B, H, W, C]`` with its perturbation ``[L, ...]``."""
        return (images + perturbation[:, None]).clamp(0, 1)

    def optimiser(self, trained: list[Tensor]) -> torch.optim.Optimizer:
        """Steps of fixed length."""
        _, height, width = self.scene.model.shape
        return Stride(trained, self.s.stride * (height * width) ** 0.5 / 10)

    def note(self, lanes: Lanes, told: Tensors, step: int) -> None:
        """Keep the first perturbation that works, the shortest; its norm is interpolated between the last two steps."""
        held = lanes.held
        first = (told["rate"] >= self.s.success) & ~held["best_norm"].isfinite()
        share = (self.s.success - held["rate"]) / (told["rate"] - held["rate"]).clamp(min=1e-6)
        before = torch.where(held["norm"].isfinite(), held["norm"], told["norm"])
        between = before + share.clamp(0, 1) * (told["norm"] - before)
        held["best_norm"] = torch.where(first, between, held["best_norm"])
        held["norm"].copy_(told["norm"])
        held["rate"].copy_(told["rate"])
        if "even" in held:  # every lane's loss as the first of them are nearly there: all have moved equally far
            now = (told["rate"] >= NEAR * self.s.success).sum() >= self.near
            now = (now | (self.at_the_end and step + 1 == self.s.steps)) & held["even"].isnan()
            held["even"] = torch.where(now, told["loss"], held["even"])
        held["best"] = torch.where(first[:, None, None, None], lanes.trained["perturbation"].detach(), held["best"])

    def done(self, lanes: Lanes) -> Tensor:
        """Lanes whose perturbation works; none before all were compared that are to be."""
        works = lanes.held["best_norm"].isfinite()
        return works & lanes.held["even"].isfinite() if "even" in lanes.held else works

    def promise(self, lanes: Lanes) -> Tensor:
        """Short perturbations first."""
        return -torch.minimum(lanes.held["best_norm"], lanes.held["norm"])


def even_race(held: Tensors, outlook: Callable[[Floats], Outlook | None]) -> Race:
    """The race of lanes that hold these tensors, which get one more for it; see `standing`."""
    held["even"] = torch.full_like(held["norm"], torch.nan)
    return Race(standing, 0, 0, outlook)


def standing(held: Tensors) -> Tensor | None:
    """How near every lane was as the first were nearly there, all at equal length; None before that.

    Minus the cube root of its loss: a cube root of such a mean is nearly normal, as Wilson and Hilferty 1931 show of
    sums of squares.
    """
    return -(held["even"].clamp(min=0) ** (1 / 3)) if held["even"].isfinite().any() else None
