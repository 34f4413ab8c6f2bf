"""`Run`: a folder that holds results and everything needed to repeat them.

A run is written as ``NAME.partial`` and renamed to ``NAME`` when it is complete, so that ``NAME`` is never
half-written. A killed run leaves ``NAME.partial``; the same command with the same settings goes on from there.
"""

from __future__ import annotations

import json
import platform
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import BaseModel

from doorward.core.errors import CannotWriteError, DoorwardError, OutputExistsError
from doorward.core.files import write_json
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

    Raises:
        OutputExistsError: ``path`` exists and ``overwrite`` is False, or is a folder that no run wrote.

    On an ordinary exception nothing is left but what can be resumed; ``path`` itself appears only when complete.
    """

    path: Path
    verb: str
    settings: dict[str, Any]
    overwrite: bool = False
    command: str = ""
    results: dict[str, Any] = field(default_factory=dict)
    verdict: str | None = None
    resumed: bool = False
    _started: float = 0.0
    _earlier: float = 0.0

    @property
    def work(self) -> Path:
        """The folder to write into until the run is complete."""
        return self.path.with_name(self.path.name + ".partial")

    def __enter__(self) -> Run:
        self.path = self.path.absolute()
        self._refuse_if_taken()
        self._started = time.monotonic()
        try:
            self._prepare_work()
        except OSError as error:
            raise DoorwardError(
                f"{self.work}: cannot be written ({error.strerror}); expected a writable place"
            ) from None
        return self

    def _refuse_if_taken(self) -> None:
        if not self.path.exists():
            return
        if not self.overwrite:
            raise OutputExistsError(f"{self.path}: exists already; expected a new folder, or --overwrite to replace it")
        for name, value in self.settings.items():
            if isinstance(value, str) and value and Path(value).absolute().is_relative_to(self.path):
                raise OutputExistsError(f"{self.path}: is what this run reads ({name}); expected another folder")
        is_run = (self.path / "run.json").exists()
        if not self.path.is_dir() or (not is_run and any(self.path.iterdir())):
            raise OutputExistsError(f"{self.path}: was not written by doorward, so --overwrite does not replace it")

    def _prepare_work(self) -> None:
        state = {"verb": self.verb, "settings": self.settings, "versions": versions()}
        manifest = self.work / "partial.json"
        if self.work.exists():
            known = read_json(manifest) if manifest.exists() else {}
            if {k: known.get(k) for k in state} == json.loads(json.dumps(state)):
                self.resumed, self._earlier = True, float(known.get("seconds", 0.0))
                return
            if not known and any(self.work.iterdir()):
                raise OutputExistsError(f"{self.work}: was not written by doorward; expected that name to be free")
            if known and not self.overwrite:
                hint = "repeat its settings, or --overwrite to drop it"
                raise OutputExistsError(f"{self.work}: an unfinished run with other settings; {hint}")
            shutil.rmtree(self.work)
        self.work.mkdir(parents=True)
        write_json(manifest, state)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds = self._earlier + time.monotonic() - self._started
        if kind is not None:
            kept = "; what was finished is kept for a resume" if self._keep_or_drop(seconds) else ""
            if isinstance(error, OSError):
                told = f"{error.filename or self.work}: {error.strerror or f'{error} (is the disk full?)'}"
                raise DoorwardError(f"{told}{kept}") from None
            if isinstance(error, CannotWriteError):
                raise CannotWriteError(f"{error}{kept}") from None
            return
        write_json(
            self.work / "run.json",
            {
                "schema": SCHEMA,
                "verb": self.verb,
                "verdict": self.verdict,
                "command": self.command,
                "settings": self.settings,
                "results": self.results,
                "versions": versions(),
                "platform": platform.platform(),
                "seconds": round(seconds, 3),
            },
        )
        (self.work / "partial.json").unlink(missing_ok=True)
        if self.path.exists():
            old = self.path.with_name(self.path.name + ".old")
            self.path.rename(old)
            self.work.rename(self.path)
            shutil.rmtree(old)
        else:
            self.work.rename(self.path)
        _whole.append(self.path)

    def keep(self, record: BaseModel) -> dict[str, Any]:
        """The results of the run, and its verdict where the record comes to one; returns them as plain values."""
        self.results = record.model_dump(mode="json")
        judgement = self.results.get("judgement")
        self.verdict = judgement["level"] if isinstance(judgement, dict) else None
        return self.results

    def _keep_or_drop(self, seconds: float) -> bool:
        """Keep finished work for a resume; leave no trace when there is none. Whether there is."""
        files = [p for p in self.work.rglob("*") if p.is_file() and p != self.work / "partial.json"]
        left = bool(files) and self.verb not in _STARTS_OVER
        if left:
            _left.append(self.path)
        with suppress(OSError, CannotWriteError):
            if left:
                manifest = self.work / "partial.json"
                write_json(manifest, {**read_json(manifest), "seconds": seconds})
            else:
                shutil.rmtree(self.work)
        return left

    @staticmethod
    def read(path: Path | str, verb: str | None = None) -> dict[str, Any]:
        """The manifest of a finished run, checked to be of ``verb`` when one is given."""
        path = Path(path)
        manifest = path / "run.json"
        if not manifest.exists():
            partial = path.with_name(path.name + ".partial").exists()
            hint = (
                "its run was interrupted; repeat the command to finish it"
                if partial
                else "expected a folder written by doorward"
            )
            raise DoorwardError(f"{path}: holds no run.json; {hint}")
        run = read_json(manifest)
        _check_schema(manifest, run.get("schema", 1))
        if verb is not None and run.get("verb") != verb:
            raise DoorwardError(
                f"{path}: was written by 'doorward {run.get('verb')}'; expected a run of 'doorward {verb}'"
            )
        return run


def _check_schema(manifest: Path, found: Any) -> None:
    """Refuse a manifest of another schema, naming the version that reads it."""
    if found != SCHEMA:
        reader = _READERS.get(found if isinstance(found, int) else 0, "a newer version of doorward")
        raise DoorwardError(f"{manifest}: schema {found!r}, which {reader} reads; expected schema {SCHEMA}")
