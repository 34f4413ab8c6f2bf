"""From a request in plain values to an inversion run in a folder."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from doorward.core import methods as registry
from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.progress import Progress
from doorward.core.runs import Run
from doorward.data.sources import open_images
from doorward.inversion.invert import DEFAULT_METHODS, invert
from doorward.inversion.judge.references import like, train_references
from doorward.inversion.repeat import invert_repeatedly, joined
from doorward.inversion.results import Inversion
from doorward.models.open.conventions import check_conventions
from doorward.models.open.load import ModelOptions


class InvertRequest(ModelOptions):
    """What ``doorward invert`` was asked for."""

    source: str | None = None
    split: Literal["train", "test"] | None = None
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
    images = None if request.source is None else open_images(request.source, request.split)
    classifier, images, warnings = _fitting(request, images)
    if request.train_references and (images is None or not request.labelled):
        raise DoorwardError("--train-references: needs labelled clean images; expected --images SOURCE with labels")
    if request.train_references and len(images.classes if images else ()) != len(classifier.classes):
        raise DoorwardError("--train-references: the images have other classes than the model; expected the same")
    reference_net = _reference_net(request, classifier) if request.train_references else ""
    references = [
        request.model_copy(update={"model": m}).open(images, labelled=request.labelled) for m in request.references
    ]
    if images is not None and images.shape == classifier.shape:
        comparable = request.labelled and len(images.classes) == len(classifier.classes)
        if comparable or not request.has_conventions:  # what Doorward wrote beside a net outweighs a guess
            warnings += check_conventions(classifier, images, labelled=comparable, name=request.model)
    resolved = {**request.model_dump(mode="json"), "methods": list(chosen), "sha256": images and images.hash}
    with Run(Path(output), "invert", resolved, overwrite, command) as run:
        kept = run.work / "references"
        if images is not None and request.train_references:
            own, doubts = train_references(
                images,
                request.train_references,
                net=reference_net,
                seed=request.seed,
                device=request.device,
                folder=kept,
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
        shutil.rmtree(kept, ignore_errors=True)
    return found


def _reference_net(request: InvertRequest, classifier: Classifier) -> str:
    """The net of the references: as asked for, or the suspect's own."""
    folder = Path(request.model)
    own = f"hf:{folder}" if (folder / "config.json").is_file() else None
    return request.reference_net or like(classifier, request.arch or own)


def _fitting(request: InvertRequest, images: ImageSet | None) -> tuple[Classifier, ImageSet | None, tuple[str, ...]]:
    """The classifier, and the images as it takes them: grey ones are repeated over three channels for a colour net."""
    if images is None or images.shape[0] != 1:
        return request.open(images, labelled=request.labelled), images, ()
    coloured = images.coloured()
    try:
        classifier = request.open(images, labelled=request.labelled)
    except DoorwardError as error:  # weights of others may be those of a colour net
        try:
            classifier = request.open(coloured, labelled=request.labelled)
        except DoorwardError:
            raise error from None
    if classifier.shape[0] != 3:
        return classifier, images, ()
    return classifier, coloured, (f"{images.name}: grey images, repeated over three channels for a colour net",)
