"""Every moment can be the last one of a process: what is left is whole, or known and gone on with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from doorward.audits.parts.kept import Kept
from doorward.core import runs
from doorward.core.errors import DoorwardError, OutputExistsError
from doorward.core.files import atomic_write, write_json
from doorward.core.locks import Lock, lock_path
from doorward.core.runs import Run
from doorward.data.cache import new_folder
from doorward.demo.run import prepare

DEAD = 2**22 + 1  # no process has this number


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def written(path: Path, seed: int = 1, **more: Any) -> None:
    with Run(path, "train", {"seed": seed}, **more) as run:
        write_json(run.work / "data.json", {"seed": seed})


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def program(name: str, *arguments: str) -> str:
    """What a program of its own says, on one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", name, *arguments], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_commands_are_killed_at_some_operations() -> None:
    rows = program("benchmarks.crash_points", "attack", "train", "2").split("\n")
    assert [row.split(" | ")[0] for row in rows[2:4]] == ["| attack", "| train"]  # it fails where one of them does


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_whatever_writes_is_killed_at_every_operation_and_raced_for() -> None:
    found = json.loads(program("tests.core.killed"))
    failures = [told for tally in found["killed"].values() for told in tally["failures"]]
    assert not failures + found["races"], failures + found["races"]
    assert sum(tally["cases"] for tally in found["killed"].values()) > 200


@pytest.mark.parametrize("left", [(), (f"partial.json.{DEAD}.tmp",)])
def test_a_folder_without_a_manifest_is_known_as_ours_while_it_holds_nothing(out: Path, left: tuple[str, ...]) -> None:
    work = out.with_name("out.partial")
    work.mkdir()
    for name in left:
        (work / name).write_text("{")
    written(out)
    assert names(out) == ["data.json", "run.json"] and names(out.parent) == ["out"]


