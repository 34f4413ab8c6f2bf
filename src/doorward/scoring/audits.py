"""Scoring: how well an audit found what was there, and whether the net that it trained without it is free of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from doorward.audits.results import MODEL, Audit
from doorward.core.classifier import Classifier, pick_device
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.models.files import load_classifier
from doorward.models.open.architectures import Named
from doorward.scoring.cleansing import check_test, detection, score_models
from doorward.scoring.results import ScoreRecord
from doorward.scoring.truth import read_truth

METHOD = "audit"  # name of the suspects in the score; its model has it too


def score_audit(
    run: Path,
    truth_file: Path | None,
    *,
    test: ImageSet | None = None,
    models: Sequence[tuple[str, Path | Classifier]] = (),
    seed: int = 0,
    device: str = "auto",
    arch: Named | None = None,
) -> ScoreRecord:
    """Score an audit of a training set, write ``score.json`` into it and return it.

    Args:
        run: a finished audit run.
        truth_file: see `read_truth`; attack success is measured where ``attack/`` lies beside it. None for a clean
            control, in which every suspect is a false positive.
        test: held-out clean images for clean accuracy and attack success rate of the run's ``model/``.
        models: (name, folder or classifier) of what to measure on them beside it.
        arch: for a net of the run from the user's own file: that file's factory again.

    Raises:
        DoorwardError: an audit of a model alone, the truth of another set, or models without test images.
    """
    found = Audit.load(run)
    record, samples = found.facts, found.samples
    if samples is None or record.images is None:
        raise DoorwardError(f"{run}: a model alone was audited; expected the audit of a training set")
    check_test(models, test)
    known = read_truth(truth_file, samples, record.images)
    inside = np.isin(samples.label, known.targets)
    own: list[tuple[str, Path | Classifier]] = []
    if test is not None and (run / MODEL).is_dir():
        own.append((METHOD, load_classifier(run / MODEL, pick_device(device), arch=arch)))
    score = ScoreRecord(
        attack=known.facts(record.images.classes),
        methods={METHOD: detection(samples.suspect, samples.score, known.poisoned, inside)},
        models=score_models([*own, *models], test, known.attack, seed=seed, device=device),
    )
    score.write(run)
    return score
