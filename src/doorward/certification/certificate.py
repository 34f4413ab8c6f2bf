"""`Certificate`: what was proved about each test image, and everything a checker needs to prove it again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doorward.certification.smoothing.radius import Block, Number, Split, maximal_splits, rational, split_threshold
from doorward.certification.smoothing.votes import ABSTAIN, check_alpha, check_trials, vote_table, votes_above_any
from doorward.core.errors import DoorwardError
from doorward.core.files import write_json
from doorward.core.opening import read_json
from doorward.core.stats import Rate

FORMAT = "doorward-certificate-1"
MOST_BYTES = 128 << 20  # of a certificate; `doorward.verifier` reads no larger one
_DIGITS = 100  # of the numbers of a rational
SMOOTHING = "flip-smoothing"
BLOCKS = ("training pixels", "training labels", "test pixels")
BESIDE = ("binarise", "shape", "draw")  # in the settings of a deterministic method, but none of its own

Labels = NDArray[np.int64]
Withstands = Callable[[dict[str, Any], int, Split], bool]


@dataclass(frozen=True, eq=False)
class Certificate:
    """Certified labels and radii of M test images.

    Args:
        method: ``flip-smoothing``, or the name of a deterministic method.
        classes: K class names.
        train_sha256, test_sha256: `ImageSet.hash` of the data that it is about.
        predicted: int64 ``[M]``; `ABSTAIN` where the label itself is not certain.
        radii: int64 ``[M]``: cells (training pixels, training labels and pixels of the test image, together) whose
            change cannot change the label; `ABSTAIN` where ``predicted`` is. Each holds with probability 1 - alpha.
        joint_radii: as ``radii``, but all M statements hold together with probability 1 - alpha.
        blocks: the noise; empty for a deterministic method.
        trials: N, votes per image; 0 for a deterministic method.
        votes: int64 ``[M, K]``; ``[M, 0]`` for a deterministic method.
        alpha: probability of a false statement; 0 for a deterministic method.
        truth: int64 ``[M]`` true labels, for scoring alone, or None.
        settings: what else repeats it (learner, seed, ...); plain JSON values.
        evidence: integers from which the radii of a deterministic method follow; plain JSON values.
        trial_votes: SHA-256 of the file of what each trial voted, or None where none was kept.
    """

    method: str
    classes: tuple[str, ...]
    train_sha256: str
    test_sha256: str
    predicted: Labels
    radii: Labels
    joint_radii: Labels
    blocks: tuple[Block, ...] = ()
    trials: int = 0
    votes: Labels = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int64))
    alpha: Fraction = Fraction(0)
    truth: Labels | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    evidence: dict[str, Any] = field(default_factory=dict)
    trial_votes: str | None = None

    def __len__(self) -> int:
        return len(self.predicted)

    def __repr__(self) -> str:
        told = f"Certificate by {self.method}: {len(self):,} test images, {len(self.classes)} classes"
        if self.trials:
            told += f", {self.trials:,} trials, alpha {float(self.alpha):g}"
        if self.truth is not None:
            curve = [f"{100 * self.certified_accuracy(r).value:.1f} % at {r}" for r in (0, 1, 2, 4, 8)]
            told += f"; certified accuracy {', '.join(curve)}"
        return told

    def _truth(self) -> Labels:
        if self.truth is None:
            raise DoorwardError("certificate: holds no true labels; expected them, to say how many labels are right")
        return self.truth

    def certified_accuracy(self, radius: int, joint: bool = False) -> Rate:
        """Images labelled rightly and certified to ``radius`` at least; an abstention is never right.

        Args:
            joint: use the radii that hold together instead of those that hold one by one.
        """
        radii = self.joint_radii if joint else self.radii
        right = (self.predicted == self._truth()) & (radii >= max(0, radius))  # ABSTAIN is below 0
        return Rate(int(right.sum()), len(self))

    def clean_accuracy(self) -> Rate:
        """Images labelled rightly when nothing is attacked: certified accuracy at radius 0."""
        return self.certified_accuracy(0)

    def abstained(self, joint: bool = False) -> int:
        """Images without a label."""
        return int(((self.joint_radii if joint else self.radii) == ABSTAIN).sum())

    def curve(self, joint: bool = False) -> list[Rate]:
        """Certified accuracy at the radii 0, 1, ... up to the largest that any image has."""
        radii = self.joint_radii if joint else self.radii
        return [self.certified_accuracy(r, joint) for r in range(int(radii.max(initial=0)) + 1)]

    def region(self, image: int, most: int = 64) -> tuple[Split, ...]:
        """The largest attacks on one image that are certified, as (training pixels, training labels, test pixels).

        Returns:
            Pareto-maximal triples; every attack nowhere larger than one of them is certified. No part exceeds
            ``most``. For flip smoothing all triples hold together at 1 - alpha; for the others, surely.
        """
        if self.radii[image] == ABSTAIN:
            return ()
        if self.method != SMOOTHING:
            withstands = _withstands(self.method)
            # Labels and test pixels first: training pixels are the cheap ones and run far.
            found = maximal_splits(lambda s: withstands(self.evidence, image, (s[2], s[0], s[1])), (most,) * 3)
            return tuple(sorted((pixels, labels, test) for labels, test, pixels in found))
        votes = int(self.votes[image].max())
        limits = [most if b.cells is None else min(b.cells, most) for b in self.blocks]

        def holds(split: Split) -> bool:
            needed = votes_above_any(self.trials, split_threshold(split, self.blocks), self.alpha)
            return needed is not None and votes >= needed

        return maximal_splits(holds, limits)

    def json(self) -> dict[str, Any]:
        """Plain values; rationals as "numerator/denominator"; with a SHA-256 over all of it."""
        content: dict[str, Any] = {
            "format": FORMAT,
            "method": self.method,
            "classes": list(self.classes),
            "data": {"train_sha256": self.train_sha256, "test_sha256": self.test_sha256},
            "noise": [
                {"name": b.name, "keep": _text(b.keep), "domain": b.domain, "cells": b.cells} for b in self.blocks
            ],
            "trials": self.trials,
            "alpha": _text(self.alpha),
            "votes": self.votes.tolist(),
            "predicted": self.predicted.tolist(),
            "radii": self.radii.tolist(),
            "joint_radii": self.joint_radii.tolist(),
            "truth": None if self.truth is None else self.truth.tolist(),
            "settings": self.settings,
            "evidence": self.evidence,
        }
        if self.trial_votes is not None:
            content["trial_votes"] = {"sha256": self.trial_votes}
        return {**content, "sha256": content_hash(content)}

    def save(self, path: Path | str) -> None:
        """Write ``certificate.json``; the file is whole or absent."""
        write_json(path, self.json())

    @classmethod
    def load(cls, path: Path | str) -> Certificate:
        """Read a certificate as it stands; `doorward.verifier.verify` tells whether it is true.

        Raises:
            DoorwardError: not a certificate, or one whose content does not fit its hash.
        """
        content = read_json(path, most=MOST_BYTES)
        if content.get("format") != FORMAT:
            raise DoorwardError(f"{path}: format {content.get('format')!r}; expected {FORMAT!r}")
        if content.pop("sha256", None) != content_hash(content):
            raise DoorwardError(f"{path}: its content does not fit its hash; expected an unchanged certificate")
        try:
            return cls._from(content)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DoorwardError(f"{path}: not a complete certificate ({error!r})") from None

    @classmethod
    def _from(cls, c: dict[str, Any]) -> Certificate:
        images = len(c["predicted"])
        votes = np.array(c["votes"], dtype=np.int64)
        return cls(
            method=str(c["method"]),
            classes=tuple(map(str, c["classes"])),
            train_sha256=str(c["data"]["train_sha256"]),
            test_sha256=str(c["data"]["test_sha256"]),
            predicted=np.array(c["predicted"], dtype=np.int64),
            radii=np.array(c["radii"], dtype=np.int64),
            joint_radii=np.array(c["joint_radii"], dtype=np.int64),
            blocks=tuple(Block(b["name"], _rational(b["keep"]), int(b["domain"]), b["cells"]) for b in c["noise"]),
            trials=int(c["trials"]),
            votes=votes if votes.size else np.zeros((images, 0), dtype=np.int64),
            alpha=_rational(c["alpha"]),
            truth=None if c["truth"] is None else np.array(c["truth"], dtype=np.int64),
            settings=dict(c["settings"]),
            evidence=dict(c["evidence"]),
            trial_votes=str(c["trial_votes"]["sha256"]) if "trial_votes" in c else None,
        )


def _text(value: Fraction) -> str:
    return f"{value.numerator}/{value.denominator}"


def _rational(text: str) -> Fraction:
    """What `_text` wrote; an exponent or a thousand digits would take for ever to become a rational."""
    above, below = text.split("/")
    if not (above.isdecimal() and below.isdecimal() and len(text) <= 2 * _DIGITS + 1 and int(below)):
        raise ValueError(f"rational {text[:40]!r}")
    return Fraction(int(above), int(below))


def check_level(alpha: Number) -> Fraction:
    """alpha as a rational, refused where it guarantees nothing or takes more digits than a certificate may hold."""
    level = rational(alpha, "alpha")
    check_alpha(level)
    if max(len(str(level.numerator)), len(str(level.denominator))) > _DIGITS:
        raise DoorwardError(f"alpha {float(level):g}; expected a rational of at most {_DIGITS} digits")
    return level


def content_hash(content: dict[str, Any]) -> str:
    """SHA-256 of canonical JSON: sorted keys, no spaces."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _withstands(method: str) -> Withstands:
    from doorward.certification.exact.methods.mean_distance import withstands as mean_distance
    from doorward.certification.exact.methods.nearest_neighbours import withstands as nearest_neighbours

    known: dict[str, Withstands] = {"nearest-neighbours": nearest_neighbours, "mean-distance": mean_distance}
    if method not in known:
        raise DoorwardError(f"method {method!r}; expected {SMOOTHING} or one of {', '.join(known)}")
    return known[method]


