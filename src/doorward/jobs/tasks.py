"""`run_tasks`: many independent tasks, each with its own result on disk, on one process, several, or a Ray cluster.

A task is named by a content hash of its function and its item. A result that is on disk is not made again, so a
killed run goes on where it stopped, on any engine.

Ray: ``ray start --head --node-ip-address=127.0.0.1`` (and ``ray start --address=HOST:6379`` on other machines), then
set ``RAY_ADDRESS=HOST:6379``; without it a cluster of this machine's cores is started on loopback and ended with the
process. Results travel back to the driver, which writes them, so the machines need no common disk.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from doorward.core.errors import DoorwardError
from doorward.core.tensors import write_tensors

Arrays = dict[str, NDArray[Any]]
Item = dict[str, Any]
Task = Callable[[Item], Arrays]
EngineName = Literal["local", "ray"]


def task_name(task: Task, item: Item) -> str:
    """Content hash of a task: the function's full name and the item as canonical JSON."""
    text = json.dumps([task.__module__, task.__qualname__, item], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _write(store: Path, name: str, arrays: Arrays) -> None:
    write_tensors(store / f"{name}.safetensors", arrays)


def _finish(task: Task, item: Item, shared: Item, store: str, threads: int | None) -> str:
    """Run one task and write its result under its own name; return that name. Runs in a worker."""
    _limit_threads(threads)
    name = task_name(task, item)
    _write(Path(store), name, task({**item, **shared}))
    return name


def _limit_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def read_result(store: Path, name: str) -> Arrays:
    """The arrays that a finished task wrote."""
    from safetensors.numpy import load_file

    return dict(load_file(str(store / f"{name}.safetensors")))


def finished(task: Task, items: Sequence[Item], store: Path) -> list[int]:
    """Positions of the items whose result is on disk; `run_tasks` yields those first, in this order."""
    return [p for p, item in enumerate(items) if (store / f"{task_name(task, item)}.safetensors").exists()]


def run_tasks(
    task: Task,
    items: Sequence[Item],
    store: Path,
    *,
    shared: Item | None = None,
    workers: int = 1,
    engine: EngineName = "local",
) -> Iterator[tuple[int, Arrays]]:
    """Yield (position in ``items``, result) for every item, those already on disk first, then as they finish.

    Args:
        task: a function at module level that depends on what it is given alone and returns NumPy arrays.
        items: what to run it on (JSON values).
        store: folder of the results, one safetensors file per task; made when absent.
        shared: more entries that every task gets beside its item, such as large arrays. They are no part of a task's
            name: put a hash of whatever decides the result into the items.
        workers: processes (``local``) or tasks at a time (``ray``); 1 runs in this process.
        engine: ``local`` uses joblib; ``ray`` the cluster that ``RAY_ADDRESS`` names, or a new one on loopback.

    Raises:
        DoorwardError: a worker was killed (``local``), or too often (``ray``); what is finished is kept.

    A worker that dies loses its task only; on Ray the task is run again elsewhere.
    """
    if workers < 1:
        raise DoorwardError(f"{workers} workers; expected 1 or more")
    run = _engine(engine)
    store.mkdir(parents=True, exist_ok=True)
    names = [task_name(task, item) for item in items]
    on_disk = finished(task, items, store)
    position_of = {names[p]: p for p in sorted(set(range(len(items))) - set(on_disk))}
    for position in on_disk:
        yield position, read_result(store, names[position])
    if position_of:
        for name in run(task, [items[p] for p in position_of.values()], shared or {}, store, workers):
            yield position_of[name], read_result(store, name)


def _engine(name: str) -> Callable[[Task, list[Item], Item, Path, int], Iterator[str]]:
    engines = {"local": _local, "ray": _ray}
    if name not in engines:
        raise DoorwardError(f"engine {name!r}; expected one of {', '.join(engines)}")
    return engines[name]


def _local(task: Task, items: list[Item], shared: Item, store: Path, workers: int) -> Iterator[str]:
    if workers == 1 or len(items) <= 1:
        for item in items:
            yield _finish(task, item, shared, str(store), None)
        return
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    threads = max(1, (os.cpu_count() or 1) // workers)
    pool = Parallel(n_jobs=workers, return_as="generator_unordered", batch_size=1, max_nbytes=None)
    try:
        yield from pool(delayed(_finish)(task, item, shared, str(store), threads) for item in items)
    except TerminatedWorkerError:
        raise DoorwardError(
            "a worker process was killed (out of memory?); repeat the command to go on from what is finished"
        ) from None


def _ray(task: Task, items: list[Item], shared: Item, store: Path, workers: int) -> Iterator[str]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere unless the user asks for it
    if not os.environ.get("RAY_ADDRESS"):
        # Ray's own switch for one machine: every server listens on loopback. Read when ray is imported.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError:
        raise DoorwardError("engine 'ray': ray is not installed; expected pip install 'doorward[ray]'") from None
    if ray.is_initialized():
        yield from _ray_results(ray, task, items, shared, store, workers)
        return
    _start_ray(ray, workers)
    try:
        yield from _ray_results(ray, task, items, shared, store, workers)
    finally:
        with suppress(Exception):  # an error while leaving would hide the one that made us leave
            ray.shutdown()


def _start_ray(ray: Any, workers: int) -> None:
    address = os.environ.get("RAY_ADDRESS")
    local = {} if address else {"num_cpus": workers, "include_dashboard": False}
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", **local)
        # Ray tells of a dead worker on stdout, which belongs to the caller; its task is run again anyway.
        ray._private.worker._worker_logs_enabled = False
    except Exception as error:
        raise DoorwardError(
            f"engine 'ray': cannot reach a cluster, RAY_ADDRESS={address or ''!r} ({str(error).splitlines()[0]}); "
            "expected the address of one that 'ray start' made, or none to start one here"
        ) from None


def _compute(task: Task, item: Item, shared: Item) -> tuple[str, Arrays]:
    """Run one task on a Ray worker; its result travels back."""
    _limit_threads(1)
    return task_name(task, item), task({**item, **shared})


def _ray_results(ray: Any, task: Task, items: list[Item], shared: Item, store: Path, workers: int) -> Iterator[str]:
    remote = ray.remote(num_cpus=1, max_retries=3)(_compute)  # retried when its worker dies, not when it raises
    everywhere = ray.put(shared)
    waiting = list(reversed(items))
    running: list[Any] = []
    while waiting or running:
        while waiting and len(running) < workers:
            running.append(remote.remote(task, waiting.pop(), everywhere))
        done, running = ray.wait(running, num_returns=1)
        try:
            results = ray.get(done)
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, DoorwardError) else error from None
        except ray.exceptions.RayError as error:
            raise DoorwardError(
                f"engine 'ray': {str(error).splitlines()[0]}; repeat the command to go on from what is finished"
            ) from None
        for name, arrays in results:
            _write(store, name, arrays)
            yield name
