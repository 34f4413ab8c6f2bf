"""The stages of a plan, in order; see `doorward.jobs.stages` for how they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from doorward.core.progress import Progress, in_words
from doorward.jobs.processes import Told, default_jobs
from doorward.jobs.stages import Stage, claim_folder, run_cases
from doorward.papers.mesa import work
from doorward.papers.mesa.arms import Arm, Inversion, arms, inversions, verdict
from doorward.papers.mesa.plan import Case, Plan


def reproduce(plan: Plan, folder: Path, *, jobs: int = 0, progress: Progress | None = None) -> None:
    """Run every stage that is not finished; see `write_results` for the tables.

    Args:
        folder: of the runs.
        jobs: cases at a time, each in a process of its own; 0: one per core, or one on a GPU.
        progress: called with what is being done; nobody knows how much is left.
    """
    claim_folder(folder, plan.manifest(), {case.name: case.about() for case in plan.cases})
    of_case, shared = partial(stages, plan, folder=folder), shared_stages(plan, folder)
    run_cases(of_case, plan.cases, jobs=jobs or default_jobs(plan.device), told=in_words(progress), shared=shared)


def shared_stages(plan: Plan, folder: Path) -> Iterator[Stage[Inversion | Arm]]:
    """What all cases start from: the division of the test images, the clean net."""
    data, clean = folder / "data", folder / "clean"
    yield Stage("divide the test images", data, lambda _: work.split(plan, data), kind="split")
    yield Stage("clean net", clean, partial(work.train_clean, plan, clean), kind="clean")


def stages(plan: Plan, case: Case, folder: Path) -> Iterator[Stage[Inversion | Arm]]:
    """The stages of a case, in order: attack, inversions, repairs, samples for the figures."""
    here = folder / case.name
    yield Stage("attack", here / "attack", partial(work.attack_net, plan, case, folder), case.name, "attack")
    for inversion in inversions(plan, case):
        make = partial(work.search, plan, case, inversion, folder)
        path, name = here / f"invert-{inversion.name}", f"invert {inversion.name}"
        needed = partial(_other_class, plan, here) if inversion.name == "mesa-unknown" else lambda: True
        yield Stage(name, path, make, case.name, "invert", inversion, needed)
    for arm in arms(plan, case):
        repair = _repair(plan, case, arm, folder)
        yield Stage(f"repair {arm.folder}", here / arm.folder, repair, case.name, "repair", arm)
    if case.shown:
        yield Stage("sample", here / "shown", lambda _: work.show(plan, case, folder), case.name, "show")


def _repair(plan: Plan, case: Case, arm: Arm, folder: Path) -> Callable[[Told], object]:
    return lambda _: work.repair(plan, case, arm, folder)


def _other_class(plan: Plan, here: Path) -> bool:
    """Whether the mask's verdict names a class whose triggers are not searched yet."""
    return verdict(here) not in (None, plan.target)
