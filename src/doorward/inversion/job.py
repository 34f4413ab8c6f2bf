"""From a request in plain values to an inversion run in a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from doorward.core import methods as registry
from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.leftovers import drop
from doorward.core.plan import Plan
from doorward.core.progress import Progress
from doorward.core.runs import Run
from doorward.inversion.invert import DEFAULT_METHODS, invert
from doorward.inversion.judge.references import like, train_references
from doorward.inversion.plan import plan_inversion
from doorward.inversion.repeat import invert_repeatedly, joined
from doorward.inversion.results import Inversion
from doorward.models.open.together import Opened, Opening


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
    asked = _prepared(request)
    chosen, classifier, images, references = asked.methods, asked.classifier, asked.images, asked.references
    warnings, reference_net = asked.warnings, asked.reference_net
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
            **_options(request),
            "references": references,
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
        drop(kept)
    return found


def plan_to_invert(request: InvertRequest) -> Plan:
    """What `invert_to_folder` would do, and how long; nothing is written."""
    asked = _prepared(request)
    options = _options(request)
    plan = plan_inversion(
        asked.classifier, asked.images, asked.methods, references=asked.references, settings=options.pop("settings"),
        **options,
    )  # fmt: skip
    if request.train_references:
        told = f"{request.train_references} references ({asked.reference_net}) are trained first"
        plan = replace(plan, lines=(*plan.lines, told), seconds=None)
    return replace(plan, lines=(*plan.lines, *asked.warnings))


class _Asked(NamedTuple):
    """What a request comes to before anything is run."""

    methods: tuple[str, ...]
    classifier: Classifier
    images: ImageSet | None
    references: list[Classifier]
    reference_net: str
    warnings: tuple[str, ...]


def _prepared(request: InvertRequest) -> _Asked:
    """Everything opened; mistakes are told before anything is run."""
    chosen = request.methods or (DEFAULT_METHODS if request.source else ("margin",))
    for name in chosen:
        registry.get("invert", name)  # a wrong name is told before anything is loaded
    if request.repeat > 1 and request.source is None:
        raise DoorwardError(f"--repeat {request.repeat}: hiding a trigger needs clean images; expected --images SOURCE")
    classifier, images, warnings, own_labels = _opened(request)
    if request.train_references and (images is None or not request.labelled):
        raise DoorwardError("--train-references: needs labelled clean images; expected --images SOURCE with labels")
    if request.train_references and not own_labels:
        raise DoorwardError("--train-references: the images have other classes than the model; expected the same")
    reference_net = _reference_net(request, classifier) if request.train_references else ""
    references = [
        request.model_copy(update={"model": m}).open(images, labelled=request.labelled) for m in request.references
    ]
    return _Asked(chosen, classifier, images, references, reference_net, warnings)


def _options(request: InvertRequest) -> dict[str, Any]:
    """What `invert` is asked, beside the files."""
    names = ("labelled", "held_out", "settings", "knowledge", "level", "prescreen", "seed")
    return {name: getattr(request, name) for name in names}


def _reference_net(request: InvertRequest, classifier: Classifier) -> str:
    """The net of the references: as asked for, or the suspect's own."""
    folder = Path(request.model)
    own = f"hf:{folder}" if (folder / "config.json").is_file() else None
    return request.reference_net or like(classifier, request.arch or own)


def _opened(request: InvertRequest) -> Opened | tuple[Classifier, None, tuple[str, ...], bool]:
    """The classifier, the images as it takes them, what is to be said of both, and whether labels are the images'."""
    if request.source is None:
        classifier = request.open()
        return classifier, None, classifier.notes, False
    images = request.read(request.source, request.split, labels=False)
    return request.open_on_others(images, labelled=request.labelled)