def radii_of_votes(votes: Labels, needed: Sequence[int]) -> Labels:
    """Radius per image ``[M]`` from votes ``[M, K]`` and the votes needed for the radii 0, 1, 2, ... (`vote_table`)."""
    return np.asarray(
        np.searchsorted(np.array(needed, dtype=np.int64), votes.max(axis=1), side="right") - 1, dtype=np.int64
    )


def certificate_from_votes(
    votes: Labels,
    *,
    trials: int,
    blocks: Sequence[Block],
    classes: Sequence[str],
    train_sha256: str,
    test_sha256: str,
    alpha: Number = Fraction(1, 1000),
    truth: Labels | None = None,
    settings: dict[str, Any] | None = None,
    trial_votes: str | None = None,
) -> Certificate:
    """The certificate of flip smoothing that follows from the votes.

    Args:
        votes: int ``[M, K]``: of ``trials`` noisy trials, how many gave image i the label k. A row may sum to less
            than ``trials``, when the learner abstained in some.
        trials: N, independent trials of (noise on training set and test image, seeds of the learner).
        blocks: noise and number of cells: training pixels, training labels, test pixels.
        alpha: admitted failure probability. Per image it is alpha; for the joint statement each of the M images gets
            alpha / M (Bonferroni: it asks for no independence, and the images share their noisy training sets).
        truth: true labels ``[M]``, for scoring alone.
        trial_votes: SHA-256 of the file of what each trial voted, to bind it.

    Raises:
        DoorwardError: votes that no such trials can give, noise that certifies nothing.
    """
    level = check_level(alpha)
    check_trials(trials)
    if votes.ndim != 2 or votes.shape[1] < 2 or len(votes) == 0:
        raise DoorwardError(f"votes of shape {list(votes.shape)}; expected [images, classes] with at least two classes")
    if votes.shape[1] != len(classes):
        raise DoorwardError(f"votes for {votes.shape[1]} classes; expected {len(classes)}, one column per class")
    if votes.min() < 0 or votes.sum(axis=1).max() > trials:
        raise DoorwardError(f"votes that do not fit {trials} trials; expected 0 to {trials} in all per image")
    counts = votes.astype(np.int64)
    radii = radii_of_votes(counts, vote_table(trials, blocks, level))
    joint = radii_of_votes(counts, vote_table(trials, blocks, level / len(votes)))
    return Certificate(
        method=SMOOTHING,
        classes=tuple(classes),
        train_sha256=train_sha256,
        test_sha256=test_sha256,
        predicted=np.where(radii == ABSTAIN, ABSTAIN, counts.argmax(axis=1)),
        radii=radii,
        joint_radii=joint,
        blocks=tuple(blocks),
        trials=trials,
        votes=counts,
        alpha=level,
        truth=truth,
        settings=dict(settings or {}),
        trial_votes=trial_votes,
    )
