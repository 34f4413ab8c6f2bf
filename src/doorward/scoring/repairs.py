"""Repairs against the truth: true attack success and clean test accuracy of every arm. For scoring alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from doorward.attacks.files import load_truth
from doorward.attacks.plan import Attack
from doorward.attacks.rate import asr
from doorward.core.classifier import Classifier, measure_accuracy, pick_device
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.results import RateRecord
from doorward.core.runs import Run
from doorward.core.stats import Rate
from doorward.models.files import load_classifier
from doorward.models.open.architectures import Named, is_file
from doorward.models.open.load import load_model
from doorward.models.open.matching import fit_pictures, match_classes
from doorward.repairs.arms import AS_GIVEN
from doorward.repairs.results import Repair
from doorward.scoring.results import AttackFacts, HeldOutFacts, ModelScore, ScoreRecord
from doorward.scoring.truth import attack_beside, describe, listed_ids


def score_arms(
    arms: Mapping[str, Classifier], test: ImageSet, attack: Attack | None, *, seed: int = 0
) -> tuple[ModelScore, ...]:
    """Clean accuracy and attack success rate of classifiers, by name.

    Args:
        test: held-out clean images with their true labels, used by no arm.
        attack: the attacker's own triggers and targets; None when there was no attack.
        seed: of stamps of random place; the same for all arms.

    Returns: one row per arm.
    """
    for name, classifier in arms.items():
        if (classifier.shape, len(classifier.classes)) != (test.shape, len(test.classes)):
            raise DoorwardError(f"{name}: takes other images or classes than {test.name}")
    return tuple(measure(name, classifier, test, attack, seed=seed) for name, classifier in arms.items())


def measure(name: str, classifier: Classifier, test: ImageSet, attack: Attack | None, *, seed: int) -> ModelScore:
    """One row of `score_arms`."""
    clean = measure_accuracy(classifier, test)
    success = Rate(0, 0) if attack is None else asr(classifier, test, attack, seed=seed)
    return ModelScore(name=name, clean_accuracy=RateRecord.of(clean), asr=RateRecord.of(success))


def score_repair(
    run: Path,
    truth_file: Path | None,
    test: ImageSet | None,
    *,
    seed: int = 0,
    device: str = "auto",
    arch: Named | None = None,
) -> ScoreRecord:
    """Score a repair run, write ``score.json`` into it and return it.

    Args:
        run: a finished repair run.
        truth_file: ``truth.parquet`` of the attack, or a list of poisoned images; attack success is measured where
            ``attack/`` lies beside it. None when there was no attack.
        test: held-out clean images. Where they are the very images of the repair, those that it held out are used.
        arch: for arms whose net comes from the user's own file: that file's factory again.

    Raises:
        DoorwardError: no test images, or arms whose net comes from a file of the user's own that was not given.
    """
    manifest = Run.read(run, "repair")
    if test is None:
        raise DoorwardError("score: a repair is measured on test images; expected --test SOURCE")
    attack = None if truth_file is None else attack_beside(truth_file)
    arms = _classifiers(run, device, arch)
    test = unseen(manifest, fitted(test, next(iter(arms.values()))))
    rows = score_arms(arms, test, attack, seed=seed)
    about = None if truth_file is None else _facts(truth_file, attack, test.classes)
    score = ScoreRecord(attack=about, models=rows, test=HeldOutFacts(name=test.name, images=len(test)))
    score.write(run)
    return score


def _facts(file: Path, attack: Attack | None, classes: tuple[str, ...]) -> AttackFacts:
    whole = file.suffix.lower() == ".parquet"
    count = int(load_truth(file).poisoned.sum()) if whole else len(listed_ids(file))
    targets = sorted({p.target for p in attack.pairings if p.target is not None}) if attack else []
    return describe(file, attack, count, targets, classes)


def fitted(test: ImageSet, classifier: Classifier) -> ImageSet:
    """The test images as the classifier takes them, their classes matched by name."""
    return match_classes(fit_pictures(test, classifier.shape)[0], classifier)


def unseen(manifest: dict[str, Any], test: ImageSet) -> ImageSet:
    """The test images; of the very images that were repaired with, those that were held out."""
    settings = manifest["settings"]
    if "held_out" not in settings or settings.get("sha256") not in test.hashes:
        return test
    known = test.portion(float(settings["share"]), int(settings["seed"]))
    return known.split(float(settings["held_out"]), int(settings["seed"]))[1]


def _classifiers(run: Path, device: str, arch: Named | None) -> dict[str, Classifier]:
    """The repaired classifiers of a run, and the one that was given where it is still there."""
    where = pick_device(device)
    repaired = replace(Repair.load(run), device=where)
    given, found = Path(repaired.record.model), {}
    for row in repaired.record.arms:
        if row.folder is not None:
            found[row.name] = repaired.classifier_of(row.name, arch=arch)
    if not repaired.record.model or not given.exists():
        return found
    if (given / "classifier.json").exists():
        return {AS_GIVEN: load_classifier(given, where, arch=arch), **found}
    first = next(iter(found.values()))
    opened = load_model(
        given,
        arch=arch or _safe(first.arch, given),
        classes=first.classes,
        shape=first.shape,
        mean=first.mean,
        std=first.std,
        device=device,
    )
    return {AS_GIVEN: opened, **found}


def _safe(arch: str, given: Path) -> str | None:
    """An architecture that a run names, which is made without running a file; a folder of transformers is its own."""
    return None if given.is_dir() or is_file(arch) else arch
