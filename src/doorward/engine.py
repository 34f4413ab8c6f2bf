"""`run_tasks`: many independent tasks, each writing its own result, on one process, several, or a Ray cluster.

A task is named by a content hash of its function and its item. A result that is on disk is not made again, so a
killed run goes on where it stopped, on any engine.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from doorward.errors import DoorwardError

Arrays = dict[str, NDArray[Any]]
Task = Callable[[dict[str, Any]], Arrays]
EngineName = Literal["local", "ray"]


def task_name(task: Task, item: dict[str, Any]) -> str:
    """Content hash of a task: the function's full name and the item as canonical JSON."""
    text = json.dumps([task.__module__, task.__qualname__, item], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _finish(task: Task, item: dict[str, Any], store: str, threads: int | None) -> str:
    """Run one task and write its result under its own name; return that name. Runs in a worker."""
    from safetensors.numpy import save_file

    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    name = task_name(task, item)
    temporary = Path(store) / f"{name}.{os.getpid()}.tmp"
    save_file({k: np.ascontiguousarray(v) for k, v in task(item).items()}, str(temporary))
    temporary.replace(Path(store) / f"{name}.safetensors")
    return name


def read_result(store: Path, name: str) -> Arrays:
    """The arrays that a finished task wrote."""
    from safetensors.numpy import load_file

    return dict(load_file(str(store / f"{name}.safetensors")))


def run_tasks(
    task: Task,
    items: Sequence[dict[str, Any]],
    store: Path,
    *,
    workers: int = 1,
    engine: EngineName = "local",
) -> Iterator[tuple[int, Arrays]]:
    """Yield (position in ``items``, result) for every item, those already on disk first, then as they finish.

    Args:
        task: a function at module level that depends on its item alone (JSON values) and returns NumPy arrays.
        items: what to run it on.
        store: folder of the results, one safetensors file per task; made when absent.
        workers: processes (``local``) or tasks at a time (``ray``); 1 runs in this process.
        engine: ``local`` uses joblib; ``ray`` the cluster that ``RAY_ADDRESS`` names, or a new one on loopback.

    A worker that dies loses its task only; on Ray the task is run again elsewhere.
    """
    store.mkdir(parents=True, exist_ok=True)
    names = [task_name(task, item) for item in items]
    open_positions = []
    for position, name in enumerate(names):
        if (store / f"{name}.safetensors").exists():
            yield position, read_result(store, name)
        else:
            open_positions.append(position)
    position_of = {names[p]: p for p in open_positions}
    for name in _engine(engine)(task, [items[p] for p in open_positions], store, workers):
        yield position_of[name], read_result(store, name)


def _engine(name: str) -> Callable[[Task, list[dict[str, Any]], Path, int], Iterator[str]]:
    engines = {"local": _local, "ray": _ray}
    if name not in engines:
        raise DoorwardError(f"engine {name!r}; expected one of {', '.join(engines)}")
    return engines[name]


def _local(task: Task, items: list[dict[str, Any]], store: Path, workers: int) -> Iterator[str]:
    if workers == 1 or len(items) <= 1:
        for item in items:
            yield _finish(task, item, str(store), None)
        return
    from joblib import Parallel, delayed

    threads = max(1, (os.cpu_count() or 1) // workers)
    pool = Parallel(n_jobs=workers, return_as="generator_unordered", batch_size=1)
    yield from pool(delayed(_finish)(task, item, str(store), threads) for item in items)


def _ray(task: Task, items: list[dict[str, Any]], store: Path, workers: int) -> Iterator[str]:
    try:
        import ray
    except ImportError:
        raise DoorwardError("engine 'ray': ray is not installed; expected pip install 'doorward[ray]'") from None
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    remote = ray.remote(num_cpus=1, max_retries=3)(_finish)
    waiting = list(reversed(items))
    running: list[Any] = []
    while waiting or running:
        while waiting and len(running) < workers:
            running.append(remote.remote(task, waiting.pop(), str(store.absolute()), 1))
        done, running = ray.wait(running, num_returns=1)
        yield from ray.get(done)
