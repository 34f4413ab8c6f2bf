"""Runs a plan: every stage is a run in its own folder, and what is finished is not run again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from doorward.core.files import write_json
from doorward.core.progress import Progress, in_words
from doorward.jobs.processes import Told, default_jobs, run_side_by_side
from doorward.jobs.stages import MANIFEST, claim_folder, naming, run_once
from doorward.papers.mesa import work
from doorward.papers.mesa.arms import Arm, Inversion, arms, inversions, verdict
from doorward.papers.mesa.plan import Case, Plan


@dataclass(frozen=True)
class Stage:
    """One run.

    Args:
        kind: with ``inversion`` or ``arm``, what it costs.
        case: None for what all cases share.
        make: makes it.
        needed: False when there is nothing to do, known once the stages before it are finished.
    """

    name: str
    kind: Literal["split", "clean", "attack", "invert", "repair", "show"]
    path: Path
    make: Callable[[Told], object]
    case: Case | None = None
    inversion: Inversion | None = None
    arm: Arm | None = None
    needed: Callable[[], bool] = lambda: True

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.case.name}: {self.name}" if self.case else self.name

    @property
    def finished(self) -> bool:
        """Whether its run is complete."""
        return self.path.exists()


def claim(plan: Plan, folder: Path) -> None:
    """Make the folder of the runs, or go on in it; see `claim_folder`. Its manifest lists the cases of all commands."""
    asked = plan.manifest()
    known = claim_folder(folder, asked)
    cases = {**known.get("cases", {}), **{case.name: case.about() for case in plan.cases}}
    write_json(folder / MANIFEST, {**asked, "cases": cases})


def reproduce(plan: Plan, folder: Path, *, jobs: int = 0, progress: Progress | None = None) -> None:
    """Run every stage that is not finished; see `write_results` for the tables.

    Args:
        folder: of the runs.
        jobs: cases at a time, each in a process of its own; 0: one per core, or one on a GPU.
        progress: called with what is being done; nobody knows how much is left.
    """
    told = in_words(progress)
    claim(plan, folder)
    run_once(shared_stages(plan, folder), told)
    todo = [case for case in plan.cases if any(not stage.finished for stage in stages(plan, case, folder))]
    jobs = jobs or default_jobs(plan.device)
    run_side_by_side(partial(run_case, plan, folder), todo, jobs=jobs, told=told)


def run_case(plan: Plan, folder: Path, case: Case, told: Told) -> None:
    """All stages of a case; what fails is told in one line that names the case."""
    with naming(case.name):
        run_once(stages(plan, case, folder), told)


def shared_stages(plan: Plan, folder: Path) -> Iterator[Stage]:
    """What all cases start from: the division of the test images, the clean net."""
    data, clean = folder / "data", folder / "clean"
    yield Stage("divide the test images", "split", data, lambda _: work.split(plan, data))
    yield Stage("clean net", "clean", clean, partial(work.train_clean, plan, clean))


def stages(plan: Plan, case: Case, folder: Path) -> Iterator[Stage]:
    """The stages of a case, in order: attack, inversions, repairs, samples for the figures."""
    here = folder / case.name
    yield Stage("attack", "attack", here / "attack", partial(work.attack_net, plan, case, folder), case)
    for inversion in inversions(plan, case):
        make = partial(work.search, plan, case, inversion, folder)
        path, name = here / f"invert-{inversion.name}", f"invert {inversion.name}"
        needed = partial(_other_class, plan, here) if inversion.name == "mesa-unknown" else lambda: True
        yield Stage(name, "invert", path, make, case, inversion=inversion, needed=needed)
    for arm in arms(plan, case):
        yield Stage(
            f"repair {arm.folder}", "repair", here / arm.folder, _repair(plan, case, arm, folder), case, arm=arm
        )
    if case.shown:
        yield Stage("sample", "show", here / "shown", lambda _: work.show(plan, case, folder), case)


def _repair(plan: Plan, case: Case, arm: Arm, folder: Path) -> Callable[[Told], object]:
    return lambda _: work.repair(plan, case, arm, folder)


def _other_class(plan: Plan, here: Path) -> bool:
    """Whether the mask's verdict names a class whose triggers are not searched yet."""
    return verdict(here) not in (None, plan.target)
