"""From two image sets to a certificate."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from doorward.certification.certificate import BLOCKS, Certificate, certificate_from_votes, check_level
from doorward.certification.exact.parts.proof import Proof
from doorward.certification.smoothing.montecarlo import Learner, Votes, Watch, resolve_device, smooth
from doorward.certification.smoothing.noise import Noise
from doorward.certification.smoothing.radius import Block, Number
from doorward.certification.smoothing.task import SmoothingTask, cells_of
from doorward.core import methods
from doorward.core.arguments import check_images
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.progress import Progress
from doorward.jobs.tasks import EngineName


def certify(
    train: ImageSet,
    test: ImageSet,
    learner: str | Learner = "two-layer",
    *,
    settings: dict[str, Any] | None = None,
    keep: Number = 0.9,
    keep_labels: Number | None = None,
    keep_test: Number | None = None,
    trials: int = 10_000,
    alpha: Number = Fraction(1, 1000),
    seed: int = 0,
    binarise: int | None = 128,
    store: Path | str | None = None,
    trial_votes: Path | str | None = None,
    workers: int = 1,
    engine: EngineName = "local",
    device: str = "auto",
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> Certificate:
    """Prove how many changed pixels and labels the training procedure withstands, for each test image.

    Wang, Cao, Jia and Gong 2020, with the votes decided in integers; or a deterministic method of the same threat
    model: the attacker changes training pixels, training labels and pixels of the test image, r cells in all.

    Args:
        train: the training set, as the attacker may have left it.
        test: images to certify; their labels are used for scoring alone.
        learner: what is trained on noisy copies (``two-layer``, ...), or a deterministic method
            (``nearest-neighbours``, ``mean-distance``), which uses no noise, trials, alpha or seed.
        settings: of the learner or method.
        keep: beta for training pixels, and for labels and test pixels unless ``keep_labels`` and ``keep_test`` differ;
            rounded to a multiple of 2^-32, which is the noise that is drawn and certified.
        trials: N; alpha: admitted failure probability, per image and for all images jointly.
        seed: of the noise; the attacker must not know it.
        binarise: an 8-bit pixel of this value or more is 1; None keeps all 256 values (flip smoothing only).
        store, trial_votes, workers, engine, device, progress, watch: see
            `doorward.certification.smoothing.montecarlo.smooth`; the certificate binds the file ``trial_votes``.

    Raises:
        DoorwardError: sets that do not fit each other, numbers out of range, an unknown learner.
    """
    check_images("certify", "train", train)
    check_images("certify", "test", test)
    check_pair(train, test)
    if binarise is not None and not 0 < binarise < 256:
        raise DoorwardError(f"certify: binarise = {binarise}; expected a threshold of 1 to 255")
    if isinstance(learner, str) and "noise" not in methods.get("certify", learner).given:
        return _deterministic(train, test, learner, settings, binarise)
    check_level(alpha)  # before the trials, not after them
    chosen = Learner.named(learner, settings) if isinstance(learner, str) else learner
    noise = Noise.of(
        _number(keep),
        classes=len(train.classes),
        domain=256 if binarise is None else 2,
        keep_labels=None if keep_labels is None else _number(keep_labels),
        keep_test=None if keep_test is None else _number(keep_test),
    )
    task = SmoothingTask(
        cells_of(train, binarise), train.labels, cells_of(test, binarise), len(train.classes), noise, train.shape
    )
    running: dict[str, Any] = {
        "store": store,
        "trial_votes": trial_votes,
        "workers": workers,
        "engine": engine,
        "device": device,
    }
    votes = smooth(task, chosen, trials, seed, progress=progress, watch=watch, **running)
    about = {"seed": seed, "binarise": binarise, "device": resolve_device(device)}
    return _certificate(train, test, task, chosen, votes, alpha, about)


def _certificate(
    train: ImageSet,
    test: ImageSet,
    task: SmoothingTask,
    learner: Learner,
    votes: Votes,
    alpha: Number,
    settings: dict[str, Any],
) -> Certificate:
    """What the votes prove."""
    about = {"learner": learner.name, "learner_settings": learner.settings.model_dump(mode="json")}
    return certificate_from_votes(
        votes.counts,
        trials=votes.trials,
        blocks=noise_blocks(task.noise, task),
        classes=train.classes,
        train_sha256=train.hash,
        test_sha256=test.hash,
        alpha=alpha,
        truth=test.labels,
        settings={**about, **settings, "task_sha256": task.hash},
        trial_votes=votes.trial_votes,
    )


def noise_blocks(noise: Noise, task: SmoothingTask) -> tuple[Block, ...]:
    """Noise and number of cells of the three blocks: training pixels, training labels, test pixels."""
    cells = (task.images.size, len(task.labels), task.tests.shape[1])
    drawn = (noise.train, noise.labels, noise.test)
    return tuple(Block(name, f.keep, f.domain, n) for name, f, n in zip(BLOCKS, drawn, cells, strict=True))


def _number(value: Number) -> Fraction | str:
    return value if isinstance(value, Fraction) else str(value)


def _deterministic(
    train: ImageSet, test: ImageSet, name: str, settings: dict[str, Any] | None, binarise: int | None
) -> Certificate:
    if binarise is None:
        raise DoorwardError(f"certify {name}: pixels of 256 values; expected a binarisation threshold")
    found = methods.get("certify", name)
    chosen = found.configure(settings)
    proof: Proof = found.function(
        cells_of(train, binarise), train.labels, cells_of(test, binarise), len(train.classes), train.shape, chosen
    )
    return Certificate(
        method=name,
        classes=train.classes,
        train_sha256=train.hash,
        test_sha256=test.hash,
        predicted=proof.predicted,
        radii=proof.radii,
        joint_radii=proof.radii,
        votes=np.zeros((len(test), 0), dtype=np.int64),
        truth=test.labels,
        settings={**chosen.model_dump(mode="json"), "binarise": binarise, "shape": list(train.shape)},
        evidence=proof.evidence,
    )


def check_pair(train: ImageSet, test: ImageSet) -> None:
    """Refuse a training and a test set that do not belong together, or training images of one class."""
    if train.classes != test.classes:
        raise DoorwardError(f"{test.name}: classes {list(test.classes)}; expected {list(train.classes)}")
    if train.shape != test.shape:
        raise DoorwardError(f"{test.name}: images of shape {test.shape}; expected {train.shape}, as in training")
    if np.count_nonzero(train.counts()) < 2:
        raise DoorwardError(f"{train.name}: images of one class; expected training images of at least two")
