"""The max-entropy staircase: a distribution over all triggers that work."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from doorward.core.methods import method
from doorward.inversion.distribution.generators import generate, make_generators, settled
from doorward.inversion.distribution.information import bound, make_statistics, statistics, trainable_bound
from doorward.inversion.distribution.triggers import TriggerDistribution
from doorward.inversion.inverted import Inverted
from doorward.inversion.search.loop import Lanes, LoopSettings, Objective, Tensors, Watch, optimise
from doorward.inversion.search.scene import Scene
from doorward.inversion.search.scores import log_odds
from doorward.inversion.search.stamping import corners, stamp_windows, windows

AUTHORS_LEVELS = (0.5, 0.8, 0.9)
_MEASURED = 1024  # triggers per generator for its success rate and entropy


class MesaSettings(LoopSettings):
    """Settings of the max-entropy staircase."""

    steps: int = Field(620, ge=1, description="optimiser steps")
    batch: int = Field(128, ge=2, description="images and triggers per generator and step")
    size: int = Field(3, ge=1, description="side of the triggers in pixels; the slides assume it known")
    transparency: bool = Field(False, description="also model alpha per pixel: x' = (1 - alpha) x + alpha t")
    test: Literal["softmax", "cross-entropy"] = Field(
        "softmax", description="success F: target probability, as the authors' code, or cross-entropy, as the slides"
    )
    levels: Literal["authors", "uniform"] = Field("authors", description="beta .5, .8, .9, or i/N for i = 0 .. N - 1")
    count: int = Field(3, ge=1, le=32, description="N, the number of uniform levels")
    alpha: float = Field(0.1, ge=0, description="weight of the entropy")
    width: int = Field(128, ge=4, description="of generator and statistics network; the authors have 512")
    noise: int = Field(64, ge=4, multiple_of=4, description="dimensions of the generators' noise, uniform in [0, 1]")
    blur: float = Field(0.1, gt=0, description="standard deviation of the noise added to triggers")
    average: float = Field(0.01, gt=0, lt=1, description="rate of the moving average in the entropy's gradient")
    lr: float = Field(1e-3, gt=0, description="learning rate of Adam on generators and statistics networks")
    weights: Literal["entropy", "equal"] = Field(
        "entropy", description="of the generators: by the entropy of their sets, or equal"
    )

    def betas(self) -> tuple[float, ...]:
        """The levels of the staircase."""
        return AUTHORS_LEVELS if self.levels == "authors" else tuple(i / self.count for i in range(self.count))

    def points(self, channels: int) -> int:
        """Numbers that a trigger consists of."""
        return (channels + self.transparency) * self.size**2


class MesaObjective(Objective):
    """-alpha I(G(z); z) + max(0, beta - F(G(z))), one generator and one statistics network per class and level."""

    def __init__(self, scene: Scene, s: MesaSettings) -> None:
        self.scene, self.s = scene, s
        self.images = scene.normalised

    def draw(self, lanes: Lanes, batch: int, generator: torch.Generator) -> Tensors:
        """Images, places and noise: one trigger per image."""
        count, (channels, height, width) = len(lanes), self.scene.model.shape
        top, left = corners(count, batch, (height, width), (self.s.size, self.s.size), generator)
        device, points = generator.device, self.s.points(channels)
        return {
            "rows": self.scene.draw(count, batch, generator),
            "top": top,
            "left": left,
            "noise": torch.rand(count, 2, batch, self.s.noise, generator=generator, device=device),
            "blur": torch.randn(count, batch, points, generator=generator, device=device) * self.s.blur,
        }

    def loss(self, lanes: Lanes, drawn: Tensors) -> tuple[Tensor, Tensors]:
        """The slides' loss; tells success, information and the new moving average."""
        held, noise = lanes.held, drawn["noise"]
        points = generate(lanes.trained, noise[:, 0]) + drawn["blur"]
        joint, independent = statistics(lanes.trained, _scaled(points, self.s.alpha), noise[:, 0], noise[:, 1])
        information, average = trainable_bound(joint, independent, held["average"], self.s.average)
        logits, counts = self._answers(points, lanes, drawn)
        penalty = self.penalty(logits, held["label"], held["beta"], counts)
        hits = ((logits.detach().argmax(2) == held["label"][:, None]) * counts).sum(1)
        told = {"success": hits / counts.sum(1).clamp(min=1), "information": information, "average": average}
        return penalty - information, {k: v.detach() for k, v in told.items()}

    def _answers(self, points: Tensor, lanes: Lanes, drawn: Tensors) -> tuple[Tensor, Tensor]:
        rows, channels = drawn["rows"][0], self.scene.model.shape[0]
        patterns, alpha = windows(points, channels, (self.s.size, self.s.size))
        if alpha is not None:
            alpha = alpha.clamp(0, 1)  # the blur leads out of the range; transparency beyond it has no meaning
        patterns = self.scene.model.normalise(patterns)
        stamped = stamp_windows(self.images[rows][None], patterns, alpha, drawn["top"], drawn["left"])
        return self.scene.model.logits(stamped), (self.scene.labels[rows] != lanes.held["label"][:, None]).float()

    def penalty(self, logits: Tensor, label: Tensor, beta: Tensor, counts: Tensor) -> Tensor:
        """max(0, beta - F) per lane, ``[lanes]``; images of the class itself do not count.

        ``softmax``: the authors' code, F = mean of min(target probability, beta) over the batch.
        ``cross-entropy``: the slides, read so that F >= beta means the same: max(0, mean cross-entropy + log beta).
        """
        target = label[:, None].expand(logits.shape[:2])
        each = -functional.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view(target.shape)
        trials = counts.sum(1).clamp(min=1)
        if self.s.test == "softmax":
            return ((beta[:, None] - each.exp()).clamp(min=0) * counts).sum(1) / trials
        # a level of 0 asks for nothing: its log is far below every cross-entropy
        return (beta.clamp(min=1e-30).log() - (each * counts).sum(1) / trials).clamp(min=0)

    def optimiser(self, trained: list[Tensor]) -> torch.optim.Optimizer:
        """Adam, as the authors have it, for generators and statistics networks together."""
        return torch.optim.Adam(trained, lr=self.s.lr, betas=(0.5, 0.999))

    def note(self, lanes: Lanes, told: Tensors, step: int) -> None:
        """Keep moving averages."""
        lanes.held["average"].copy_(told["average"])
        for key in ("success", "information"):
            lanes.held[key].lerp_(told[key], 0.05)

    def promise(self, lanes: Lanes) -> Tensor:
        """Success first."""
        return lanes.held["success"]


