"""Fine-pruning as the poster's comparison has it: one method on a share of the training images, as a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from doorward.core import methods as registry
from doorward.core.classifier import pick_device
from doorward.core.images import ImageSet
from doorward.core.methods import Settings
from doorward.core.results import ImagesRecord, plain
from doorward.core.runs import Run
from doorward.data.sources import load_images
from doorward.models.files import load_classifier, save_classifier
from doorward.repairs.apply import apply_repair
from doorward.repairs.arms import AS_GIVEN
from doorward.repairs.repaired import Repaired
from doorward.repairs.results import ArmRecord, Repair, RepairedRecord, RepairRecord, UsedImages
from doorward.repairs.summary import steps_of
from doorward.repairs.verdict import judge


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


def prune_to_folder(request: PruneRequest, output: Path, *, overwrite: bool = False, command: str = "") -> Repair:
    """Repair a classifier and write it as one run, its clean accuracy that of the method's own record."""
    configured = registry.get("repair", request.method).configure(request.settings)
    classifier = load_classifier(Path(request.model), pick_device(request.device))
    images = load_images(request.clean, split=request.clean_split).portion(request.share, request.seed)
    resolved = {**request.model_dump(mode="json"), "settings": configured.model_dump(mode="json")}
    with Run(output, "repair", {**resolved, "sha256": images.hash}, overwrite, command) as run:
        repaired = apply_repair(
            classifier,
            request.method,
            settings=request.settings,
            knowledge={"clean_images": images},
            seed=request.seed,
        )
        save_classifier(repaired.classifier, run.work)
        record = _record(request, configured, images, repaired)
        run.keep(record)
    return Repair(record, folder=output, device=classifier.device)


def _record(request: PruneRequest, configured: Settings, images: ImageSet, repaired: Repaired) -> RepairRecord:
    steps = steps_of(repaired)
    given = ArmRecord(name=AS_GIVEN, role="given", accuracy=steps[0].accuracy)
    arm = ArmRecord(
        name=request.method,
        role="repair",
        method=request.method,
        accuracy=steps[-1].accuracy,
        settings=configured.model_dump(mode="json"),
        knowledge=("clean_images",),
        steps=steps,
        details=plain(repaired.details),
        warnings=repaired.warnings,
        folder=".",
    )
    held, about = steps[-1].accuracy.trials, ImagesRecord.of(images).model_dump()
    judgement, findings = judge((given, arm), images.classes)
    net = repaired.classifier
    return RepairRecord(
        judgement=judgement,
        findings=findings,
        images=UsedImages(**about, fitted=len(images) - held, held_out=held),
        classifier=RepairedRecord(arch=net.arch, classes=len(net.classes), shape=net.shape),
        arms=(given, arm),
        warnings=repaired.warnings,
        source=request.clean,
        model=request.model,
    )
