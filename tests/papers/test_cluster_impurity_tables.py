"""Tables from rows: pooled rates, the right denominators, the poster's cells beside ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from doorward.attacks.files import save_truth
from doorward.attacks.poison import Truth
from doorward.cleansers.results import MethodRecord
from doorward.cleansers.samples import Samples
from doorward.core.stats import Rate
from doorward.papers.cluster_impurity import tables
from doorward.papers.cluster_impurity.collect import Found, _clusters, _variants
from doorward.papers.cluster_impurity.plan import Case
from doorward.papers.rows import pooled


def row(method: str, form: str, seed: int, tpr: int, fpr: int, fpr_target: int) -> dict[str, Any]:
    return {
        "case": "multiple-source-0.25", "scenario": "multiple-source", "size": 0.25, "seed": seed, "form": form,
        "method": method, "knowledge": "", "flagged": tpr + fpr, "seconds": 1.0, "auroc": 0.9,
        "tpr_hits": tpr, "tpr_trials": 900, "fpr_hits": fpr, "fpr_trials": 50_000,
        "fpr_target_hits": fpr_target, "fpr_target_trials": 5_000,
    }  # fmt: skip


def test_seeds_are_pooled_and_their_range_is_told() -> None:
    rows = [row("impurity", "blind", 0, 890, 50, 50), row("impurity", "blind", 1, 880, 70, 60)]
    assert pooled(rows, "tpr") == Rate(1770, 1800)
    assert tables.rate(rows, "tpr") == f"{Rate(1770, 1800)} (97.8–98.9)"
    assert tables.rate(rows[:1], "tpr") == str(Rate(890, 900)) and tables.rate([], "tpr") == "–"


def test_each_column_of_the_poster_has_its_own_denominator() -> None:
    found = Found(
        detections=[
            row("impurity", "blind", 0, 9, 150, 50),
            row("impurity", "poster", 0, 891, 100, 50),
            row("impurity", "authors", 0, 900, 5000, 60),
            row("impurity", "misfits", 0, 900, 150, 90),
            row("impurity", "leftovers", 0, 450, 200, 90),
            row("activation", "declared", 0, 450, 100, 50),
            row("spectral", "half", 0, 450, 2500, 2500),
            row("spectral", "declared", 0, 1, 1, 1),
        ]
    )
    lines = tables.against_the_poster(found)
    assert lines[2] == (
        "| 0.25 | 1 | 0.496, 0.500 | 0.500, 0.500 | 0.673, 0.100 | 0.500, 0.010 | 0.991, 0.001 | 1.000, 0.100 "
        "| 0.990, 0.002 | 1.000, 0.003 | 0.010, 0.003 | 0.500, 0.004 |"
    )


def test_accuracy_is_set_against_the_control_of_the_same_seeds() -> None:
    def model(case: str, scenario: str, name: str, seed: int, hits: int) -> dict[str, Any]:
        return {
            "case": case, "scenario": scenario, "size": 0.25, "seed": seed, "model": name,
            "accuracy_hits": hits, "accuracy_trials": 1000, "asr_hits": 5, "asr_trials": 900,
        }  # fmt: skip

    found = Found(
        models=[
            model("control", "control", "clean set", 0, 900),
            model("control", "control", "clean set", 1, 500),
            model("multiple-source-0.25", "multiple-source", "after CI", 0, 890),
        ]
    )
    assert "-1.00 |" in tables.classifiers(found)[2]


def test_poison_in_clusters_of_its_own_by_hand(tmp_path: Path) -> None:
    # class 0: a cluster of 4 poisoned and 1 clean image with S = 2; one of 1 poisoned and 3 clean with S = .1.
    # class 1: a clean cluster that has S = 2 as well.
    label = np.array([0] * 9 + [1] * 3)
    score = np.array([2.0] * 5 + [0.1] * 4 + [2.0] * 3, np.float32)
    poisoned = np.array([1, 1, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0], bool)
    (tmp_path / "poisoned").mkdir()
    samples = Samples(np.arange(12), label, label, {"impurity": score}, {"impurity": score > 1})
    save_truth(Truth(poisoned, label, poisoned - 1, label), tmp_path / "poisoned" / "truth.parquet")
    found = _clusters(Case("a", "beyond", 0, "patch"), tmp_path, samples)
    assert (found["poisoned"], found["gathered"]) == (5, 4) and found["impurity"] == pytest.approx(2.0)


def test_the_other_readings_are_of_the_same_run(tmp_path: Path) -> None:
    score = np.array([2.0, 0.6, 0.5, 0.1, 0.7], np.float32)
    (tmp_path / "poisoned").mkdir()
    label = np.array([1, 1, 1, 1, 0])
    predicted = np.array([1, 1, 0, 1, 1])  # of class 1, in which the first is flagged, the third misfits
    samples = Samples(np.arange(5), label, predicted, {"impurity": score}, {"impurity": score > 1.61})
    poisoned = np.array([1, 0, 1, 0, 0], bool)
    save_truth(Truth(poisoned, label, poisoned - 1, label), tmp_path / "poisoned" / "truth.parquet")
    found = _variants(Case("a", "multiple-source", 0, "pixel"), tmp_path, samples, MethodRecord(flagged=1))
    hits = {
        form: [(r.hits, r.trials) for r in (rates.tpr, rates.fpr, rates.fpr_target)]
        for form, (rates, _) in found.items()
    }
    assert hits == {"authors": [(1, 2), (2, 3), (1, 2)], "misfits": [(2, 2), (0, 3), (0, 2)]}
    assert {form: told.flagged for form, (_, told) in found.items()} == {"authors": 3, "misfits": 2}
