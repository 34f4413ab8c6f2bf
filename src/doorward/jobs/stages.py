"""What reproduced papers share: folders claimed by their settings, stages run once, failures told in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from doorward.core.errors import DoorwardError, OutputExistsError
from doorward.core.files import read_json
from doorward.jobs.processes import Told

MANIFEST = "reproduce.json"  # in the folder of the runs: their settings


class Runnable(Protocol):
    """A stage: one run in a folder of its own."""

    @property
    def label(self) -> str:
        """For people."""
        ...

    @property
    def path(self) -> Path:
        """Of its run."""
        ...

    @property
    def make(self) -> Callable[[Told], object]:
        """Makes it."""
        ...

    @property
    def finished(self) -> bool:
        """Whether its run is complete."""
        ...

    @property
    def needed(self) -> Callable[[], bool]:
        """False when there is nothing to do, known once the stages before it are finished."""
        ...


def claim_folder(folder: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Make the folder of the runs, or go on in one whose runs were made with the same settings.

    Returns: what its `MANIFEST` says; empty for a new folder. The caller writes it.
    """
    manifest, known = folder / MANIFEST, dict[str, Any]()
    if manifest.exists():
        known = read_json(manifest)
        refuse_other(f"{folder}: holds runs with", known, asked, "a new folder (-o)")
    elif folder.exists() and any(folder.iterdir()):
        raise OutputExistsError(f"{folder}: exists and holds no {MANIFEST}; expected a new folder (-o)")
    folder.mkdir(parents=True, exist_ok=True)
    return known


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


def run_once(stages: Iterable[Runnable], told: Told) -> None:
    """Run the stages that are not finished, in order."""
    for stage in stages:
        if not stage.finished and stage.needed():
            told(stage.label)
            stage.path.parent.mkdir(parents=True, exist_ok=True)
            stage.make(told)


@contextmanager
def naming(case: str) -> Iterator[None]:
    """What fails is told in one line that names the case."""
    try:
        yield
    except DoorwardError as error:
        raise DoorwardError(f"{case}: {error}") from error
    except RuntimeError as error:  # what torch raises, out of memory on a GPU included
        line = str(error).strip().split("\n")[0]
        raise DoorwardError(f"{case}: {line}; the same command goes on from what is finished") from error