def _scaled(x: Tensor, factor: float) -> Tensor:
    """The same value with its gradient times ``factor``: alpha weighs what reaches the generator, and only that."""
    return factor * x + (1 - factor) * x.detach()


@method("invert", "mesa", settings=MesaSettings, given={"scene", "seed", "watch"}, accepts={"target_class"})
def mesa(scene: Scene, s: MesaSettings, *, seed: int, watch: Watch, target_class: int | None = None) -> Inverted:
    """Model all triggers that work, as generators of maximal entropy at several levels of success.

    Max-entropy staircase approximator, Qiao, Yang and Li 2019, algorithm 1, slides "Method: implementation": per
    level beta_i a generator G_i minimises -alpha I(G_i(z); z') + max(0, beta_i - F(G_i(z))), the information estimated
    by a statistics network (MINE, Belghazi et al. 2018). Triggers are placed at random, one per image and step.
    Deviations from the authors' code: all classes and levels advance together; each image has a place of its own;
    the added noise is part of the trigger whose entropy is maximised, which makes that entropy finite; narrower nets
    and a larger learning rate by default (512 and 2e-4 theirs).

    The staircase: the density of a trigger is its success rate, cut into the levels, so that generator i has
    probability in proportion to (beta_i - beta_{i-1}) exp(h_i): step height times volume of its set. With
    ``transparency`` (the slides of 2019 at HackML) every pixel has an alpha too, and the set is of patterns and alphas
    together: for a ``size`` larger than the trigger, pixels that do not matter may vanish.

    Args:
        scene: the frozen net and clean images.
        seed: of networks, noise, places and batches.
        target_class: look at this class alone; there is no verdict then.

    Returns: statistic log odds of the best level's success rate; a `TriggerDistribution` per class.

    Fails when: the trigger is larger than ``size`` or works at one place only; a generator is too narrow for the set.
    """
    betas = s.betas()
    labels = scene.candidates if target_class is None else [target_class]
    lanes = start(scene, s, list(labels), seed)
    lanes = optimise(MesaObjective(scene, s), lanes, s, seed=seed, watch=watch)
    lanes = finished(scene, s, lanes, seed)
    shape = (len(labels), len(betas))
    success, information = (lanes.held[k].view(shape).cpu().double().numpy() for k in ("success", "information"))
    points = s.points(scene.model.shape[0])
    entropy = information + points / 2 * math.log(2 * math.pi * math.e * s.blur**2)
    classes = scene.model.classes
    statistic, size = np.full(classes, np.nan), np.full(classes, np.nan)
    works, ran_out = np.zeros(classes, bool), np.zeros(classes, bool)
    dropped = lanes.held["dropped"].view(shape).cpu().numpy()
    distributions, triggers = {}, {}
    for row, label in enumerate(labels):
        best = float(success[row].max())
        statistic[label] = log_odds(best, _MEASURED)
        works[label], ran_out[label] = best >= betas[0] and best > 0.5, not dropped[row].all()
        size[label] = s.size**2
        net = {k: v.view(*shape, *v.shape[1:])[row].cpu() for k, v in lanes.trained.items() if k.startswith("g_")}
        weights = staircase_weights(betas, entropy[row], s.weights)
        distributions[label] = TriggerDistribution(
            net,
            (scene.model.shape[0], s.size, s.size),
            betas,
            weights,
            tuple(entropy[row]),
            s.blur,
            tuple(success[row]),
            s.transparency,
        )
        draws = torch.Generator().manual_seed(seed)
        triggers[label] = tuple(distributions[label].trigger(draws) for _ in range(8))
    return Inverted(
        statistic,
        f"log odds of the success rate of generated {s.size} x {s.size} triggers",
        np.isfinite(statistic),
        works,
        ran_out,
        triggers,
        size,
        distributions,
        {"levels": list(betas), "success": success.tolist(), "entropy": entropy.tolist()},
    )


