"""What a plan would cost: its stages, and their time from a speed measured here and now."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from doorward.data.sources import load_images
from doorward.jobs.stages import Stage
from doorward.models.train.loop import Epoch, train
from doorward.papers.cluster_impurity.plan import Plan
from doorward.papers.cluster_impurity.stages import stages
from doorward.repairs.methods.prune import PruneSettings

_MEASURED = 20  # batches per epoch of the measurement
_PASSES = {"blind": 2}  # over the images: plain, and filtered for cluster impurity; the other forms remember them


@dataclass(frozen=True)
class Estimate:
    """A stage and how long it may take.

    Args:
        stage: its label.
        state: ``finished``, ``to run``, or ``to run if anything is flagged``.
        seconds: estimated; 0 when finished.
    """

    stage: str
    state: str
    seconds: float


@dataclass(frozen=True)
class Speed:
    """Images per second of training and of a forward pass, measured on this machine as busy as it is."""

    training: float
    forward: float


def measure_speed(plan: Plan) -> Speed:
    """Train for two short epochs and predict once; the first epoch warms up."""
    images = load_images(plan.source)
    some = images.subset(np.arange(min(len(images), _MEASURED * plan.training.batch)))
    told: list[Epoch] = []
    settings = plan.training.model_copy(update={"epochs": 2, "schedule": "constant"})
    classifier = train(some, plan.net, settings, device=plan.device, watch=told.append)
    classifier.predict(some.pixels[:512])
    started = time.monotonic()
    classifier.predict(some.pixels)
    return Speed(told[-1].images_per_second, len(some) / (time.monotonic() - started))


def dry_run(plan: Plan, folder: Path) -> tuple[list[Estimate], Speed]:
    """Every stage with its state and estimated time; writes nothing.

    Training and passes are estimated from the measured speed; the methods' own arithmetic, which hangs on the features,
    is not counted.
    """
    speed, count = measure_speed(plan), len(load_images(plan.source))
    own = [(case, stage) for case in plan.cases for stage in stages(plan, case, folder)]
    return [_estimate(plan, stage, speed, count, case.count) for case, stage in own], speed


def _estimate(plan: Plan, stage: Stage[None], speed: Speed, count: int, poisoned: int) -> Estimate:
    if stage.finished:
        return Estimate(stage.label, "finished", 0.0)
    images = count + poisoned
    if stage.kind == "train":
        state = "to run if anything is flagged" if stage.name.startswith("retrain") else "to run"
        return Estimate(stage.label, state, plan.training.epochs * images / speed.training)
    if stage.kind == "detect":
        return Estimate(stage.label, "to run", _PASSES.get(stage.name.split()[-1], 0) * images / speed.forward)
    if stage.kind == "fine-prune":
        known = plan.clean_share * count
        epochs = PruneSettings().epochs
        return Estimate(stage.label, "to run", 2 * known / speed.forward + epochs * known / speed.training)
    return Estimate(stage.label, "to run", 0.0)
