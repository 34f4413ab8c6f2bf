"""A certificate beside its data: what `doorward.verifier` cannot know alone, computed again, and trials replayed.

A replay trains what the certificate names, with its settings: nothing in the file is executed, but it may ask for a
learner that takes hours. It can be stopped at any time.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doorward.certification.certificate import BESIDE, SMOOTHING, Certificate
from doorward.certification.certify import certify, check_pair, noise_blocks
from doorward.certification.smoothing.montecarlo import Learner, predictions, resolve_device
from doorward.certification.smoothing.noise import FlipNoise, Noise
from doorward.certification.smoothing.task import SmoothingTask, cells_of
from doorward.certification.smoothing.trial_votes import NAME, read_trial_votes
from doorward.core.errors import DoorwardError, show
from doorward.core.images import ImageSet
from doorward.core.progress import Progress
from doorward.verifier import verify

SHOWN_SHARES = (Fraction(1, 100), Fraction(1, 10), Fraction(1, 4), Fraction(1, 2))


@dataclass(frozen=True)
class Recheck:
    """What a certificate and its data came to.

    Args:
        problems: in one line each; none when all agrees.
        compared: what was compared, in words.
        replayed: trials that were trained again, by their number; ``of`` trials in all.
        seed: that chose them; give it to replay the same ones.
        device: that they ran on.
        caught: by the share of false trials: probability that so large a replay meets one of them.
    """

    problems: tuple[str, ...]
    compared: tuple[str, ...]
    replayed: tuple[int, ...] = ()
    of: int = 0
    seed: int | None = None
    device: str = ""
    caught: dict[str, float] = field(default_factory=dict)


def caught(share: Fraction, replayed: int) -> float:
    """Probability that a replay of so many random trials meets a false one, where a share of them is: 1 - (1-f)^k."""
    return float(1 - (1 - share) ** replayed)


def recheck(
    path: Path | str,
    train: ImageSet,
    test: ImageSet,
    *,
    replay: int = 0,
    trial_votes: Path | str | None = None,
    seed: int | None = None,
    learner: Learner | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Recheck:
    """Compare a certificate with the data it is about, once `doorward.verifier.verify` has found it valid.

    Hashes, classes, true labels, sizes and the noisy task; of a deterministic method the whole evidence is computed
    again. ``replay`` trains that many Monte Carlo trials again and compares what they vote, bit by bit.

    Args:
        replay: trials to train again, chosen at random.
        trial_votes: what each trial voted; beside the certificate when not given.
        seed: chooses the trials; a fresh random one when not given, which nobody could foresee.
        learner: a learner of your own, where no registered one made the certificate.
        device: as for `certify`; ``auto`` takes what the certificate names, where it is there.

    Raises:
        DoorwardError: a replay without the file of trial votes, sets that do not belong together, an unknown learner.
    """
    verified = verify(path)
    if not verified.valid:
        return Recheck(verified.problems, ("the file alone",))
    certificate = Certificate.load(path)
    problems = list(_about_other_data(certificate, train, test))
    if problems:
        return Recheck(tuple(problems), ("hashes, classes and true labels",))
    check_pair(train, test)
    if certificate.method != SMOOTHING:
        if replay:
            raise DoorwardError(
                f"{show(path)}: {certificate.method} has no trials to replay; expected a certificate of {SMOOTHING}"
            )
        return Recheck(tuple(_other_proof(certificate, train, test)), (*_COMPARED, "the whole evidence"))
    task = _task(certificate, train, test)
    compared = (*_COMPARED, "the noisy task")
    problems = list(_other_task(certificate, task))
    if problems or not replay:
        return Recheck(tuple(problems), compared)
    file = Path(path).with_name(NAME) if trial_votes is None else Path(trial_votes)
    return _replay(certificate, task, file, replay, seed, learner, device, compared, progress)


_COMPARED = ("hashes, classes and true labels", "sizes and settings")


def _about_other_data(c: Certificate, train: ImageSet, test: ImageSet) -> Iterator[str]:
    for name, said, images in (("train", c.train_sha256, train), ("test", c.test_sha256, test)):
        if said != images.hash:
            yield f"{name}_sha256 is not that of the data given: {images.name} has {images.hash}"
        if c.classes != images.classes:
            yield f"classes are not those of {images.name}"
    if c.truth is not None and not np.array_equal(c.truth, test.labels):
        yield f"true labels are not those of {test.name}"
    if len(c) != len(test):
        yield f"{len(c)} images; {test.name} has {len(test)}"


def _other_proof(c: Certificate, train: ImageSet, test: ImageSet) -> Iterator[str]:
    """A deterministic method again, from the images."""
    settings = {k: v for k, v in c.settings.items() if k not in BESIDE}
    again = certify(train, test, c.method, settings=settings, binarise=_binarise(c))
    if list(c.settings.get("shape", [])) != list(train.shape):
        yield f"settings.shape is not that of the images: {list(train.shape)}"
    for name in ("predicted", "radii", "joint_radii"):
        if not np.array_equal(getattr(c, name), getattr(again, name)):
            yield f"{name}: not what {c.method} gives on these images"
    for name, value in again.evidence.items():
        if c.evidence.get(name) != value:
            yield f"evidence {name}: not what {c.method} gives on these images"


def _binarise(c: Certificate) -> int | None:
    if "binarise" not in c.settings:
        raise DoorwardError("certificate: says no binarisation threshold; expected settings.binarise, to see its cells")
    value = c.settings["binarise"]
    return None if value is None else int(value)


def _task(c: Certificate, train: ImageSet, test: ImageSet) -> SmoothingTask:
    """The noisy task that the certificate is about; its noise must be one that can be drawn."""
    pixels, labels, shown = (FlipNoise(b.keep, b.domain) for b in c.blocks)
    cells = cells_of(train, _binarise(c)), train.labels, cells_of(test, _binarise(c))
    return SmoothingTask(*cells, len(train.classes), Noise(pixels, labels, shown), train.shape)


def _other_task(c: Certificate, task: SmoothingTask) -> Iterator[str]:
    for said, true in zip(c.blocks, noise_blocks(task.noise, task), strict=True):
        if said.cells is not None and said.cells != true.cells:
            yield f"{said.name}: {said.cells} cells; these images have {true.cells}"
    if c.settings.get("task_sha256", task.hash) != task.hash:
        yield "settings.task_sha256 is not that of these images under this noise"


def _replay(
    c: Certificate,
    task: SmoothingTask,
    file: Path,
    replay: int,
    seed: int | None,
    learner: Learner | None,
    device: str,
    compared: tuple[str, ...],
    progress: Progress | None,
) -> Recheck:
    if c.trial_votes is None:
        raise DoorwardError(
            "certificate: binds no file of what each trial voted; expected one of doorward 0.2, to replay trials"
        )
    if "seed" not in c.settings or replay < 1:
        raise DoorwardError(f"replay of {replay} trials; expected 1 or more, of a certificate that says its seed")
    chosen = secrets.randbits(63) if seed is None else seed
    count = min(replay, c.trials)
    drawn = sorted(map(int, np.random.default_rng(chosen).choice(c.trials, count, replace=False)))
    sizes = {"trials": c.trials, "images": len(c), "classes": len(c.classes)}
    known = read_trial_votes(file, c.trial_votes, **sizes, wanted=drawn)
    wrong = np.flatnonzero((known.counts != c.votes).any(axis=1))
    problems = []
    if len(wrong):
        problems.append(f"votes: {len(wrong)} images have others than their trials add up to, first image {wrong[0]}")
    made_on, place = str(c.settings.get("device", "cpu")), device
    if device == "auto":
        place = _where(made_on)
    who = learner or _named(c)
    for number, trial in enumerate(drawn, 1):
        again = np.concatenate(list(predictions(task, who, int(c.settings["seed"]), trial, trial + 1, place)))[0]
        problems += _compared_rows(trial, known.rows[trial], again, place, made_on)
        if progress:
            progress("replay", number, count, f"trial {trial}")
    told = (*compared, "votes with the sum over all trials", "replayed trials, bit by bit")
    shares = {f"{float(share):g}": caught(share, count) for share in SHOWN_SHARES}
    return Recheck(tuple(problems), told, tuple(drawn), c.trials, chosen, place, shares)


def _where(made_on: str) -> str:
    """The kind of device that the certificate names, where this machine has it."""
    here = resolve_device("auto")
    return here if made_on.partition(":")[0] == here else "cpu"


def _named(c: Certificate) -> Learner:
    values: Any = c.settings.get("learner_settings", {})
    return Learner.named(str(c.settings.get("learner")), values)


def _compared_rows(
    trial: int, said: NDArray[np.uint8], again: NDArray[np.uint8], device: str, made_on: str
) -> Iterator[str]:
    other = np.flatnonzero(said != again)
    if len(other):
        told = f"trial {trial}: {len(other)} of {len(said)} votes are not what it gives, first image {other[0]}"
        yield f"{told} (made on {show(made_on)}, replayed on {device}; others may round float training differently)"