def start(scene: Scene, s: MesaSettings, labels: list[int], seed: int) -> Lanes:
    """Every class starts from the same networks; the levels from different ones."""
    betas, device, points = s.betas(), scene.pixels.device, s.points(scene.model.shape[0])
    generator = torch.Generator().manual_seed(seed)
    one = make_generators(len(betas), s.noise, points, s.width, generator)
    one |= make_statistics(len(betas), points, s.noise, s.width, generator)
    lanes = len(labels) * len(betas)
    zeros = torch.zeros(lanes, device=device)
    held = {
        "label": torch.tensor(labels, device=device).repeat_interleave(len(betas)),
        "beta": torch.tensor(betas, device=device).repeat(len(labels)),
        **{k: zeros.clone() for k in ("average", "success", "information")},
    }
    return Lanes({k: v.repeat(len(labels), *[1] * (v.ndim - 1)).to(device) for k, v in one.items()}, held)


@torch.no_grad()
def finished(scene: Scene, s: MesaSettings, lanes: Lanes, seed: int) -> Lanes:
    """The lanes with settled generators, and success and information measured on fresh samples."""
    generator = torch.Generator(scene.pixels.device).manual_seed(seed + 1)
    objective, told = MesaObjective(scene, s), []
    trained: dict[str, list[Tensor]] = {}
    rows = scene.draw(1, _MEASURED, generator)
    for lane in range(len(lanes)):
        part = lanes.part(slice(lane, lane + 1))
        drawn = {**objective.draw(part, _MEASURED, generator), "rows": rows}
        net = settled(part.trained, drawn["noise"][:, 0])
        points = generate(net, drawn["noise"][:, 0])
        joint, independent = statistics(net, points + drawn["blur"], drawn["noise"][:, 0], drawn["noise"][:, 1])
        logits, counts = objective._answers((points + drawn["blur"]).clamp(0, 1), part, drawn)
        hits = ((logits.argmax(2) == part.held["label"][:, None]) * counts).sum(1)
        told.append((hits / counts.sum(1).clamp(min=1), bound(joint, independent)))
        for key, value in net.items():
            trained.setdefault(key, []).append(value)
    success, information = (torch.cat(v) for v in zip(*told, strict=True))
    held = {**lanes.held, "success": success, "information": information}
    return Lanes({k: torch.cat(v) for k, v in trained.items()}, held)


def staircase_weights(
    betas: tuple[float, ...], entropies: np.ndarray[tuple[int], np.dtype[np.float64]], rule: str = "entropy"
) -> tuple[float, ...]:
    """Probability of each generator: height of its step times exp(entropy), or equal (the authors' retraining).

    The lowest level 0 has a step of height 0 and therefore no part; when it is the only one it has all.
    """
    steps = np.diff(np.array(betas), prepend=0.0)
    if rule == "equal" or not (steps > 0).any():
        return tuple(np.full(len(betas), 1 / len(betas)).tolist())
    with np.errstate(divide="ignore"):
        exponents = np.log(np.maximum(steps, 0)) + entropies
    weights = np.exp(exponents - exponents.max())
    return tuple((weights / weights.sum()).tolist())
