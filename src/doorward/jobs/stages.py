"""Resumable stages: every stage is a run in a folder of its own, and what is finished is not run again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from doorward.core.errors import DoorwardError, OutputExistsError
from doorward.core.files import drop_abandoned, write_json
from doorward.core.leftovers import has_its_name, is_blank
from doorward.core.opening import read_json
from doorward.jobs.processes import Told, run_side_by_side

MANIFEST = "reproduce.json"  # in the folder of the runs: their settings
About = TypeVar("About")
Case = TypeVar("Case")


@dataclass(frozen=True)
class Stage(Generic[About]):
    """One run.

    Args:
        name: of the stage, among those of its case.
        path: folder of its run.
        make: makes it; is handed where to tell what is being done.
        case: for people; empty for what all cases share.
        kind: with ``about``, what it costs.
        needed: False when there is nothing to do, known once the stages before it are finished.
    """

    name: str
    path: Path
    make: Callable[[Told], object]
    case: str = ""
    kind: str = ""
    about: About | None = None
    needed: Callable[[], bool] = lambda: True

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.case}: {self.name}" if self.case else self.name

    @property
    def finished(self) -> bool:
        """Whether its run is complete."""
        return has_its_name(self.path)


def claim_folder(folder: Path, asked: dict[str, Any], cases: Mapping[str, Any] | None = None) -> None:
    """Make the folder of the runs, or go on in one whose runs were made with the same settings.

    Args:
        asked: what all runs share.
        cases: what decides the runs of each case; the manifest lists those of all commands.

    Raises:
        OutputExistsError: the folder holds something else, or runs with other settings.
    """
    manifest, known = folder / MANIFEST, dict[str, Any]()
    otherwise = "a new folder (-o)"
    if manifest.exists():
        known = read_json(manifest)
        refuse_other(f"{folder}: holds runs with", known, asked, otherwise)
    elif folder.exists() and not is_blank(folder):
        raise OutputExistsError(f"{folder}: exists and holds no {MANIFEST}; expected {otherwise}")
    listed = known.get("cases", {})
    for name, about in (cases or {}).items():
        if name in listed:
            refuse_other(f"{folder}: holds runs with {name}:", listed[name], about, otherwise)
    folder.mkdir(parents=True, exist_ok=True)
    drop_abandoned(manifest)
    write_json(manifest, asked if cases is None else {**asked, "cases": {**listed, **cases}})


def refuse_other(what: str, known: dict[str, Any], asked: dict[str, Any], otherwise: str) -> None:
    """Refuse what was made with other settings than are asked for, naming the first that differs.

    Raises:
        OutputExistsError: ``what``, the setting, what it was and what is asked for, and what to do ``otherwise``.
    """
    for name, value in asked.items():
        if known.get(name) != value:
            told = _difference(name, known.get(name), value)
            raise OutputExistsError(f"{what} {told}; expected the same, or {otherwise}")


def _difference(name: str, known: Any, asked: Any) -> str:
    """What differs, the first entry alone where both are dictionaries."""
    if isinstance(known, dict) and isinstance(asked, dict):
        inner = next(k for k in {**known, **asked} if known.get(k) != asked.get(k))
        return _difference(f"{name}.{inner}", known.get(inner), asked.get(inner))
    return f"{name} = {known}, asked for {asked}"


def run_once(stages: Iterable[Stage[Any]], told: Told) -> None:
    """Run the stages that are not finished, in order; what fails is told in one line that names the case."""
    for stage in stages:
        with _naming(stage.case):
            if not stage.finished and stage.needed():
                told(stage.label)
                stage.path.parent.mkdir(parents=True, exist_ok=True)
                stage.make(told)


def run_cases(
    stages: Callable[[Case], Iterable[Stage[Any]]],
    cases: Sequence[Case],
    *,
    jobs: int,
    told: Told,
    shared: Iterable[Stage[Any]] = (),
) -> None:
    """Run every stage that is not finished.

    Args:
        stages: of a case; can be pickled.
        cases: started in this order.
        jobs: cases at a time, each in a process of its own (see `run_side_by_side`).
        told: called with what is being done.
        shared: what all cases start from; run first, in this process.
    """
    run_once(shared, told)
    todo = [case for case in cases if any(not stage.finished for stage in stages(case))]
    run_side_by_side(partial(run_case, stages), todo, jobs=jobs, told=told)


def run_case(stages: Callable[[Case], Iterable[Stage[Any]]], case: Case, told: Told) -> None:
    """Run the stages of one case that are not finished."""
    run_once(stages(case), told)


@contextmanager
def _naming(case: str) -> Iterator[None]:
    """Errors begin with the case, where there is one."""
    try:
        yield
    except DoorwardError as error:
        if not case:
            raise
        raise DoorwardError(f"{case}: {error}") from error
    except RuntimeError as error:  # what torch raises, out of memory on a GPU included
        if not case:
            raise
        line = str(error).strip().split("\n")[0]
        raise DoorwardError(f"{case}: {line}; the same command goes on from what is finished") from error
