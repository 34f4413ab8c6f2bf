"""From a request in plain values to a cleanse run in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from doorward.cleansers.cleanse import DEFAULT_METHODS, cleanse
from doorward.cleansers.observe import Look, observe
from doorward.cleansers.results import Cleansing
from doorward.core import methods as registry
from doorward.core.classifier import pick_device
from doorward.core.errors import DoorwardError
from doorward.core.methods import Settings
from doorward.core.progress import Progress
from doorward.core.runs import Run
from doorward.data.sources import load_images
from doorward.models.files import load_classifier

_IN_MEMORY = 1 << 20  # images; larger sets keep their features in files


class CleanseRequest(Settings):
    """What ``doorward cleanse`` was asked for."""

    source: str
    split: Literal["train", "test"] = "train"
    model: str
    methods: tuple[str, ...] = ()
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    knowledge: dict[str, Any] = Field(default_factory=dict)
    level: float = 0.05
    seed: int = 0
    device: str = "auto"


def cleanse_to_folder(
    request: CleanseRequest,
    output: Path | str,
    *,
    overwrite: bool = False,
    command: str = "",
    progress: Progress | None = None,
    look: Look = observe,
) -> Cleansing:
    """Cleanse a source and write the run. ``look``: see `cleanse`."""
    chosen = request.methods or DEFAULT_METHODS
    for name in chosen:
        registry.get("cleanse", name)  # a wrong name is told before anything is loaded
    classifier = load_classifier(Path(request.model), pick_device(request.device))
    images = load_images(request.source, split=request.split)
    if images.classes != classifier.classes:
        differ = _difference(request.model, classifier.classes, images.name, images.classes)
        raise DoorwardError(f"{differ}; expected the same class names")
    resolved = {**request.model_dump(mode="json"), "methods": list(chosen), "sha256": images.hash}
    with Run(Path(output), "cleanse", resolved, overwrite, command) as run:
        cleansing = cleanse(
            images,
            classifier,
            chosen,
            settings=request.settings,
            knowledge=request.knowledge,
            level=request.level,
            seed=request.seed,
            folder=run.work if len(images) > _IN_MEMORY else None,
            progress=progress,
            look=look,
        )
        about = {"source": request.source, "model": request.model}
        cleansing = replace(cleansing, facts=cleansing.write(run.work).model_copy(update=about))
        run.keep(cleansing.record)
    return cleansing


def _difference(model: str, its: Sequence[str], name: str, others: Sequence[str]) -> str:
    """In what the classes of a model and of images differ: their number, else the first name."""
    if len(its) != len(others):
        return f"{model}: trained on {len(its)} classes, {name} has {len(others)}"
    number = next(k for k, (mine, other) in enumerate(zip(its, others, strict=True)) if mine != other)
    return f"{model}: class {number} is {its[number]!r}, that of {name} is {others[number]!r}"
