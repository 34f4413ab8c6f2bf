"""`Run`: a folder that holds results and everything needed to repeat them.

A run is written as ``NAME.partial`` and renamed to ``NAME`` when it is complete, so that ``NAME`` is never
half-written. A killed run leaves ``NAME.partial``; the same command with the same settings goes on from there. One
process at a time writes it (`doorward.core.locks`); `doorward.core.leftovers` says what a killed one may leave.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import BaseModel

from doorward.core import leftovers
from doorward.core.errors import CannotWriteError, DoorwardError, OutputExistsError, show
from doorward.core.files import write_json
from doorward.core.leftovers import FINISHED, UNFINISHED
from doorward.core.locks import Lock
from doorward.core.opening import read_json

SCHEMA = 2  # of run.json; it changes when a reader of the one before would misread it
_READERS = {1: "doorward 0.1"}  # who reads older ones
_STARTS_OVER = ("attack", "cleanse", "screen")  # verbs that read nothing of an interrupted run
_VERSIONED = ("doorward", "torch", "numpy", "scipy", "scikit-learn", "safetensors", "pillow", "duckdb")


_left: list[Path] = []  # partial runs of this process that can be gone on with
_whole: list[Path] = []  # finished ones


def after_interrupt() -> str:
    """What an interrupted command left, in words."""
    if _left:
        return "the same command goes on from here"
    return f"{_whole[-1]} is complete" if _whole else "nothing of this call is kept"


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    """Looked up once: it takes some 15 ms, and a command may write hundreds of runs."""
    found = {"python": platform.python_version()}
    for package in _VERSIONED:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


@dataclass
class Run:
    """A run being written; use as a context manager.

    Args:
        path: the folder that the finished run will have.
        verb: what made it (``attack``, ``train``, ...).
        settings: all settings, resolved; plain JSON values. Equal settings resume an interrupted run.
        overwrite: replace a finished run of that name, once this one is complete.
        command: the command line that repeats it.
        fresh: begin anew even where an interrupted run of the same settings lies.

    Raises:
        OutputExistsError: ``path`` exists and ``overwrite`` is False, or is a folder that no run wrote; or another
            process is writing it.

    On an ordinary exception nothing is left but what can be resumed; ``path`` itself appears only when complete.
    """

    path: Path
    verb: str
    settings: dict[str, Any]
    overwrite: bool = False
    command: str = ""
    fresh: bool = False
    results: dict[str, Any] = field(default_factory=dict)
    verdict: str | None = None
    resumed: bool = False
    _started: float = 0.0
    _earlier: float = 0.0
    _lock: Lock | None = None

    @property
    def work(self) -> Path:
        """The folder to write into until the run is complete."""
        return leftovers.work_path(self.path)

    @property
    def _seconds(self) -> float:
        return self._earlier + time.monotonic() - self._started

    def __enter__(self) -> Run:
        self.path = self.path.absolute()
        if not leftovers.leftovers(self.path):  # a name that is taken is told without writing anything
            self._refuse_if_taken()
        self._lock = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = Lock(self.path)
            self._refuse_if_taken(leftovers.settle(self.path))
            self._prepare_work()
        except BaseException as error:
            self._unlock()
            if isinstance(error, OSError):
                told = f"{self.work}: cannot be written ({error.strerror}); expected a writable place"
                raise DoorwardError(told) from None
            raise
        self._started = time.monotonic()
        return self

    def _unlock(self) -> None:
        if self._lock is not None:
            with suppress(OSError):
                self.work.rmdir()  # where nothing was begun
            self._lock.release()

    def _refuse_if_taken(self, why: str = "") -> None:
        if not os.path.lexists(self.path):
            return
        if not self.overwrite:
            told = f"{show(self.path)}: exists already{f' ({why})' if why else ''}"
            raise OutputExistsError(f"{told}; expected a new folder, or --overwrite to replace it")
        for name, value in self.settings.items():
            if isinstance(value, str) and value and Path(value).absolute().is_relative_to(self.path):
                raise OutputExistsError(f"{self.path}: is what this run reads ({name}); expected another folder")
        is_run = (self.path / FINISHED).exists()
        if not self.path.is_dir() or (not is_run and any(self.path.iterdir())):
            raise OutputExistsError(f"{self.path}: was not written by doorward, so --overwrite does not replace it")

    def _prepare_work(self) -> None:
        state = {"verb": self.verb, "settings": self.settings, "versions": versions()}
        manifest = self.work / UNFINISHED
        if os.path.lexists(self.work):
            known = self._known()
            same = {k: known.get(k) for k in state} == json.loads(json.dumps(state))
            if same and manifest.exists() and not self.fresh and self.verb not in _STARTS_OVER:
                self.resumed, self._earlier = True, float(known.get("seconds", 0.0))
                (self.work / FINISHED).unlink(missing_ok=True)
                leftovers.sweep(self.work)
                _tell_threads(known.get("threads"))
            else:
                worth = known and known.get("verb") not in _STARTS_OVER and not (same and self.fresh)
                if worth and not self.overwrite:
                    hint = "repeat its settings, or --overwrite to drop it"
                    raise OutputExistsError(f"{self.work}: an unfinished run with other settings; {hint}")
                leftovers.empty(self.work)
        self.work.mkdir(exist_ok=True)
        write_json(manifest, {**state, "seconds": self._earlier, "threads": _threads()})
        leftovers.sync(self.work)

    def _known(self) -> dict[str, Any]:
        """What an interrupted run says of itself; nothing where it was killed before it began."""
        for manifest in (self.work / UNFINISHED, self.work / FINISHED):  # the latter: it lost its name to this one
            if manifest.is_file():
                try:
                    return read_json(manifest)
                except DoorwardError:
                    return {"verb": None}  # broken: dropped when that is asked for
        if not leftovers.is_blank(self.work):
            raise OutputExistsError(f"{self.work}: was not written by doorward; expected that name to be free")
        return {}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                try:
                    self._finish()
                    return
                except (OSError, CannotWriteError) as failed:
                    error = failed
                except KeyboardInterrupt:
                    (_left if self.work.exists() else _whole).append(self.path)
                    raise
            kept = "; what was finished is kept for a resume" if self._keep_or_drop() else ""
            if isinstance(error, OSError):
                told = f"{error.filename or self.work}: {error.strerror or f'{error} (is the disk full?)'}"
                raise DoorwardError(f"{told}{kept}") from None
            if isinstance(error, CannotWriteError):
                raise CannotWriteError(f"{error}{kept}") from None
        finally:
            self._unlock()

    def _finish(self) -> None:
        """From an unfinished run to one that has its name; every step leaves something that is whole."""
        leftovers.sweep(self.work)
        leftovers.sync(self.work, below=True)
        self.write_manifest()
        (self.work / UNFINISHED).unlink()
        leftovers.sync(self.work)
        self._refuse_if_taken(f"made meanwhile; this run is complete in {show(self.work)}")
        leftovers.publish(self.path)
        _whole.append(self.path)

    def write_manifest(self) -> None:
        """Write ``run.json``; the run is not complete before its block ends."""
        write_json(
            self.work / FINISHED,
            {
                "schema": SCHEMA,
                "verb": self.verb,
                "verdict": self.verdict,
                "command": self.command,
                "settings": self.settings,
                "results": self.results,
                "versions": versions(),
                "platform": platform.platform(),
                "threads": _threads(),
                "seconds": round(self._seconds, 3),
            },
        )

    def keep(self, record: BaseModel) -> dict[str, Any]:
        """The results of the run, and its verdict where the record comes to one; returns them as plain values."""
        self.results = record.model_dump(mode="json")
        judgement = self.results.get("judgement")
        self.verdict = judgement["level"] if isinstance(judgement, dict) else None
        return self.results

    def _keep_or_drop(self) -> bool:
        """Keep finished work for a resume; leave no trace when there is none. Whether there is."""
        if leftovers.is_complete(self.work):  # all but its name
            return True
        with suppress(OSError):
            leftovers.sweep(self.work)
        aside = (self.work / UNFINISHED, self.work / FINISHED)
        left = any(p.is_file() and p not in aside for p in self.work.rglob("*")) and self.verb not in _STARTS_OVER
        if left:
            _left.append(self.path)
        with suppress(OSError, CannotWriteError):
            if left:
                manifest = self.work / UNFINISHED
                write_json(manifest, {**read_json(manifest), "seconds": self._seconds, "threads": _threads()})
            else:
                leftovers.discard(self.work)
        return left

    @staticmethod
    def read(path: Path | str, verb: str | None = None) -> dict[str, Any]:
        """The manifest of a finished run, checked to be of ``verb`` when one is given."""
        path = Path(path)
        manifest = path / FINISHED
        if not leftovers.has_its_name(path) or not manifest.exists():
            raise DoorwardError(f"{path}: holds no run.json; {leftovers.hint(path)}")
        run = read_json(manifest)
        _check_schema(manifest, run.get("schema", 1))
        run.setdefault("settings", {})
        for name, kind in (("verb", str), ("settings", dict), ("results", dict)):
            if not isinstance(run.get(name), kind):
                found = type(run[name]).__name__ if name in run else "nothing"
                raise DoorwardError(f"{show(manifest)}: {name} is {found}; expected a file written by doorward")
        if verb is not None and run.get("verb") != verb:
            raise DoorwardError(
                f"{path}: was written by 'doorward {run.get('verb')}'; expected a run of 'doorward {verb}'"
            )
        return run


def _threads() -> int | None:
    """Threads of torch, by whose number sums are rounded; None where it is not imported."""
    torch = sys.modules.get("torch")
    return int(torch.get_num_threads()) if torch is not None and hasattr(torch, "get_num_threads") else None


def _tell_threads(before: Any) -> None:
    now = _threads()
    if None not in (before, now) and before != now:
        told = f"this run was begun with {before} threads and goes on with {now}; its numbers may differ in their last"
        print(f"note: {told} digits from those of a run without interruption", file=sys.stderr, flush=True)


def _check_schema(manifest: Path, found: Any) -> None:
    """Refuse a manifest of another schema, naming the version that reads it."""
    if found != SCHEMA:
        reader = _READERS.get(found if isinstance(found, int) else 0, "a newer version of doorward")
        raise DoorwardError(f"{manifest}: schema {found!r}, which {reader} reads; expected schema {SCHEMA}")
