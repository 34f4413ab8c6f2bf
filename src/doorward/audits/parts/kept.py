"""Steps of an audit whose arrays and nets are kept in files, so that an interrupted one goes on from there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from doorward.core.classifier import Classifier, pick_device
from doorward.core.errors import DoorwardError
from doorward.core.files import atomic_write, write_json
from doorward.core.opening import read_json
from doorward.core.progress import Progress
from doorward.jobs.processes import limited_threads
from doorward.models.files import load_classifier, save_classifier
from doorward.models.open.architectures import Named

Arrays = dict[str, NDArray[Any]]
_CLOCK = "seconds.json"


@dataclass
class Kept:
    """Runs steps by name; what a step made is read from its file where an interrupted audit has left it.

    Args:
        folder: of the files; None keeps nothing.
        progress: called with (stage, steps done, 0) as every step begins.
        seconds: what every stage took, by its name.
        clock: file that keeps them; None where they are this process's alone.
    """

    folder: Path | None = None
    progress: Progress | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    clock: Path | None = None

    @classmethod
    def resumed(cls, folder: Path | None, progress: Progress | None = None) -> Kept:
        """One whose seconds are added to those of the processes before it."""
        clock = None if folder is None else folder / _CLOCK
        return cls(folder, progress, {} if clock is None else _clocked(clock), clock)

    def arrays(self, stage: str, name: str, make: Callable[[], Arrays]) -> Arrays:
        """The arrays of step ``name`` of a stage, made now or read."""
        self.tell(stage, name)
        path = None if self.folder is None else self.folder / f"{name.replace(' ', '-')}.npz"
        if path is not None and path.exists():
            return _read(path)
        with self.timed(stage):
            made = make()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, lambda temporary: _write(temporary, made))
        return made

    def net(
        self, stage: str, name: str, make: Callable[[], Classifier], device: str = "auto", arch: Named | None = None
    ) -> Classifier:
        """The net of step ``name``, trained now or read.

        Args:
            device: that it is read to.
            arch: what it was made with, where that is the user's own; never what a file of the folder names.
        """
        self.tell(stage, name)
        path = None if self.folder is None else self.folder / name.replace(" ", "-")
        if path is not None and (path / "classifier.json").exists():  # written last
            return load_classifier(path, pick_device(device), arch=arch)
        with self.timed(stage):
            made = make()
        if path is not None:
            path.mkdir(parents=True, exist_ok=True)
            save_classifier(made, path)
        return made

    def several(self, stage: str, steps: Mapping[str, Callable[[], Arrays]], at_once: int) -> list[Arrays]:
        """The arrays of steps that do not need each other, in order; so many of them at once, each in one thread.

        A single one at a time has all threads.
        """
        own = Kept(self.folder, self.progress)  # its clock is not read: steps that overlap would count twice
        if at_once == 1:
            with self.timed(stage):
                return [own.arrays(stage, *step) for step in steps.items()]
        pool = ThreadPoolExecutor(at_once, initializer=torch.set_num_threads, initargs=(1,))
        with limited_threads(0), pool, self.timed(stage):
            try:
                return list(pool.map(lambda step: own.arrays(stage, *step), steps.items()))
            finally:
                pool.shutdown(cancel_futures=True)

    def tell(self, stage: str, note: str) -> None:
        """Say what is being done."""
        if self.progress:
            self.progress(stage, 0, 0, note)

    def timed(self, stage: str) -> _Timed:
        """Counts the time within a block to a stage."""
        return _Timed(self, stage)

    def below(self, name: str) -> Kept:
        """The same for the steps of one round: a folder of its own, the same clock."""
        return Kept(None if self.folder is None else self.folder / name, self.progress, self.seconds, self.clock)


class _Timed:
    def __init__(self, kept: Kept, stage: str) -> None:
        self.kept, self.stage = kept, stage

    def __enter__(self) -> None:
        self.started = time.monotonic()

    def __exit__(self, *_: object) -> None:
        seconds, clock = self.kept.seconds, self.kept.clock
        seconds[self.stage] = seconds.get(self.stage, 0.0) + time.monotonic() - self.started
        if clock is not None:
            clock.parent.mkdir(parents=True, exist_ok=True)
            write_json(clock, seconds)


def _clocked(path: Path) -> dict[str, float]:
    """Seconds that earlier processes have written; none where a file cannot be read, for they are told alone."""
    try:
        return {stage: float(value) for stage, value in read_json(path).items()}
    except (OSError, ValueError, TypeError, DoorwardError):
        return {}


def _write(path: Path, arrays: Arrays) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _read(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, KeyError) as error:
        raise DoorwardError(f"{path}: a step of an audit that cannot be read ({error}); remove it") from None
