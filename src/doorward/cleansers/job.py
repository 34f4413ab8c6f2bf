"""From a request in plain values to a cleanse run in a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field

from doorward.cleansers.cleanse import DEFAULT_METHODS, cleanse, filters_of
from doorward.cleansers.observe import Look, observe
from doorward.cleansers.plan import plan_cleansing
from doorward.cleansers.results import Cleansing
from doorward.core import methods as registry
from doorward.core.plan import Plan
from doorward.core.progress import Progress
from doorward.core.runs import Run
from doorward.models.open.together import Opening

_IN_MEMORY = 1 << 20  # images; larger sets keep their features in files


class CleanseRequest(Opening):
    """What ``doorward cleanse`` was asked for."""

    source: str
    methods: tuple[str, ...] = ()
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    knowledge: dict[str, Any] = Field(default_factory=dict)
    level: float = 0.05
    seed: int = 0


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
    images = request.read(request.source, request.split or "train")
    classifier, images, notes, _ = request.open_on_its_set(images)
    resolved = {**request.model_dump(mode="json"), "methods": list(chosen), "sha256": images.hash, "size": request.side}
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
        about = {"source": request.source, "model": request.model, "warnings": notes}
        cleansing = replace(cleansing, facts=cleansing.write(run.work).model_copy(update=about))
        run.keep(cleansing.record)
    return cleansing


def plan_to_cleanse(request: CleanseRequest) -> Plan:
    """What `cleanse_to_folder` would do, and how long; nothing is written."""
    chosen = request.methods or DEFAULT_METHODS
    methods = [registry.get("cleanse", name) for name in chosen]
    images = request.read(request.source, request.split or "train")
    classifier, images, notes, _ = request.open_on_its_set(images)
    configured = {m.name: m.configure(request.settings.get(m.name)) for m in methods}
    filters = sorted({names[-1] for names in filters_of(methods, configured, images).values()})
    plan = plan_cleansing(classifier, images, chosen, filters)
    return replace(plan, lines=(*plan.lines, *notes))
