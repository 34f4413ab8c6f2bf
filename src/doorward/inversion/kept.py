"""Triggers that a cleansing or an audit kept: one a class, found without an inversion."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from doorward.core.errors import DoorwardError
from doorward.core.images import class_number
from doorward.core.triggers import Trigger, trigger_file

KEEP = ("cleanse", "audit")  # verbs whose runs hold a trigger a class


def _object(value: dict[str, Any], name: str) -> dict[str, Any]:
    inner = value.get(name)
    return inner if isinstance(inner, dict) else {}


def kept_triggers(run: Path, manifest: dict[str, Any], classes: Sequence[str]) -> tuple[dict[int, Trigger], list[int]]:
    """The triggers of a run by the classifier's numbers of the classes, and which of these it accuses.

    Args:
        manifest: of the run.
        classes: the classifier's class names.

    Raises:
        DoorwardError: a manifest without class names, or a class that the classifier does not have.
    """
    results = _object(manifest, "results")
    named, accused = _object(results, "images").get("classes"), _object(results, "judgement").get("targets", [])
    if not isinstance(named, list) or not isinstance(accused, list):
        raise DoorwardError(f"{run / 'run.json'}: no class names; expected the run of a training set")
    found = {}
    for label, name in enumerate(named):
        file = run / trigger_file(label)
        if file.is_file():
            found[class_number(str(name), classes, str(run))] = Trigger.load(file, inside=run)
    return found, [class_number(str(name), classes, str(run)) for name in accused]
