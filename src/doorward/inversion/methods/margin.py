"""Maximum margin: how far an input can push a class above all others. Needs no images."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from doorward.core.methods import method
from doorward.core.order_test import gamma_p_value
from doorward.inversion.inverted import Inverted
from doorward.inversion.search.frozen import Frozen
from doorward.inversion.search.loop import Lanes, LoopSettings, Objective, Tensors, Watch, optimise
from doorward.inversion.search.rest import at_rest, remembered
from doorward.inversion.search.scores import class_margin

_STALL = 3  # checks without growth until a class is done


class MarginSettings(LoopSettings):
    """Settings of the maximum-margin statistic."""

    steps: int = Field(200, ge=1, description="optimiser steps at most")
    batch: int = Field(8, ge=1, description="random starting points per class; the best counts")
    lr: float = Field(0.05, gt=0, description="learning rate of Adam on the inputs")
    tolerance: float = Field(
        1e-3, ge=0, description="a class is done when its margin grows by less per check, relative"
    )
    halve_from: int = Field(1 << 30, ge=2, description="never by default: margins of all classes are compared")


class MarginObjective(Objective):
    """The margin of the class's logit over the largest other one, from every starting point."""

    def __init__(self, model: Frozen, s: MarginSettings) -> None:
        self.model, self.s = model, s

    def loss(self, lanes: Lanes, drawn: Tensors) -> tuple[Tensor, Tensors]:
        """Minus the mean margin; tells the largest."""
        margins = class_margin(self.model.logits(self.model.normalise(lanes.trained["input"])), lanes.held["label"])
        return -margins.mean(1), {"margin": margins.detach().amax(1)}

    def optimiser(self, trained: list[Tensor]) -> torch.optim.Optimizer:
        """Adam, whose steps do not hang on the scale of the logits."""
        return torch.optim.Adam(trained, lr=self.s.lr)

    def note(self, lanes: Lanes, told: Tensors, step: int) -> None:
        """Keep the best margin; count checks without growth."""
        held = lanes.held
        torch.maximum(held["best"], told["margin"], out=held["best"])
        if (step + 1) % self.s.check == 0:
            grown = held["best"] - held["before"] > self.s.tolerance * held["best"].abs()
            held["stall"] = torch.where(grown, 0.0, held["stall"] + 1)
            held["before"] = held["best"].clone()
            held["trail"] = remembered(held["trail"], held["best"])

    def settle(self, lanes: Lanes) -> None:
        """Inputs stay images."""
        lanes.trained["input"].clamp_(0, 1)

    def done(self, lanes: Lanes) -> Tensor:
        """Classes whose margin has not grown for three checks."""
        return lanes.held["stall"] >= _STALL

    def promise(self, lanes: Lanes) -> Tensor:
        """Large margins first."""
        return lanes.held["best"]


@method("invert", "margin", settings=MarginSettings, given={"model", "seed", "watch"})
def margin(model: Frozen, s: MarginSettings, *, seed: int, watch: Watch) -> Inverted:
    """Compare the largest margin that any input reaches for each class; needs no images at all.

    MM-BD, Wang, Xiang, Miller and Kesidis 2024: projected gradient ascent of z_c(x) - max_{k != c} z_k(x) over x in
    [0, 1] from random images; a backdoor lets its target class rise unusually far. The authors' gamma p-value on the
    other classes is shown; the verdict is the common one on the log of the margins. Deviations: Adam instead of
    SGD with momentum; classes stop when they stop growing.

    Args:
        model: the frozen net.
        seed: of the starting points.

    Returns: statistic log of the largest margin; no triggers. A class has converged when its margin grew by at most
        10 % over the last three checks.

    Fails when: every class is a target; the classifier was trained hard on the trigger's features for other reasons
        (natural backdoors), or its margins are bounded by its training (label smoothing, mixup).
    """
    channels, height, width = model.shape
    generator = torch.Generator().manual_seed(seed)
    free = torch.rand(s.batch, height, width, channels, generator=generator).to(model.device)
    zeros = torch.zeros(model.classes, device=model.device)
    held = {"label": torch.arange(model.classes, device=model.device), "best": zeros - torch.inf}
    held |= {"before": zeros - 1e30, "stall": zeros.clone()}
    held["trail"] = torch.full((model.classes, _STALL + 1), torch.inf, device=model.device)
    lanes = Lanes({"input": free.expand(model.classes, *free.shape).clone()}, held)
    lanes = optimise(MarginObjective(model, s), lanes, s, seed=seed, watch=watch)
    best = lanes.held["best"].cpu().numpy().astype(np.float64)
    dropped = lanes.held["dropped"].cpu().numpy()
    positive = best > 0
    return Inverted(
        np.log(np.maximum(best, 1e-6)),
        "log of the largest margin that any input reaches",
        (at_rest(lanes.held["trail"]) | (lanes.held["stall"] >= _STALL)).cpu().numpy(),
        positive,
        ~dropped,
        details={
            "margin": best.tolist(),
            "published_p_value": gamma_p_value(best),
            "steps": lanes.held["steps"].tolist(),
        },
    )
