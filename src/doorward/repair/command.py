"""From a request in plain values to a repaired classifier in a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from doorward import methods as registry
from doorward.classifiers import pick_device
from doorward.data import load_images
from doorward.images import ImageSet
from doorward.methods import Settings
from doorward.repair.run import repair
from doorward.runs import Run
from doorward.train.files import load_classifier, save_classifier


class RepairRequest(Settings):
    """What a repair was asked for. ``share``: of the clean images, drawn by the seed, for when only some are known."""

    model: str
    method: str = "prune"
    clean: str
    clean_split: Literal["train", "test"] = "train"
    share: float = Field(1.0, gt=0, le=1)
    settings: dict[str, Any] = Field(default_factory=dict)
    seed: int = 0
    device: str = "auto"


def repair_to_folder(
    request: RepairRequest, output: Path, *, overwrite: bool = False, command: str = ""
) -> dict[str, Any]:
    """Repair a classifier and write it as one run; returns the run's results."""
    configured = registry.get("repair", request.method).configure(request.settings)
    classifier = load_classifier(Path(request.model), pick_device(request.device))
    images = known_clean(load_images(request.clean, split=request.clean_split), request.share, request.seed)
    resolved = {**request.model_dump(mode="json"), "settings": configured.model_dump(mode="json")}
    with Run(output, "repair", {**resolved, "sha256": images.hash}, overwrite, command) as run:
        repaired = repair(
            classifier,
            request.method,
            settings=request.settings,
            knowledge={"clean_images": images},
            seed=request.seed,
        )
        save_classifier(repaired.classifier, run.work)
        run.results = {
            "clean_images": len(images),
            "knowledge": ["clean_images"],
            "steps": [step.json() for step in repaired.steps],
            "details": repaired.details,
            "warnings": list(repaired.warnings),
        }
    return run.results


def known_clean(images: ImageSet, share: float, seed: int) -> ImageSet:
    """A share of every class, drawn by the seed; at least one image of each."""
    if share == 1:
        return images
    rng = np.random.default_rng(seed)
    rows = []
    for label in np.unique(images.labels):
        members = np.flatnonzero(images.labels == label)
        rows.append(rng.permutation(members)[: max(1, round(share * len(members)))])
    return images.subset(np.sort(np.concatenate(rows)), f"{images.name}, {100 * share:g} %")
