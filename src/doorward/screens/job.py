"""From a request in plain values to a screening in a run folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from doorward.core import methods as registry
from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.results import ImagesRecord
from doorward.core.runs import Run
from doorward.core.triggers import Trigger
from doorward.data.sources import open_images
from doorward.models.open.conventions import check_conventions
from doorward.models.open.load import ModelOptions
from doorward.screens.results import CleanRecord, Screening, TriggersRecord, WatchedRecord
from doorward.screens.screen import check_triggers, fit

# Class names of the classifier to triggers by target class; the caller knows where they come from.
ReadTriggers = Callable[[Sequence[str]], Mapping[int, Trigger]]


class ScreenRequest(ModelOptions):
    """What ``doorward screen`` was asked for. ``triggers``: where they come from, for the record."""

    source: str
    split: Literal["train", "test"] | None = None
    clean: str
    method: str = "strip"
    settings: dict[str, Any] = Field(default_factory=dict)
    triggers: str | None = None
    targets: tuple[str, ...] = ()
    trigger_method: str | None = None
    rate: float = Field(0.05, gt=0, lt=1)
    seed: int = 0


def screen_to_folder(
    request: ScreenRequest,
    output: Path,
    *,
    read_triggers: ReadTriggers | None = None,
    overwrite: bool = False,
    command: str = "",
) -> Screening:
    """Screen every image of a source and write the run.

    Args:
        read_triggers: gives the triggers, for a screen that needs some.
    """
    method = registry.get("screen", request.method)  # mistakes are told before anything is loaded
    method.configure(request.settings)
    check_triggers(method, read_triggers is not None)
    if request.triggers and "triggers" not in method.given:
        raise DoorwardError(f"screen {method.name}: uses no triggers; expected no --triggers, or --method inverted")
    clean, images = open_images(request.clean, None), open_images(request.source, request.split)
    model, warnings = _open_model(request, clean, images)
    triggers = read_triggers(model.classes) if read_triggers else None
    resolved = {**request.model_dump(mode="json"), "sha256": images.hash, "clean_sha256": clean.hash}
    with Run(output, "screen", resolved, overwrite, command) as run:
        made = fit(
            model,
            clean,
            method.name,
            triggers=triggers,
            false_rejection=request.rate,
            settings=request.settings,
            seed=request.seed,
        )
        screening, predicted = made(images.pixels), model.predict(images.pixels)
        used = None
        if request.triggers:
            used = TriggersRecord(run=request.triggers, targets=tuple(sorted(triggers or {})))
        counts = np.bincount(predicted[screening.flags], minlength=len(model.classes))
        about = {
            "images": ImagesRecord.of(images),
            "clean": CleanRecord(source=request.clean, name=clean.name, sha256=clean.hash, images=len(clean)),
            "classifier": WatchedRecord(arch=model.arch, classes=model.classes, shape=model.shape),
            "flagged_by_decision": tuple(counts.tolist()),
            "triggers": used,
            "given": tuple(sorted(method.given)),
            "knowledge": ("clean_images", *sorted(method.knowledge)),
            "warnings": tuple(warnings),
            "source": request.source,
            "model": request.model,
        }
        facts = screening.facts.model_copy(update=about)
        screening = replace(screening, facts=facts, labels=images.labels, predicted=predicted)
        run.keep(screening.write(run.work))
    return screening


def _open_model(request: ScreenRequest, clean: ImageSet, images: ImageSet) -> tuple[Classifier, list[str]]:
    """The classifier, opened as the other verbs open it, and what its answers and the two sets warn of."""
    model = request.open(clean)
    if images.shape != model.shape:
        found, expected = ("x".join(map(str, v)) for v in (images.shape, model.shape))
        raise DoorwardError(f"{request.source}: images of {found}; the model takes {expected}")
    warnings: list[str] = []
    if clean.shape == model.shape:
        labelled = len(clean.classes) == len(model.classes)
        warnings += check_conventions(model, clean, labelled=labelled, name=request.model)
    if clean.hash == images.hash:
        warnings.append(f"{request.source}: is the clean set itself; expected images that took no part in the screen")
    return model, warnings
