"""Runs a plan: every stage is a run in its own folder, and what is finished is not run again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from doorward.core.files import write_json
from doorward.core.progress import Progress, in_words
from doorward.jobs.processes import Told, default_jobs, run_side_by_side
from doorward.jobs.stages import MANIFEST, claim_folder, naming, run_once
from doorward.papers.hackml import work
from doorward.papers.hackml.plan import Case, Plan


@dataclass(frozen=True)
class Stage:
    """One run. ``case`` is None for what all cases share."""

    name: str
    path: Path
    make: Callable[[Told], object]
    case: Case | None = None
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
    """Make the folder of the runs, or go on in it; see `claim_folder`."""
    asked = plan.manifest()
    claim_folder(folder, asked)
    write_json(folder / MANIFEST, asked)


def shared_stages(plan: Plan, folder: Path) -> Iterator[Stage]:
    """What all cases start from: the division of the faces, the clean reference nets."""
    yield Stage("faces", folder / "faces", lambda _: work.divide_faces(plan, folder))
    if all(case.given for case in plan.cases):
        return
    for number in range(1, plan.references + 1):
        make = partial(work.train_reference, plan, number, folder)
        yield Stage(f"reference net {number}", folder / f"reference-{number}", make)


def stages(plan: Plan, case: Case, folder: Path) -> Iterator[Stage]:
    """The stages of a net, in order. Of a given net the people are unknown, so that it cannot be repaired or screened
    with faces of others."""
    here = folder / case.name
    parts: dict[str, Callable[[Plan, Case, Path, Told], None]] = {"net": work.train_net, "invert": work.search}
    parts |= {"evidence": work.weigh, "repair": work.repair_net, "screens": work.screen_images}
    for name in ("invert", "evidence") if case.given else parts:
        yield Stage(name, here / name, partial(parts[name], plan, case, folder), case)


def reproduce(plan: Plan, folder: Path, *, jobs: int = 0, progress: Progress | None = None) -> None:
    """Run every stage that is not finished; see `write_results` for the tables.

    Args:
        folder: of the runs.
        jobs: nets at a time, each in a process of its own; 0: one per core, or one on a GPU.
        progress: called with what is being done; nobody knows how much is left.
    """
    told = in_words(progress)
    claim(plan, folder)
    run_once(shared_stages(plan, folder), told)
    todo = [case for case in plan.cases if any(not stage.finished for stage in stages(plan, case, folder))]
    jobs = jobs or default_jobs(plan.device)
    run_side_by_side(partial(run_case, plan, folder), todo, jobs=jobs, told=told)


def run_case(plan: Plan, folder: Path, case: Case, told: Told) -> None:
    """All stages of a net; what fails is told in one line that names the net."""
    with naming(case.name):
        run_once(stages(plan, case, folder), told)
