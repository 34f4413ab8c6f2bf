"""What was computed with ground truth, for the sections of runs that name images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from doorward.core.text import listing, name, quoted
from doorward.reports import charts
from doorward.reports.sections import Cell
from doorward.reports.sections._rates import accuracy_domain, drawn
from doorward.scoring.results import ScoreRecord

_MEASURES = (
    ("tpr", "Poisoned images found", "true positive rate"),
    ("fpr", "Unpoisoned images flagged", "false positive rate, all classes"),
    ("fpr_target", "… in the target class", "false positive rate there"),
    ("precision", "Poisoned among the flagged", "precision"),
)


def attacked(score: ScoreRecord | None, classes: Sequence[str]) -> dict[str, Cell]:
    """What a run's set was attacked with, as a cell of the table of all runs; nothing where it was not scored."""
    if score is None:
        return {}
    if score.attack is None:
        return {"Attack (ground truth)": Cell("none", "a control")}
    targets = [classes[t] if 0 <= t < len(classes) else str(t) for t in score.attack.targets]
    note = f"into class {listing([quoted(t) for t in targets], 3)}" if targets else ""
    return {"Attack (ground truth)": Cell(name(score.attack.recipe), note)}


def scored(score: ScoreRecord, classes: Sequence[str], told: Mapping[str, str]) -> dict[str, Any]:
    """What was computed with ground truth, as tables with intervals drawn in.

    Args:
        told: by method, the knowledge that it was given.
    """
    full = (0.0, 1.0)
    methods = [
        {
            "name": method,
            "told": told.get(method, ""),
            "cells": [drawn(getattr(s, key), full, "good" if key in ("tpr", "precision") else "bad", words)
                      for key, words, _ in _MEASURES],
            "auroc": s.auroc,
        }
        for method, s in score.methods.items()
    ]  # fmt: skip
    domain = accuracy_domain([m.clean_accuracy for m in score.models])
    models = [
        {
            "name": m.name,
            "asr": drawn(m.asr, full, "bad", "attack success rate"),
            "accuracy": drawn(m.clean_accuracy, domain, "good", "clean accuracy"),
        }
        for m in score.models
    ]
    return {
        "attack": score.attack,
        "targets": [classes[t] for t in (score.attack.targets if score.attack else ()) if 0 <= t < len(classes)],
        "measures": _MEASURES,
        "methods": methods,
        "models": models,
        "axis": charts.interval_axis(full),
        "accuracy_axis": charts.interval_axis(domain),
    }
