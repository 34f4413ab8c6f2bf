"""From a request in plain values to a screening in a run folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from doorward.core import methods as registry
from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.progress import Progress
from doorward.core.results import ImagesRecord
from doorward.core.runs import Run
from doorward.core.triggers import Trigger
from doorward.data.summary import conversions
from doorward.models.open.matching import fit_pictures
from doorward.models.open.together import Opening
from doorward.screens.results import CleanRecord, Screening, TriggersRecord, WatchedRecord
from doorward.screens.screen import check_triggers, fit

# Class names of the classifier to triggers by target class; the caller knows where they come from.
ReadTriggers = Callable[[Sequence[str]], Mapping[int, Trigger]]


class ScreenRequest(Opening):
    """What ``doorward screen`` was asked for. ``triggers``: where they come from, for the record."""

    source: str
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
    progress: Progress | None = None,
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
    model, clean, images, warnings = _opened(request)
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
            progress=progress,
        )
        screening, predicted = made(images.pixels, progress), model.predict(images.pixels)
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
        ids = list(map(str, images.ids)) if images.named else None
        screening = replace(screening, facts=facts, labels=images.labels, predicted=predicted, ids=ids)
        run.keep(screening.write(run.work))
    return screening


def _opened(request: ScreenRequest) -> tuple[Classifier, ImageSet, ImageSet, tuple[str, ...]]:
    """The classifier, the clean images and those to be screened as it takes them, and what is to be said of them."""
    model, clean, warnings, _ = request.open_on_others(request.read(request.clean, labels=False))
    incoming = request.read(request.source, request.split, labels=False)
    images, notes = fit_pictures(incoming, model.shape)
    warnings = (*warnings, *conversions(incoming), *notes)
    if clean.hash == images.hash:
        told = f"{request.source}: is the clean set itself; expected images that took no part in the screen"
        warnings = (*warnings, told)
    return model, clean, images, warnings
