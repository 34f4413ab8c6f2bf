"""From a request in plain values to a cleanse run in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from doorward.cleansers.cleanse import DEFAULT_METHODS, Cleansing, cleanse
from doorward.cleansers.observe import Look, observe
from doorward.core import methods as registry
from doorward.core.classifier import pick_device
from doorward.core.errors import DoorwardError
from doorward.core.files import write_array
from doorward.core.methods import Settings
from doorward.core.progress import Progress
from doorward.core.runs import Run
from doorward.core.stats import Rate
from doorward.core.tables import write_parquet
from doorward.data.sources import load_images
from doorward.models.files import load_classifier

_SHOWN = 24  # thumbnails of suspects, and of typical images, per class
_IN_MEMORY = 1 << 20  # images; larger sets keep their features in files


class CleanseRequest(Settings):
    """What ``doorward cleanse`` was asked for."""

    source: str
    split: Literal["train", "test"] = "train"
    model: str
    methods: tuple[str, ...] = ()
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    knowledge: dict[str, Any] = Field(default_factory=dict)
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
) -> dict[str, Any]:
    """Cleanse a source and write the run; returns the run's results. ``look``: see `cleanse`."""
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
            seed=request.seed,
            folder=run.work if len(images) > _IN_MEMORY else None,
            progress=progress,
            look=look,
        )
        run.results = {**save_cleansing(cleansing, run.work), "source": request.source, "model": request.model}
        run.results["classifier"]["arch"] = classifier.arch
    return run.results


def _difference(model: str, its: Sequence[str], name: str, others: Sequence[str]) -> str:
    """In what the classes of a model and of images differ: their number, else the first name."""
    if len(its) != len(others):
        return f"{model}: trained on {len(its)} classes, {name} has {len(others)}"
    number = next(k for k, (mine, other) in enumerate(zip(its, others, strict=True)) if mine != other)
    return f"{model}: class {number} is {its[number]!r}, that of {name} is {others[number]!r}"


def save_cleansing(cleansing: Cleansing, folder: Path) -> dict[str, Any]:
    """Write ``samples.parquet`` and ``thumbnails.npy``; returns the results for ``run.json``."""
    images, logits = cleansing.images, cleansing.observations.logits
    predicted = logits.argmax(axis=1)
    columns: dict[str, NDArray[Any]] = {"index": np.arange(len(images)), "label": images.labels, "predicted": predicted}
    for name, outcome in cleansing.outcomes.items():
        columns[f"{name}_score"] = outcome.suspicion.score
        columns[f"{name}_flag"] = outcome.suspicion.flag
    write_parquet(folder / "samples.parquet", columns)
    thumbnails, pixels = _thumbnails(cleansing)
    write_array(folder / "thumbnails.npy", pixels)
    hits = int((predicted == images.labels).sum())
    return {
        "images": {
            "name": images.name,
            "sha256": images.hash,
            "classes": list(images.classes),
            "counts": images.counts().tolist(),
            "shape": list(images.shape),
        },
        "classifier": {"accuracy_on_images": Rate(hits, len(images)).json()},
        "methods": {name: _method_results(cleansing, name) for name in cleansing.outcomes},
        "thumbnails": thumbnails,
    }


def _method_results(cleansing: Cleansing, name: str) -> dict[str, Any]:
    outcome = cleansing.outcomes[name]
    suspicion = outcome.suspicion
    return {
        "flagged": int(suspicion.flag.sum()),
        "given": sorted(outcome.method.given),
        "knowledge": list(outcome.knowledge),
        "settings": outcome.settings.model_dump(mode="json"),
        "seconds": round(outcome.seconds, 3),
        "warnings": list(suspicion.warnings),
        "groups": [group.json() for group in suspicion.groups],
        "class_scores": suspicion.class_scores(len(cleansing.images.classes)),
    }


def _thumbnails(cleansing: Cleansing) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    """The worst suspects of each flagged class, and typical images of every class: unflagged, of median score."""
    labels = cleansing.images.labels
    rows: list[int] = []

    def put(chosen: NDArray[np.int64]) -> list[int]:
        first = len(rows)
        rows.extend(chosen.tolist())
        return list(range(first, len(rows)))

    suspects: dict[str, dict[str, list[int]]] = {}
    flagged_by_any = np.zeros(len(labels), bool)
    for name, outcome in cleansing.outcomes.items():
        flag, score = outcome.suspicion.flag, outcome.suspicion.score
        flagged_by_any |= flag
        suspects[name] = {}
        for label in np.unique(labels[flag]):
            inside = np.flatnonzero(flag & (labels == label))
            suspects[name][str(label)] = put(inside[np.argsort(-score[inside], kind="stable")][:_SHOWN])
    typical = {}
    ranks = np.sum([o.suspicion.score.argsort().argsort() for o in cleansing.outcomes.values()], axis=0)
    for label in np.unique(labels):
        inside = np.flatnonzero((labels == label) & ~flagged_by_any)
        middle = (
            inside[np.argsort(np.abs(ranks[inside] - np.median(ranks[inside])), kind="stable")]
            if len(inside)
            else inside
        )
        typical[str(label)] = put(middle[:_SHOWN])
    return {"typical": typical, "suspects": suspects}, np.ascontiguousarray(cleansing.images.pixels[rows])
