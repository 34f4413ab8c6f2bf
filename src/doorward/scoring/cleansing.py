"""Scoring: how well a cleanse run found what was there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from doorward.attacks.plan import Attack
from doorward.cleansers.results import Cleansing
from doorward.core.classifier import Classifier, pick_device
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.results import RateRecord
from doorward.core.runs import Run
from doorward.core.stats import Rate
from doorward.models.files import load_classifier
from doorward.scoring.repairs import fitted, score_arms, unseen
from doorward.scoring.results import MethodScore, ModelScore, ScoreRecord
from doorward.scoring.truth import read_truth

Flags = NDArray[np.bool_]


def detection(flag: Flags, score: NDArray[np.float32], poisoned: Flags, in_target_class: Flags) -> MethodScore:
    """Score flags ``[N]`` and scores ``[N]`` against the truth ``[N]``."""

    def rate(hits: Flags, among: Flags) -> RateRecord:
        return RateRecord.of(Rate(int((hits & among).sum()), int(among.sum())))

    area = None
    if poisoned.any() and not poisoned.all():
        from sklearn.metrics import roc_auc_score

        area = float(roc_auc_score(poisoned, score))
    return MethodScore(
        tpr=rate(flag, poisoned),
        fpr=rate(flag, ~poisoned),
        fpr_target=rate(flag, ~poisoned & in_target_class),
        precision=rate(poisoned, flag),
        auroc=area,
    )


def score_cleansing(
    run: Path,
    truth_file: Path | None,
    *,
    test: ImageSet | None = None,
    models: Sequence[tuple[str, Path | Classifier]] = (),
    seed: int = 0,
    device: str = "auto",
) -> ScoreRecord:
    """Score a cleanse run, write ``score.json`` into it and return it.

    Args:
        run: a finished cleanse run.
        truth_file: see `read_truth`; attack success is measured where ``attack/`` lies beside it. None for a clean
            control, in which every flagged image is a false positive.
        test: held-out clean images for clean accuracy and attack success rate.
        models: (name, folder or classifier) of what to measure on them; where one is a repair's that worked on these
            very images, all are measured on those that it held out.
    """
    looked = Cleansing.load(run)
    record, samples = looked.record, looked.samples
    check_test(models, test)
    known = read_truth(truth_file, samples, record.images)
    inside = np.isin(samples.label, known.targets)
    score = ScoreRecord(
        attack=known.facts(record.images.classes),
        methods={
            name: detection(samples.flags[name], samples.scores[name], known.poisoned, inside)
            for name in record.methods
        },
        models=score_models(models, test, known.attack, seed=seed, device=device),
    )
    score.write(run)
    return score


def check_test(models: Sequence[tuple[str, Path | Classifier]], test: ImageSet | None) -> None:
    """Refuse models that there is nothing to measure on."""
    if models and test is None:
        raise DoorwardError("score: models need test images; expected --test SOURCE")


def score_models(
    models: Sequence[tuple[str, Path | Classifier]],
    test: ImageSet | None,
    attack: Attack | None,
    *,
    seed: int = 0,
    device: str = "auto",
) -> tuple[ModelScore, ...]:
    """Accuracy and attack success of models beside a run, all on the same images; none without test images."""
    if test is None or not models:
        return ()
    opened = {name: _opened(model, device) for name, model in models}
    test = fitted(test, next(iter(opened.values())))
    test = _unseen_by_all([model for _, model in models if isinstance(model, Path)], test)
    return score_arms(opened, test, attack, seed=seed)


def _unseen_by_all(folders: Sequence[Path], test: ImageSet) -> ImageSet:
    """One set for all models, so that they compare: what a repair that worked on these very images held out, or all."""
    made = [Run.read(folder) for folder in folders if (folder / "run.json").exists()]
    parts = [unseen(run, test) for run in made if run["verb"] == "repair"]
    apart = {part.hash: part for part in parts if part is not test}
    if len(apart) > 1:
        raise DoorwardError("score: repairs that held out other images of the test set; expected one of them at a time")
    return next(iter(apart.values()), test)


def _opened(model: Path | Classifier, device: str) -> Classifier:
    return model if isinstance(model, Classifier) else load_classifier(model, pick_device(device))
