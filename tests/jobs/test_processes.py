"""Long tasks side by side: every item once, their words relayed, the first failure told in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from doorward.core.errors import DoorwardError
from doorward.jobs.processes import Told, default_jobs, run_side_by_side


def note(folder: Path, item: int, told: Told) -> None:
    """Leave a file with the process and its threads, and say so."""
    import torch

    time.sleep(0.2)
    (folder / f"{item}").write_text(f"{os.getpid()} {torch.get_num_threads()}")
    told(f"item {item}")


def refuse_one(item: int, told: Told) -> None:
    """Item 1 is a mistake of the user."""
    if item == 1:
        raise DoorwardError("item 1; expected another")


def die(item: int, told: Told) -> None:
    """Be killed."""
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_item_runs_once_and_is_told(tmp_path: Path, jobs: int) -> None:
    told: list[str] = []
    run_side_by_side(partial(note, tmp_path), range(5), jobs=jobs, told=told.append)
    written = [path.read_text().split() for path in sorted(tmp_path.iterdir())]
    assert sorted(told) == [f"item {n}" for n in range(5)] and len(written) == 5
    assert len({pid for pid, _ in written}) == jobs
    if jobs == 1:
        assert {pid for pid, _ in written} == {str(os.getpid())}
    else:
        assert {threads for _, threads in written} == {str(max(1, (os.cpu_count() or 1) // jobs))}


def test_threads_depend_on_the_jobs_and_not_on_how_many_items_are_left(tmp_path: Path) -> None:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        run_side_by_side(partial(note, tmp_path), [7], jobs=2)
        assert torch.get_num_threads() == 3, "as it was"
    finally:
        torch.set_num_threads(before)
    assert (tmp_path / "7").read_text().split()[1] == str(max(1, (os.cpu_count() or 1) // 2))


def test_the_first_mistake_is_told_and_a_killed_process_too() -> None:
    with pytest.raises(DoorwardError, match="^item 1; expected another$"):
        run_side_by_side(refuse_one, range(4), jobs=2)
    with pytest.raises(DoorwardError, match="a worker process was killed .* repeat the command"):
        run_side_by_side(die, range(4), jobs=2)
    with pytest.raises(DoorwardError, match="^0 jobs; expected 1 or more$"):
        run_side_by_side(refuse_one, range(4), jobs=0)


def test_ctrl_c_ends_the_workers(tmp_path: Path) -> None:
    script = (
        "from functools import partial; from pathlib import Path; import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored where a shell ran the tests with '&'
        "from tests.jobs.test_processes import note_and_wait\n"
        "from doorward.jobs.processes import run_side_by_side\n"
        f"run_side_by_side(partial(note_and_wait, Path({str(tmp_path)!r})), range(4), jobs=2)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=90) != 0  # a busy machine takes its time
    pids = [int(path.read_text()) for path in tmp_path.iterdir()]
    time.sleep(1)
    assert len(pids) == 2 and not any(Path(f"/proc/{pid}").exists() for pid in pids)


def note_and_wait(folder: Path, item: int, told: Told) -> None:
    """Leave the process's number and wait for a long time."""
    (folder / f"{item}").write_text(str(os.getpid()))
    time.sleep(120)


def test_default_jobs_are_the_cores_of_a_cpu() -> None:
    assert default_jobs("cpu") == os.cpu_count()
