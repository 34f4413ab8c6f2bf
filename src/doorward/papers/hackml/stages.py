"""The stages of a plan, in order; see `doorward.jobs.stages` for how they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from doorward.core.progress import Progress, in_words
from doorward.jobs.processes import Told, default_jobs
from doorward.jobs.stages import Stage, claim_folder, run_cases
from doorward.papers.hackml import work
from doorward.papers.hackml.plan import Case, Plan


def shared_stages(plan: Plan, folder: Path) -> Iterator[Stage[None]]:
    """What all cases start from: the division of the faces, the clean reference nets."""
    yield Stage("faces", folder / "faces", lambda _: work.divide_faces(plan, folder))
    if all(case.given for case in plan.cases):
        return
    for number in range(1, plan.references + 1):
        make = partial(work.train_reference, plan, number, folder)
        yield Stage(f"reference net {number}", folder / f"reference-{number}", make)


def stages(plan: Plan, case: Case, folder: Path) -> Iterator[Stage[None]]:
    """The stages of a net, in order. Of a given net the people are unknown, so that it cannot be repaired or screened
    with faces of others."""
    here = folder / case.name
    parts: dict[str, Callable[[Plan, Case, Path, Told], None]] = {"net": work.train_net, "invert": work.search}
    parts |= {"evidence": work.weigh, "repair": work.repair_net, "screens": work.screen_images}
    for name in ("invert", "evidence") if case.given else parts:
        yield Stage(name, here / name, partial(parts[name], plan, case, folder), case.name)


def reproduce(plan: Plan, folder: Path, *, jobs: int = 0, progress: Progress | None = None) -> None:
    """Run every stage that is not finished; see `write_results` for the tables.

    Args:
        folder: of the runs.
        jobs: nets at a time, each in a process of its own; 0: one per core, or one on a GPU.
        progress: called with what is being done; nobody knows how much is left.
    """
    claim_folder(folder, plan.manifest())
    of_case, shared = partial(stages, plan, folder=folder), shared_stages(plan, folder)
    run_cases(of_case, plan.cases, jobs=jobs or default_jobs(plan.device), told=in_words(progress), shared=shared)
