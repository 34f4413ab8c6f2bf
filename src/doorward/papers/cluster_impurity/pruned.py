"""Fine-pruning as the poster's comparison has it: one method on a share of the training images, as a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from doorward.core import methods as registry
from doorward.core.classifier import pick_device
from doorward.core.methods import Settings
from doorward.core.runs import Run
from doorward.data.sources import load_images
from doorward.models.files import load_classifier, save_classifier
from doorward.repairs.repair import repair


class PruneRequest(Settings):
    """What a repair was asked for. ``share``: of the clean images, drawn by the seed, for when only some are known."""

    model: str
    method: str = "prune"
    clean: str
    clean_split: Literal["train", "test"] = "train"
    share: float = Field(1.0, gt=0, le=1)
    settings: dict[str, Any] = Field(default_factory=dict)
    seed: int = 0
    device: str = "auto"


def prune_to_folder(
    request: PruneRequest, output: Path, *, overwrite: bool = False, command: str = ""
) -> dict[str, Any]:
    """Repair a classifier and write it as one run; returns the run's results."""
    configured = registry.get("repair", request.method).configure(request.settings)
    classifier = load_classifier(Path(request.model), pick_device(request.device))
    images = load_images(request.clean, split=request.clean_split).portion(request.share, request.seed)
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
