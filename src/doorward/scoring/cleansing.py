"""Scoring: how well a cleanse run found what was there. The only place where the truth is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doorward.attacks.files import load_attack, load_truth
from doorward.attacks.plan import Attack
from doorward.attacks.poison import Truth
from doorward.attacks.rate import asr
from doorward.cleansers.results import Cleansing
from doorward.core.classifier import measure_accuracy, pick_device
from doorward.core.errors import DoorwardError
from doorward.core.files import write_json
from doorward.core.images import ImageSet
from doorward.core.runs import Run
from doorward.core.stats import Rate
from doorward.models.files import load_classifier
from doorward.scoring.repairs import unseen

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Detection:
    """Rates of one method against the truth.

    Args:
        tpr: poisoned images that were flagged.
        fpr: clean images of all classes that were flagged.
        fpr_target: clean images of the target class that were flagged.
        precision: flagged images that are poisoned.
        auroc: area under the ROC curve of the score; None when all or no images are poisoned.
    """

    tpr: Rate
    fpr: Rate
    fpr_target: Rate
    precision: Rate
    auroc: float | None

    def json(self) -> dict[str, Any]:
        """As plain values."""
        return {k: v.json() if isinstance(v, Rate) else v for k, v in vars(self).items()}


def detection(flag: Flags, score: NDArray[np.float32], poisoned: Flags, in_target_class: Flags) -> Detection:
    """Score flags ``[N]`` and scores ``[N]`` against the truth ``[N]``."""

    def rate(hits: Flags, among: Flags) -> Rate:
        return Rate(int((hits & among).sum()), int(among.sum()))

    area = None
    if poisoned.any() and not poisoned.all():
        from sklearn.metrics import roc_auc_score

        area = float(roc_auc_score(poisoned, score))
    return Detection(
        tpr=rate(flag, poisoned),
        fpr=rate(flag, ~poisoned),
        fpr_target=rate(flag, ~poisoned & in_target_class),
        precision=rate(poisoned, flag),
        auroc=area,
    )


def target_classes(attack: Attack, truth: Truth, labels: NDArray[np.int64]) -> list[int]:
    """The classes into which the attack put images."""
    named = {p.target for p in attack.pairings if p.target is not None}
    return sorted(named | set(np.unique(labels[truth.poisoned]).tolist()))


def score_cleansing(
    run: Path,
    truth_file: Path | None,
    *,
    test: ImageSet | None = None,
    models: Sequence[tuple[str, Path]] = (),
    seed: int = 0,
    device: str = "auto",
) -> dict[str, Any]:
    """Score a cleanse run, write ``score.json`` into it and return it.

    Args:
        run: a finished cleanse run.
        truth_file: ``truth.parquet`` of the attack; ``attack/`` lies beside it. None for a clean control, in which
            every flagged image is a false positive.
        test: held-out clean images for clean accuracy and attack success rate.
        models: (name, folder) of the classifiers to measure on them; where one is a repair's that worked on these very
            images, all are measured on those that it held out.
    """
    looked = Cleansing.load(run)
    record, samples, labels = looked.record, looked.samples, looked.samples.label
    if models and test is None:
        raise DoorwardError("score: models need test images; expected --test SOURCE")
    poisoned, attack, targets = _truth(truth_file, labels, record.images.sha256)
    inside = np.isin(labels, targets)
    found = {
        name: detection(samples.flags[name], samples.scores[name], poisoned, inside).json() for name in record.methods
    }
    if test is not None:
        test = _unseen_by_all([folder for _, folder in models], test)
    score = {
        "attack": attack
        and {
            "recipe": attack.recipe,
            "description": attack.describe(record.images.classes),
            "poisoned": int(poisoned.sum()),
            "targets": targets,
        },
        "methods": found,
        "models": [_measure(name, folder, test, attack, seed, device) for name, folder in models if test is not None],
    }
    write_json(run / "score.json", score)
    return score


def _unseen_by_all(folders: Sequence[Path], test: ImageSet) -> ImageSet:
    """One set for all models, so that they compare: what a repair that worked on these very images held out, or all."""
    made = [Run.read(folder) for folder in folders if (folder / "run.json").exists()]
    parts = [unseen(run, test) for run in made if run["verb"] == "repair"]
    apart = {part.hash: part for part in parts if part is not test}
    if len(apart) > 1:
        raise DoorwardError("score: repairs that held out other images of the test set; expected one of them at a time")
    return next(iter(apart.values()), test)


def _truth(file: Path | None, labels: NDArray[np.int64], sha256: str) -> tuple[Flags, Attack | None, list[int]]:
    """Who is poisoned ``[N]``, the attack, its target classes; nobody, none, none for a clean control.

    Args:
        sha256: of the images that the run looked at, which are those of the attack where that left its record.
    """
    if file is None:
        return np.zeros(len(labels), bool), None, []
    truth, attack = load_truth(file), load_attack(file.parent / "attack")
    if len(labels) != len(truth.poisoned):
        told = f"{len(truth.poisoned)} images, the run looked at {len(labels)}"
        raise DoorwardError(f"{file}: holds the truth about {told}; expected the truth of the same set")
    if (file.parent / "run.json").exists() and Run.read(file.parent, "attack")["results"]["sha256"] != sha256:
        told = f"as many images as the run looked at ({len(labels)}), but others"
        raise DoorwardError(f"{file}: holds the truth about {told}; expected the truth of the same set")
    return truth.poisoned, attack, target_classes(attack, truth, labels)


def _measure(name: str, folder: Path, test: ImageSet, attack: Attack | None, seed: int, device: str) -> dict[str, Any]:
    classifier = load_classifier(folder, pick_device(device))
    if (classifier.shape, classifier.classes) != (test.shape, test.classes):
        raise DoorwardError(f"{folder}: takes other images or classes than {test.name}")
    clean = measure_accuracy(classifier, test)
    success = Rate(0, 0) if attack is None else asr(classifier, test, attack, seed=seed)
    return {"name": name, "clean_accuracy": clean.json(), "asr": success.json()}
