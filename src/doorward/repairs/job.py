"""From a request in plain values to repaired classifiers side by side in a run folder."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from doorward.core import methods as registry
from doorward.core.errors import DoorwardError
from doorward.core.files import write_json
from doorward.core.images import ImageSet
from doorward.core.opening import read_json
from doorward.core.plan import Plan
from doorward.core.progress import Progress
from doorward.core.results import parse
from doorward.core.runs import Run
from doorward.inversion.triggers import InvertedTriggers, load_inverted
from doorward.models.open.together import Opening
from doorward.repairs.arms import Bench, Planned, default_methods, make_bench, plan_arms, wants_all
from doorward.repairs.files import keep_as_it_came, replace_path, save_arm, save_as_it_came
from doorward.repairs.plan import plan_repair
from doorward.repairs.proof import proved
from doorward.repairs.results import ArmRecord, Repair
from doorward.repairs.summary import row_of, summarise
from doorward.repairs.verdict import nothing_to_repair

_GIVEN = "given.json"  # the row of the classifier as given, while the run goes on


class RepairRequest(Opening):
    """What ``doorward repair`` was asked for. ``share``: of the clean images, drawn by the seed."""

    source: str
    share: float = Field(1.0, gt=0, le=1)
    triggers: str | None = None
    trigger_method: str | None = None
    targets: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    controls: bool = True
    held_out: float = Field(0.2, gt=0, lt=1)
    proof: bool = True
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
    was in. Where the inversion accuses no class the model lies at the root as it came.
    """
    asked = _prepared(request)
    bench, planned, source, inverted = asked.bench, asked.arms, asked.source, asked.inverted
    arms = {arm.name: arm.settings for arm in planned}
    resolved = {**request.model_dump(mode="json"), "methods": list(asked.methods), "arms": arms, "sha256": source.hash}
    with Run(Path(output), "repair", resolved, overwrite, command) as run:
        rows = [_as_given(bench, run.work) if planned else _unchanged(bench, run.work, Path(request.model))]
        for number, arm in enumerate(planned):
            if progress:
                progress(arm.name, number, len(planned))
            rows.append(_run_arm(bench, arm, planned, run.work, request))
        if planned:
            _to_root(run.work, rows[1].name)
        about = {"model": request.model, "source": request.source}
        record = summarise(bench, rows, source, inverted, asked.warnings).model_copy(update=about)
        run.keep(record)
    return Repair(record, folder=Path(output), device=bench.classifier.device)


def plan_to_repair(request: RepairRequest) -> Plan:
    """What `repair_to_folder` would do, and how long; nothing is written."""
    asked = _prepared(request)
    plan = plan_repair(asked.bench, asked.arms, asked.source)
    told = () if asked.arms else (nothing_to_repair(asked.inverted.run if asked.inverted else "").headline,)
    return replace(plan, lines=(*plan.lines, *told, *asked.warnings))


class _Asked(NamedTuple):
    """What a request comes to before anything is run; no arms where the inversion accuses no class."""

    methods: tuple[str, ...]
    bench: Bench
    arms: tuple[Planned, ...]
    source: ImageSet
    inverted: InvertedTriggers | None
    warnings: tuple[str, ...]


def _prepared(request: RepairRequest) -> _Asked:
    """Everything opened; mistakes are told before anything is run."""
    chosen = _methods(request)
    classifier, source, warnings, _ = request.open_on_its_set(request.read(request.source, request.split))
    images = source.portion(request.share, request.seed)
    inverted = None
    if request.triggers:
        inverted = load_inverted(
            Path(request.triggers),
            classifier.classes,
            targets=request.targets,
            method=request.trigger_method,
            all_methods=request.trigger_method is None and wants_all(chosen, request.settings),
            or_none=True,
        )
    triggers = inverted.stamps if inverted else None
    planned: tuple[Planned, ...] = ()
    if triggers or inverted is None:
        planned = plan_arms(chosen, triggers=triggers, settings=request.settings, controls=request.controls)
    bench = make_bench(classifier, images, triggers, held_out=request.held_out, seed=request.seed, prove=request.proof)
    return _Asked(chosen, bench, planned, source, inverted, warnings)


def _methods(request: RepairRequest) -> tuple[str, ...]:
    """The methods asked for, or the default; mistakes are told before anything is loaded."""
    chosen = request.methods or default_methods(bool(request.triggers))
    for name in chosen:
        if "triggers" in registry.get("repair", name).given and not request.triggers:
            raise DoorwardError(
                f"repair {name}: needs triggers, which were not given; expected --triggers RUN of 'doorward invert' "
                "or 'cleanse'"
            )
    if not request.triggers and (request.targets or request.trigger_method):
        raise DoorwardError("repair: a target or an inversion without triggers; expected --triggers RUN with it")
    return chosen


def _as_given(bench: Bench, work: Path) -> ArmRecord:
    """The row of the classifier as it was given, unless an interrupted run has kept it already."""
    path = work / _GIVEN
    if path.exists():
        return parse(ArmRecord, read_json(path), path)
    row = proved(bench, bench.as_given())
    write_json(path, row.model_dump(mode="json"))
    return row


def _unchanged(bench: Bench, work: Path, model: Path) -> ArmRecord:
    """The row of the classifier where there is nothing to repair; its files lie at the root as they came."""
    given = bench.as_given()
    file = keep_as_it_came(given.repaired.classifier, work, model)
    return row_of(given).model_copy(update={"file": file})


def _run_arm(bench: Bench, planned: Planned, every: Sequence[Planned], work: Path, request: RepairRequest) -> ArmRecord:
    """Run an arm and keep it, unless an interrupted run has kept it already; its row."""
    folder = work / "arms" / planned.name
    if (folder / "arm.json").exists():
        return parse(ArmRecord, read_json(folder / "arm.json"), folder / "arm.json")
    arm = bench.run(planned)
    save_arm(arm.repaired.classifier, folder)
    file, notes = save_as_it_came(arm.repaired.classifier, folder, Path(request.model), request.arch)
    row = proved(bench, arm, every)
    row = row.model_copy(update={"file": file, "warnings": (*row.warnings, *notes)})
    write_json(folder / "arm.json", row.model_dump(mode="json"))
    return row


def _to_root(work: Path, name: str) -> None:
    """Move an arm from its folder to the root of the run, where models lie."""
    folder = work / "arms" / name
    (work / _GIVEN).unlink()
    (folder / "arm.json").unlink()
    for path in folder.iterdir():
        replace_path(path, work / path.name)
    folder.rmdir()
    for kept in (work / "arms").glob("*/arm.json"):
        kept.unlink()
    with suppress(OSError):
        (work / "arms").rmdir()  # when there was but one arm
