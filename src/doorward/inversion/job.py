"""From a request in plain values to an inversion run in a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field

from doorward.core import methods as registry
from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.progress import Progress
from doorward.core.runs import Run
from doorward.inversion.invert import DEFAULT_METHODS, invert
from doorward.inversion.judge.references import like, train_references
from doorward.inversion.repeat import invert_repeatedly, joined
from doorward.inversion.results import Inversion
from doorward.models.open.together import Opening


class InvertRequest(Opening):
    """What ``doorward invert`` was asked for."""

    source: str | None = None
    labelled: bool = True
    methods: tuple[str, ...] = ()
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    knowledge: dict[str, Any] = Field(default_factory=dict)
    held_out: float = 0.3
    level: float = 0.05
    references: tuple[str, ...] = ()
    train_references: int = Field(0, ge=0)
    reference_net: str | None = None
    prescreen: int = 0
    repeat: int = Field(1, ge=1)
    seed: int = 0


def invert_to_folder(
    request: InvertRequest,
    output: Path | str,
    *,
    overwrite: bool = False,
    command: str = "",
    progress: Progress | None = None,
) -> Inversion:
    """Invert and write the run. A killed run goes on inside the method it was in."""
    chosen = request.methods or (DEFAULT_METHODS if request.source else ("margin",))
    for name in chosen:
        registry.get("invert", name)  # a wrong name is told before anything is loaded
    if request.repeat > 1 and request.source is None:
        raise DoorwardError(f"--repeat {request.repeat}: hiding a trigger needs clean images; expected --images SOURCE")
    classifier, images, warnings = _opened(request)
    if request.train_references and (images is None or not request.labelled):
        raise DoorwardError("--train-references: needs labelled clean images; expected --images SOURCE with labels")
    if request.train_references and len(images.classes if images else ()) != len(classifier.classes):
        raise DoorwardError("--train-references: the images have other classes than the model; expected the same")
    references = [
        request.model_copy(update={"model": m}).open(images, labelled=request.labelled) for m in request.references
    ]
    resolved = {**request.model_dump(mode="json"), "methods": list(chosen), "sha256": images and images.hash}
    with Run(Path(output), "invert", resolved, overwrite, command) as run:
        reference_net = request.reference_net or like(classifier)
        if images is not None and request.train_references:
            own, doubts = train_references(
                images,
                request.train_references,
                net=reference_net,
                seed=request.seed,
                device=request.device,
                progress=progress,
            )
            references, warnings = [*references, *own], (*warnings, *doubts)
        options: dict[str, Any] = {
            "labelled": request.labelled,
            "held_out": request.held_out,
            "settings": request.settings,
            "knowledge": request.knowledge,
            "level": request.level,
            "references": references,
            "prescreen": request.prescreen,
            "seed": request.seed,
            "folder": run.work,
            "progress": progress,
        }
        if request.repeat > 1 and images is not None:
            found = joined(invert_repeatedly(classifier, images, chosen, rounds=request.repeat, **options))
        else:
            found = invert(classifier, images, chosen, **options)
        about = {
            "source": request.source,
            "model": request.model,
            "references": (*request.references, *[reference_net] * request.train_references),
            "warnings": warnings,
        }
        found = replace(found, facts=found.facts.model_copy(update=about))
        run.keep(found.write(run.work))
    return found


def _opened(request: InvertRequest) -> tuple[Classifier, ImageSet | None, tuple[str, ...]]:
    """The classifier, the images as it takes them, and what was converted or is doubtful."""
    if request.source is None:
        classifier = request.open()
        return classifier, None, classifier.notes
    images = request.read(request.source, request.split, labels=False)
    return request.open_on_others(images, labelled=request.labelled)
