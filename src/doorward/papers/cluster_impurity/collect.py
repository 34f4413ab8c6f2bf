"""Reads the runs of a plan into plain rows; computes no result of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from doorward.attacks.files import load_truth
from doorward.cleansers.parts.leftovers import misfits
from doorward.cleansers.results import Cleansing, MethodRecord
from doorward.cleansers.samples import Samples
from doorward.core.results import read_record
from doorward.core.runs import Run
from doorward.models.train.results import TrainRecord
from doorward.papers.cluster_impurity.plan import Case, Plan
from doorward.papers.cluster_impurity.stages import forms, stages
from doorward.papers.cluster_impurity.trainers import AUTHORS_THRESHOLD
from doorward.papers.rows import Row, rate_row
from doorward.scoring.cleansing import detection
from doorward.scoring.results import MethodScore, ModelScore, ScoreRecord


@dataclass(frozen=True)
class Found:
    """Rows of the four tables.

    Args:
        detections: one per case, form and method.
        models: one per case and classifier.
        clusters: one per case: what cluster impurity saw of the poison.
        times: one per finished stage.
    """

    detections: list[Row] = field(default_factory=list)
    models: list[Row] = field(default_factory=list)
    clusters: list[Row] = field(default_factory=list)
    times: list[Row] = field(default_factory=list)


def collect(plan: Plan, folder: Path) -> Found:
    """Every finished run of the plan, as rows."""
    found = Found()
    for case in plan.cases:
        about = {"case": case.name, "scenario": case.scenario, "size": case.size, "seed": case.seed}
        here = folder / case.folder
        for form in forms(case):
            run = here / f"cleanse-{form}"
            score = ScoreRecord.read(run)
            if score is None:
                continue
            cleansing = Cleansing.load(run)
            for name, rates in score.methods.items():
                told = cleansing.record.methods[name]
                found.detections.append({**about, "form": form, "method": name, **_detection(rates, told)})
                if form == "poster":
                    for other, scored in _variants(case, here, cleansing.samples, told).items():
                        found.detections.append({**about, "form": other, "method": name, **_detection(*scored)})
            for model in score.models:
                found.models.append({**about, "model": model.name, **_model(model)})
        if case.recipe is not None and (here / "cleanse-blind" / "score.json").exists():
            found.clusters.append({**about, **_clusters(case, here, Cleansing.load(here / "cleanse-blind").samples)})
        for stage in stages(plan, case, folder):
            if stage.finished:
                found.times.append({**about, "stage": stage.name, "kind": stage.kind, **_time(stage.path)})
    return found


def _detection(rates: MethodScore, told: MethodRecord) -> Row:
    flat: Row = {"knowledge": ", ".join(told.knowledge), "flagged": told.flagged, "seconds": told.seconds}
    for name, rate in (("tpr", rates.tpr), ("fpr", rates.fpr), ("fpr_target", rates.fpr_target)):
        flat |= rate_row(name, rate)
    return {**flat, "auroc": rates.auroc}


def _variants(
    case: Case, here: Path, samples: Samples, told: MethodRecord
) -> dict[str, tuple[MethodScore, MethodRecord]]:
    """What cluster impurity, in all features, flags at the threshold of the authors' code, and with misfits, from what
    the run kept: an image's score is the S of its cluster."""
    labels, score, flag = samples.label, samples.scores["impurity"], samples.flags["impurity"]
    poisoned = np.zeros(len(flag), bool)
    if case.recipe is not None:
        poisoned = load_truth(here / "poisoned" / "truth.parquet").poisoned
    of_target = np.isin(labels, np.unique(labels[poisoned]))
    flags = {"authors": score > AUTHORS_THRESHOLD, "misfits": flag | misfits(flag, samples.predicted, labels)}
    return {
        form: (
            detection(chosen, score, poisoned, of_target),
            told.model_copy(update={"flagged": int(chosen.sum())}),
        )
        for form, chosen in flags.items()
    }


def _model(model: ModelScore) -> Row:
    return rate_row("accuracy", model.clean_accuracy) | rate_row("asr", model.asr)


def _clusters(case: Case, here: Path, samples: Samples) -> Row:
    """Where the poison lies: the share of it in clusters of which it is the majority, and the decision impurity there.

    Two things must hold for cluster impurity to work: the poison has clusters of its own, and blurring changes their
    decisions. An image's score is the S of its cluster, which names the cluster within its class.
    """
    scores = samples.scores["impurity"]
    poisoned = load_truth(here / "poisoned" / "truth.parquet").poisoned
    _, cluster = np.unique(np.stack([samples.label, scores]), axis=1, return_inverse=True)
    cluster = cluster.ravel()
    planted = np.bincount(cluster, weights=poisoned)
    own = planted * 2 > np.bincount(cluster)
    gathered = poisoned & own[cluster]
    impurity = float(scores[gathered].mean()) if gathered.any() else None
    count = int(poisoned.sum())
    return {"recipe": case.recipe, "poisoned": count, "gathered": int(gathered.sum()), "impurity": impurity}


def _time(path: Path) -> Row:
    run = Run.read(path)
    speed = read_record(TrainRecord, path).images_per_second if run["verb"] == "train" else None
    return {"seconds": run["seconds"], "images_per_second": speed}
