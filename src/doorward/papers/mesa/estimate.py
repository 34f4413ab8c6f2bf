"""What a plan would cost: its stages, and their time from speeds measured here and now."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.pixels import to_float
from doorward.data.sources import load_images
from doorward.inversion.search.frozen import Frozen
from doorward.jobs.processes import default_jobs
from doorward.jobs.stages import Stage
from doorward.models.train.loop import Epoch, train
from doorward.papers.mesa.arms import Arm, Inversion
from doorward.papers.mesa.plan import Plan
from doorward.papers.mesa.stages import shared_stages, stages
from doorward.papers.mesa.work import IMAGES, SAMPLES

_BATCHES = 12


@dataclass(frozen=True)
class Estimate:
    """A stage and how long it may take.

    Args:
        stage: its label.
        state: ``finished``, ``to run``, or ``to run if another class is named``.
        seconds: estimated, in a process of its own; 0 when finished.
        shared: done once, before the processes divide the cases.
    """

    stage: str
    state: str
    seconds: float
    shared: bool


@dataclass(frozen=True)
class Speed:
    """Images per second of one process, measured on this machine as busy as it is.

    Args:
        training: weights and batch norms move.
        inverting: forward and backward through frozen weights.
        forward: predictions.
    """

    training: float
    inverting: float
    forward: float


@contextmanager
def _share_of_cores(jobs: int) -> Iterator[None]:
    """As many threads as a process gets that is one of ``jobs``."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measure_speed(plan: Plan, images: ImageSet) -> Speed:
    """Train for two short epochs, go backward through the frozen net, predict; what comes first warms up."""
    some = images.subset(np.arange(min(len(images), _BATCHES * plan.clean.batch)))
    told: list[Epoch] = []
    settings = plan.clean.model_copy(update={"epochs": 2, "schedule": "constant"})
    classifier = train(some, plan.net, settings, device=plan.device, watch=told.append)
    return Speed(
        told[-1].images_per_second,
        _inverting(classifier, some),
        _per_second(len(some), lambda: classifier.predict(some.pixels)),
    )


def _inverting(classifier: Classifier, images: ImageSet, batch: int = 256) -> float:
    frozen = Frozen(classifier)
    pixels = frozen.normalise(to_float(images.pixels[:batch], classifier.device).permute(0, 2, 3, 1))

    def once() -> None:
        frozen.logits(pixels.detach().requires_grad_()).sum().backward()
        if classifier.device.type == "cuda":
            torch.cuda.synchronize()

    return _per_second(len(pixels), once)


def _per_second(count: int, once: Callable[[], object], repeats: int = 3) -> float:
    once()
    started = time.monotonic()
    for _ in range(repeats):
        once()
    return repeats * count / (time.monotonic() - started)


def dry_run(plan: Plan, folder: Path, jobs: int = 0) -> tuple[list[Estimate], float]:
    """Every stage with its state and estimated time, and the seconds in all with ``jobs`` processes; writes nothing.

    Attacks are counted with half of their rounds, and the share of time that two processes take from each other is not
    known before they run.
    """
    train_images, test_images = load_images(plan.source), load_images(plan.source, split="test")
    jobs = min(jobs or default_jobs(plan.device), len(plan.cases))
    with _share_of_cores(jobs):
        speed = measure_speed(plan, train_images)
    size = _Size(len(train_images), round((1 - plan.evaluated) * len(test_images)), len(train_images.classes))
    shared = [_estimate(plan, s, speed, size) for s in shared_stages(plan, folder)]
    own = [_estimate(plan, s, speed, size) for case in plan.cases for s in stages(plan, case, folder)]
    return shared + own, sum(e.seconds for e in shared) + sum(e.seconds for e in own) / jobs


@dataclass(frozen=True)
class _Size:
    """Images to train on, images that a defence has, classes."""

    train: int
    known: int
    classes: int


def _estimate(plan: Plan, stage: Stage[Inversion | Arm], speed: Speed, size: _Size) -> Estimate:
    shared, known = not stage.case, size.known
    if stage.finished:
        return Estimate(stage.label, "finished", 0.0, shared)
    state = "to run"
    measured = 2 * known * plan.evaluated / (1 - plan.evaluated) / speed.forward
    seconds = 0.0
    if stage.kind == "clean":
        seconds = plan.clean.epochs * size.train / speed.training
    elif stage.kind == "attack":
        rounds = (plan.rounds + 1) // 2
        seconds = rounds * plan.attack.epochs * size.train / speed.training + 2 * measured
    elif isinstance(stage.about, Inversion):
        seconds = images_inverted(plan, stage.about, size.classes) / speed.inverting + 2 * known / speed.forward
        if stage.about.name == "mesa-unknown":
            state, seconds = "to run if another class is named", 0.0
    elif isinstance(stage.about, Arm):
        refreshed = stage.about.method == "refresh"
        trained = known / speed.forward if refreshed else plan.repair.epochs * known / speed.training
        seconds = trained + measured
    elif stage.kind == "show":
        seconds = len(plan.mesa.betas()) * SAMPLES * IMAGES / speed.forward
    return Estimate(stage.label, state, seconds, shared)


def images_inverted(plan: Plan, inversion: Inversion, classes: int) -> int:
    """Images that go forward and backward through the frozen net in a search."""
    lanes = {"mesa": len(plan.mesa.betas()), "pixel": plan.pixel.runs, "mask": classes}[inversion.method]
    return int(inversion.settings["steps"] * inversion.settings["batch"] * lanes)