def test_a_folder_with_something_of_others_stays(out: Path) -> None:
    work = out.with_name("out.partial")
    work.mkdir()
    (work / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(OutputExistsError, match=r"out\.partial: was not written by doorward"):
            written(out, overwrite=overwrite)
    assert names(work) == ["thesis.txt"] and names(out.parent) == ["out.partial"]


def test_a_run_that_lacks_its_name_alone_gets_it_from_readers_and_writers(out: Path) -> None:
    work = out.with_name("out.partial")
    written(out)
    out.rename(work)
    assert Run.read(out)["settings"] == {"seed": 1} and names(out.parent) == ["out"]
    out.rename(work)
    with pytest.raises(OutputExistsError, match=r"exists already \(an interrupted command had finished it\)"):
        written(out)
    written(out, 2, overwrite=True)
    assert Run.read(out)["settings"] == {"seed": 2} and names(out.parent) == ["out"]


def test_a_run_that_was_moved_away_for_one_that_never_came_is_put_back(out: Path) -> None:
    written(out)
    out.rename(out.with_name("out.partial.old"))
    assert Run.read(out)["settings"] == {"seed": 1} and names(out.parent) == ["out"]


def test_a_folder_that_somebody_called_old_is_theirs(out: Path) -> None:
    written(out)
    written(out.with_name("out.old"), 7)
    written(out, 2, overwrite=True)
    assert Run.read(out.with_name("out.old"))["settings"] == {"seed": 7} and names(out.parent) == ["out", "out.old"]
    (out / "run.json").unlink()
    (out / "data.json").unlink()
    out.rmdir()
    with pytest.raises(DoorwardError, match=r"out\.old holds a whole run"):
        Run.read(out)


def test_what_somebody_makes_meanwhile_is_not_replaced_and_the_run_is_kept(out: Path) -> None:
    told = r"made meanwhile; this run is complete in .*out\.partial"
    with pytest.raises(OutputExistsError, match=told), Run(out, "train", {}) as run:
        write_json(run.work / "data.json", {})
        out.mkdir()
        (out / "thesis.txt").write_text("years of work")
    assert names(out) == ["thesis.txt"]
    out.rename(out.with_name("theirs"))
    assert Run.read(out)["verb"] == "train" and names(out.parent) == ["out", "theirs"]


def test_one_process_at_a_time_and_the_line_says_which(out: Path) -> None:
    with Run(out, "train", {}) as run:
        write_json(run.work / "data.json", {})
        for overwrite in (False, True):
            with pytest.raises(OutputExistsError, match=f"is being written by process {os.getpid()}; expected"):
                written(out, overwrite=overwrite)
        assert (run.work / "data.json").exists()
    assert names(out.parent) == ["out"]


def test_a_lock_that_is_left_says_nothing_and_one_of_others_stays(out: Path) -> None:
    lock_path(out).write_text(f"doorward, process {os.getpid()} on here\n")
    written(out)
    assert names(out.parent) == ["out"]
    lock_path(out).write_text("mine")
    with pytest.raises(DoorwardError, match=r"out\.partial\.lock: was not written by doorward"):
        written(out, overwrite=True)
    assert lock_path(out).read_text() == "mine"


def test_who_waited_for_a_lock_that_was_removed_takes_the_one_that_is_there(out: Path, monkeypatch: Any) -> None:
    first, lies_at = Lock(out), runs.leftovers.Lock.__init__.__globals__["_lies_at"]
    first.release()
    asked = []

    def removed_once(number: int, path: Path) -> bool:
        if not asked:
            path.unlink()
        asked.append(number)
        return bool(lies_at(number, path))

    monkeypatch.setattr("doorward.core.locks._lies_at", removed_once)
    lock = Lock(out)
    assert len(asked) == 2 and lock.path.exists()
    lock.release()


def test_temporary_files_of_the_dead_go_with_the_next_who_writes(out: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Run(out, "train", {}) as run:
        write_json(run.work / "checkpoint.json", {})
        raise KeyboardInterrupt
    (run.work / f"weights.{DEAD}.tmp").write_text("half")
    (run.work / f"steps.{DEAD}.tmp").mkdir()
    (run.work / f"steps.{DEAD}.tmp" / "a").write_text("half")
    with Run(out, "train", {}) as run:
        assert run.resumed and names(run.work) == ["checkpoint.json", "partial.json"]
    for number in (DEAD, os.getppid()):
        (out / f"score.json.{number}.tmp").write_text("half")
    atomic_write(out / "score.json", "{}")
    assert names(out) == ["checkpoint.json", "run.json", "score.json", f"score.json.{os.getppid()}.tmp"]


def test_a_verb_that_starts_over_uses_nothing_of_an_interrupted_run(out: Path) -> None:
    work = out.with_name("out.partial")
    work.mkdir()
    write_json(work / "partial.json", {"verb": "attack", "settings": {"seed": 9}})
    (work / "stray.npy").write_text("x")
    with Run(out, "attack", {"seed": 1}) as run:  # nothing to be kept: no need to be told to drop it
        assert not run.resumed
    assert names(out) == ["run.json"]


def test_a_manifest_that_is_broken_is_dropped_when_that_is_asked_for(out: Path) -> None:
    work = out.with_name("out.partial")
    work.mkdir()
    (work / "partial.json").write_text("")
    with pytest.raises(OutputExistsError, match="or --overwrite to drop it"):
        written(out)
    written(out, overwrite=True)
    assert names(out.parent) == ["out"]


def test_threads_are_told_and_others_on_a_resume_are_noted(out: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(runs, "_threads", lambda: 1)
    with pytest.raises(KeyboardInterrupt), Run(out, "train", {}) as run:
        write_json(run.work / "checkpoint.json", {})
        raise KeyboardInterrupt
    monkeypatch.setattr(runs, "_threads", lambda: 2)
    written_by = Run(out, "train", {})
    with written_by as run:
        assert run.resumed
    assert "begun with 1 threads and goes on with 2" in capsys.readouterr().err
    assert Run.read(out)["threads"] == 2


def test_a_demo_that_is_replaced_is_known_up_to_the_last(tmp_path: Path, monkeypatch: Any) -> None:
    folder = tmp_path / "demo"
    prepare(folder, [1], overwrite=False)
    for name in ("a", "z"):
        (folder / name).mkdir()

    def killed(_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("doorward.demo.run.remove", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(folder, [2], overwrite=True)
    monkeypatch.undo()
    prepare(folder, [2], overwrite=True)
    assert names(folder) == ["demo.json"]


def test_cache_entries_of_the_dead_go_at_once_and_those_of_the_living_stay(tmp_path: Path) -> None:
    made: Callable[..., Any] = new_folder
    with made(tmp_path / "a") as first:
        left = first.with_name(first.name.replace(".a.", ".b."))
        left.mkdir()
        with made(tmp_path / "c") as second:
            (second / "x").write_text("x")
        assert first.is_dir() and not left.exists()
    assert names(tmp_path) == ["a", "c"]


def test_steps_of_an_audit_are_whole_or_gone(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    assert kept.arrays("stage", "step", dict) == {} and names(tmp_path) == ["step.npz"]
