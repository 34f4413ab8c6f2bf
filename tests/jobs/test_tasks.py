"""Tasks write their own results; what is finished is never done again, on any engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from doorward.core.errors import DoorwardError
from doorward.jobs.tasks import finished, read_result, run_tasks, task_name

ITEMS = [{"number": n} for n in range(7)]


def square(item: dict[str, Any]) -> dict[str, np.ndarray]:
    """The square, and a file that shows that the task ran."""
    if "log" in item:
        with Path(item["log"]).open("a") as log:
            log.write(f"{item['number']}\n")
    return {"square": np.array([item["number"] ** 2]), "pid": np.array([os.getpid()])}


def die(item: dict[str, Any]) -> dict[str, np.ndarray]:
    """Kill the worker once, on item 3."""
    marker = Path(item["marker"])
    if item["number"] == 3 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return square(item)


def refuse(item: dict[str, Any]) -> dict[str, np.ndarray]:
    """Raise what a user's mistake raises."""
    raise DoorwardError(f"number {item['number']}; expected another")


def squares(results: list[tuple[int, dict[str, np.ndarray]]]) -> dict[int, int]:
    return {position: int(arrays["square"][0]) for position, arrays in results}


@pytest.mark.parametrize("workers", [1, 2])
def test_every_item_gives_its_result_once(tmp_path: Path, workers: int) -> None:
    results = list(run_tasks(square, ITEMS, tmp_path / "store", workers=workers))
    assert len(results) == 7 and squares(results) == {n: n * n for n in range(7)}
    assert not list((tmp_path / "store").glob("*.tmp"))


def test_what_is_on_disk_is_not_computed_again(tmp_path: Path) -> None:
    log = tmp_path / "log"
    shared = {"log": str(log)}
    list(run_tasks(square, ITEMS[:3], tmp_path / "store", shared=shared))
    assert finished(square, ITEMS, tmp_path / "store") == [0, 1, 2]
    results = list(run_tasks(square, ITEMS[::-1], tmp_path / "store", shared=shared))
    assert log.read_text().split() == ["0", "1", "2", "6", "5", "4", "3"]
    assert [position for position, _ in results[:3]] == [4, 5, 6]  # those on disk come first
    assert squares(results) == {6 - n: n * n for n in range(7)}


def test_the_name_is_that_of_task_and_item_alone(tmp_path: Path) -> None:
    assert task_name(square, {"a": 1, "b": 2}) == task_name(square, {"b": 2, "a": 1})
    assert task_name(square, {"a": 1}) != task_name(square, {"a": 2})
    assert task_name(square, {"a": 1}) != task_name(die, {"a": 1})
    list(run_tasks(square, ITEMS[:1], tmp_path, shared={"log": str(tmp_path / "one")}))
    list(run_tasks(square, ITEMS[:1], tmp_path, shared={"log": str(tmp_path / "two")}))
    assert not (tmp_path / "two").exists()
    assert read_result(tmp_path, task_name(square, ITEMS[0]))["square"][0] == 0


def test_a_killed_local_worker_is_one_line_and_the_rest_is_kept(tmp_path: Path) -> None:
    shared = {"marker": str(tmp_path / "died")}
    with pytest.raises(DoorwardError, match="worker process was killed") as error:
        list(run_tasks(die, ITEMS, tmp_path / "store", shared=shared, workers=2))
    assert "\n" not in str(error.value)
    results = list(run_tasks(die, ITEMS, tmp_path / "store", shared=shared, workers=2))
    assert squares(results) == {n: n * n for n in range(7)}


def test_a_mistake_in_a_worker_reaches_the_user(tmp_path: Path) -> None:
    for workers in (1, 2):
        with pytest.raises(DoorwardError, match="expected another"):
            list(run_tasks(refuse, ITEMS[:2], tmp_path, workers=workers))
    assert not list(tmp_path.glob("*.safetensors"))


def test_unknown_engines_and_no_workers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DoorwardError, match="engine 'steam'; expected one of local, ray"):
        list(run_tasks(square, ITEMS, tmp_path, engine="steam"))  # type: ignore[arg-type]
    with pytest.raises(DoorwardError, match="0 workers"):
        list(run_tasks(square, ITEMS, tmp_path, workers=0))


def test_ray_that_is_not_installed_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DoorwardError, match="pip install 'doorward\\[ray\\]'"):
        list(run_tasks(square, ITEMS, tmp_path, engine="ray"))


ON_RAY = """
import subprocess, sys
from pathlib import Path
import test_tasks
from doorward.jobs.tasks import run_tasks
from doorward.core.errors import DoorwardError
store, shared = Path(sys.argv[1]), {"marker": sys.argv[2]}
results = []
for result in run_tasks(test_tasks.die, test_tasks.ITEMS, store, shared=shared, workers=2, engine="ray"):
    if not results:
        import ray
        print([node["NodeManagerAddress"] for node in ray.nodes()])
        try:
            list(run_tasks(test_tasks.refuse, test_tasks.ITEMS, store, engine="ray"))
        except DoorwardError as error:
            print(error)
    results.append(result)
print(dict(sorted(test_tasks.squares(results).items())))
print(len({int(arrays["pid"][0]) for _, arrays in results}) > 1)
"""


@pytest.mark.slow
def test_ray_runs_a_killed_workers_task_again_and_stays_on_loopback(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs pip install 'doorward[ray]'")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", ON_RAY, str(tmp_path / "store"), str(tmp_path / "died")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    address, refused, results, several_workers = done.stdout.splitlines()
    assert address == "['127.0.0.1']"
    assert results == str({n: n * n for n in range(7)}) and several_workers == "True"
    assert refused.endswith("; expected another")
    assert (tmp_path / "died").exists() and len(list((tmp_path / "store").glob("*.safetensors"))) == 7


def test_a_cluster_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs pip install 'doorward[ray]'")
    code = (
        "import sys; from pathlib import Path; import test_tasks; from doorward.jobs.tasks import run_tasks\n"
        "try: list(run_tasks(test_tasks.square, test_tasks.ITEMS, Path(sys.argv[1]), engine='ray'))\n"
        "except test_tasks.DoorwardError as error: print(error)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "RAY_ADDRESS": "nonsense"}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True)
    assert done.stdout.startswith("engine 'ray': cannot reach a cluster, RAY_ADDRESS='nonsense'"), done.stderr
    assert len(done.stdout.splitlines()) == 1
