"""From a request in plain values to repaired classifiers side by side in a run folder."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from doorward.core import methods as registry
from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.files import read_json, write_json
from doorward.core.images import ImageSet
from doorward.core.progress import Progress
from doorward.core.results import parse
from doorward.core.runs import Run
from doorward.data.sources import open_images
from doorward.inversion.triggers import load_inverted
from doorward.models.open.conventions import check_conventions
from doorward.models.open.load import ModelOptions
from doorward.repairs.arms import Bench, Planned, default_methods, make_bench, plan_arms
from doorward.repairs.files import replace_path, save_arm, save_as_it_came
from doorward.repairs.results import ArmRecord, Repair
from doorward.repairs.summary import row_of, summarise


class RepairRequest(ModelOptions):
    """What ``doorward repair`` was asked for. ``share``: of the clean images, drawn by the seed."""

    source: str
    split: Literal["train", "test"] | None = None
    share: float = Field(1.0, gt=0, le=1)
    triggers: str | None = None
    trigger_method: str | None = None
    targets: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    controls: bool = True
    held_out: float = Field(0.2, gt=0, lt=1)
    seed: int = 0


def repair_to_folder(
    request: RepairRequest,
    output: Path | str,
    *,
    overwrite: bool = False,
    command: str = "",
    progress: Progress | None = None,
) -> Repair:
    """Repair with every method, beside the control arms, and write the run.

    The first method's classifier lies at the root, the others in ``arms/NAME/``. A killed run goes on with the arm it
    was in.
    """
    chosen = _methods(request)
    source = open_images(request.source, request.split)
    classifier, warnings = _open_model(request, source)
    images = _named_alike(source.portion(request.share, request.seed), classifier)
    inverted = None
    if request.triggers:
        inverted = load_inverted(
            Path(request.triggers), classifier.classes, targets=request.targets, method=request.trigger_method
        )
    triggers = inverted.stamps if inverted else None
    planned = plan_arms(chosen, triggers=triggers, settings=request.settings, controls=request.controls)
    bench = make_bench(classifier, images, triggers, held_out=request.held_out, seed=request.seed)
    arms = {arm.name: arm.settings for arm in planned}
    resolved = {**request.model_dump(mode="json"), "methods": list(chosen), "arms": arms, "sha256": source.hash}
    with Run(Path(output), "repair", resolved, overwrite, command) as run:
        rows = [row_of(bench.as_given())]
        for number, arm in enumerate(planned):
            if progress:
                progress(arm.name, number, len(planned))
            rows.append(_run_arm(bench, arm, run.work, request))
        _to_root(run.work, rows[1].name)
        about = {"model": request.model, "source": request.source}
        record = summarise(bench, rows, source, inverted, warnings).model_copy(update=about)
        run.keep(record)
    return Repair(record, folder=Path(output), device=classifier.device)


def _methods(request: RepairRequest) -> tuple[str, ...]:
    """The methods asked for, or the default; mistakes are told before anything is loaded."""
    chosen = request.methods or default_methods(bool(request.triggers))
    for name in chosen:
        if "triggers" in registry.get("repair", name).given and not request.triggers:
            raise DoorwardError(
                f"repair {name}: needs triggers, which were not given; expected --triggers RUN of 'doorward invert'"
            )
    if not request.triggers and (request.targets or request.trigger_method):
        raise DoorwardError("repair: a target or an inversion without triggers; expected --triggers RUN with it")
    return chosen


def _open_model(request: RepairRequest, images: ImageSet) -> tuple[Classifier, tuple[str, ...]]:
    """The classifier, opened as ``doorward invert`` opens it, and what its answers on the images warn of."""
    classifier = request.open(images)
    if (images.shape, len(images.classes)) != (classifier.shape, len(classifier.classes)):
        told = f"{'x'.join(map(str, images.shape))}, {len(images.classes)} classes"
        wanted = f"{'x'.join(map(str, classifier.shape))}, {len(classifier.classes)} classes"
        raise DoorwardError(f"{request.source}: images of {told}; the model takes {wanted}")
    return classifier, check_conventions(classifier, images, labelled=True, name=request.model)


def _named_alike(images: ImageSet, classifier: Classifier) -> ImageSet:
    """The images under the classifier's own class names; the same names in another order are refused."""
    if sorted(images.classes) == sorted(classifier.classes) and images.classes != classifier.classes:
        raise DoorwardError(f"{images.name}: its classes stand in another order than the model's; expected the same")
    return replace(images, classes=classifier.classes)


def _run_arm(bench: Bench, planned: Planned, work: Path, request: RepairRequest) -> ArmRecord:
    """Run an arm and keep it, unless an interrupted run has kept it already; its row."""
    folder = work / "arms" / planned.name
    if (folder / "arm.json").exists():
        return parse(ArmRecord, read_json(folder / "arm.json"), folder / "arm.json")
    arm = bench.run(planned)
    save_arm(arm.repaired.classifier, folder)
    file, notes = save_as_it_came(arm.repaired.classifier, folder, Path(request.model), request.arch)
    row = row_of(arm)
    row = row.model_copy(update={"file": file, "warnings": (*row.warnings, *notes)})
    write_json(folder / "arm.json", row.model_dump(mode="json"))
    return row


def _to_root(work: Path, name: str) -> None:
    """Move an arm from its folder to the root of the run, where models lie."""
    folder = work / "arms" / name
    (folder / "arm.json").unlink()
    for path in folder.iterdir():
        replace_path(path, work / path.name)
    folder.rmdir()
    for kept in (work / "arms").glob("*/arm.json"):
        kept.unlink()
    with suppress(OSError):
        (work / "arms").rmdir()  # when there was but one arm
