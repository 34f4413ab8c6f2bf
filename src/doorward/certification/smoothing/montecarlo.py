"""`smooth`: train one model per noisy copy of the training set and count what they predict.

The Monte Carlo method of Wang, Cao, Jia and Gong 2020, section 3 (after Cohen, Rosenfeld and Kolter 2019): N_i, the
number of trials j in which h_j, trained on the noisy training set j, gives the noisy test image the label i.

Trial j depends on (seed, j) alone, and learners compute a trial in the same way whatever is computed beside it. So
the votes are the same bits for any batch, any number of workers, and after any interruption. The models are not kept:
calling `smooth` again with other test images makes the same h_j anew and gives the votes of the new images.

The seed must not be known to the attacker before the training set is fixed, and test images must not be chosen by
looking at votes: the guarantee is over the draw of the noise.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doorward.certification.smoothing.noise import check_seed
from doorward.certification.smoothing.task import NoisyBlock, SmoothingTask
from doorward.certification.smoothing.trial_votes import write_trial_votes
from doorward.core import methods
from doorward.core.errors import DoorwardError
from doorward.core.methods import Settings
from doorward.core.progress import Progress
from doorward.jobs.tasks import Arrays, EngineName, finished, read_result, run_tasks, task_name

Counts = NDArray[np.int64]
Predict = Callable[[NoisyBlock, Any], NDArray[np.uint8]]
Watch = Callable[[int, float, Counts], None]
_BLOCK_BYTES = 1 << 28
_SHARDS = 64


@dataclass(frozen=True)
class Learner:
    """What is trained on every noisy copy.

    Args:
        name: a registered name, or for a learner of your own a name that says what it is: with the settings it
            decides which finished shards are used again.
        settings: its settings.
        predict: the function of a learner of your own; None for a registered one.
    """

    name: str
    settings: Settings
    predict: Predict | None = None

    @classmethod
    def named(cls, name: str, values: dict[str, Any] | None = None) -> Learner:
        """A registered learner with settings from plain values."""
        found = methods.get("certify", name)
        if "noise" not in found.given:
            raise DoorwardError(f"certify {name}: a deterministic certificate, not a learner; expected no trials")
        return cls(name, found.configure(values))

    def function(self) -> Predict:
        """The function that trains and predicts a block of trials."""
        return self.predict or methods.get("certify", self.name).function


@dataclass(frozen=True, eq=False)
class Votes:
    """``counts`` int64 ``[m, K]``: trials in which each test image got each label; every row sums to ``trials``.

    ``trial_votes``: SHA-256 of the file of what each trial voted, where one was asked for.
    """

    counts: Counts
    trials: int
    seed: int
    learner: Learner
    task_hash: str
    seconds: float
    trials_per_second: float
    trial_votes: str | None = None


def smooth(
    task: SmoothingTask,
    learner: Learner | str,
    trials: int,
    seed: int,
    *,
    store: Path | str | None = None,
    workers: int = 1,
    engine: EngineName = "local",
    device: str = "auto",
    batch: int | None = None,
    shard: int | None = None,
    trial_votes: Path | str | None = None,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> Votes:
    """Votes of ``trials`` models for every test image.

    Args:
        task: training set, test images, noise.
        learner: a name or a `Learner`.
        trials: N; trial j of a longer run is trial j of a shorter one.
        seed: 0 .. 2^64 - 1; see above who may know it.
        store: folder of the finished shards, to resume from; None uses a temporary one.
        workers: processes with one thread each; on Ray, tasks at a time.
        engine: ``local`` or ``ray``.
        device: ``cpu``, ``cuda`` or ``auto``; the noise is the same on all, float training may round differently.
        batch: trials computed together; chosen by memory when None. It changes speed only.
        shard: trials per shard, what a kill can lose; chosen from ``trials`` when None.
        trial_votes: file to write what each trial voted, for a replay of single trials.
        progress: called after each shard with (learner, trials done, trials in all).
        watch: called after each shard with trials done, trials per second, votes so far.

    Raises:
        DoorwardError: fewer than one trial, a seed out of range, an unknown learner or device.
    """
    learner = Learner.named(learner) if isinstance(learner, str) else learner
    check_seed(seed)
    for what, value in (("trials", trials), ("batch", batch), ("shard", shard)):
        if value is not None and value < 1:
            raise DoorwardError(f"certify: {what} = {value}; expected 1 or more")
    items = _shards(task, learner, trials, seed, resolve_device(device), shard or default_shard(trials))
    if trial_votes is not None:
        items = [{**item, "kept": True} for item in items]
    shared = {"task": task, "learner": learner, "batch": batch}

    def told(done: int, rate: float, counts: Counts) -> None:
        if watch:
            watch(done, rate, counts)
        if progress:
            progress(learner.name, done, trials, f"{rate:,.0f} trials/s")

    if store is not None:
        return _collect(items, shared, Path(store), workers, engine, told, trial_votes)
    with tempfile.TemporaryDirectory() as folder:
        return _collect(items, shared, Path(folder), workers, engine, told, trial_votes)


def default_shard(trials: int) -> int:
    """About a 64th of the trials, between 64 and 16384, a power of two: runs of like length share their shards."""
    return 1 << min(14, max(6, (trials // _SHARDS).bit_length()))


def default_batch(task: SmoothingTask, device: str = "cpu") -> int:
    """Trials computed together: few enough for the caches of a processor and for 2 GiB, many on a GPU."""
    bytes_per_cell = 16 if task.domain == 2 else 64
    bytes_per_trial = bytes_per_cell * task.images.size + 64 * len(task.tests) + 1
    return max(1, min(64 if device == "cpu" else 512, _BLOCK_BYTES // bytes_per_trial))


def resolve_device(device: str) -> str:
    """``cuda`` when it is asked for and there, or on ``auto`` when it is there; else ``cpu``."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device != "cpu" and not (device.startswith("cuda") and torch.cuda.is_available()):
        raise DoorwardError(f"device {device!r}: not available; expected cpu, cuda (with a GPU) or auto")
    return device


def _shards(
    task: SmoothingTask, learner: Learner, trials: int, seed: int, device: str, size: int
) -> list[dict[str, Any]]:
    about = {
        "task": task.hash,
        "learner": learner.name,
        "settings": learner.settings.model_dump(mode="json"),
        "seed": seed,
        "device": device,
    }
    return [{"about": about, "start": s, "stop": min(s + size, trials)} for s in range(0, trials, size)]


def count_votes(item: dict[str, Any]) -> Arrays:
    """Votes of the trials ``start..stop-1``; the task of one shard, run by `doorward.jobs.tasks`.

    Where the item says ``kept``, also what each of them voted.
    """
    task, about = item["task"], item["about"]
    votes, kept = np.zeros((len(task.tests), task.classes), dtype=np.int64), []
    trials = item["start"], item["stop"]
    for predicted in predictions(task, item["learner"], about["seed"], *trials, about["device"], item["batch"]):
        votes += np.stack([(predicted == label).sum(axis=0) for label in range(task.classes)], axis=1)
        kept += [predicted] if item.get("kept") else []
    return {"votes": votes, "predicted": np.concatenate(kept)} if kept else {"votes": votes}


def predictions(
    task: SmoothingTask, learner: Learner, seed: int, start: int, stop: int, device: str, batch: int | None = None
) -> Iterator[NDArray[np.uint8]]:
    """What the trials ``start..stop-1`` predict, a batch at a time: uint8 ``[trials, m]``."""
    import torch

    batch = batch or default_batch(task, device)
    predict = learner.function()
    for first in range(start, stop, batch):
        block = NoisyBlock(task, seed, first, min(first + batch, stop), device)
        threads = torch.get_num_threads()
        torch.set_num_threads(
            1
        )  # sums are split by thread: with one thread they are the same for any number of workers
        try:
            predicted = predict(block, learner.settings)
        finally:
            torch.set_num_threads(threads)
        yield predicted


def _collect(
    items: list[dict[str, Any]],
    shared: dict[str, Any],
    store: Path,
    workers: int,
    engine: EngineName,
    watch: Watch,
    trial_votes: Path | str | None,
) -> Votes:
    task, learner = shared["task"], shared["learner"]
    counts = np.zeros((len(task.tests), task.classes), dtype=np.int64)
    on_disk = len(finished(count_votes, items, store))
    started, done, fresh, rate = time.monotonic(), 0, 0, 0.0
    results = run_tasks(count_votes, items, store, shared=shared, workers=workers, engine=engine)
    for number, (position, result) in enumerate(results):
        trials = items[position]["stop"] - items[position]["start"]
        counts += result["votes"]
        done, fresh = done + trials, fresh + (trials if number >= on_disk else 0)
        rate = fresh / max(time.monotonic() - started, 1e-9)
        watch(done, rate, counts)
    if not (counts.sum(axis=1) == done).all():
        raise DoorwardError(f"{store}: votes do not add up to {done} trials; expected shards of this run alone")
    seconds, seed, sha256 = time.monotonic() - started, items[0]["about"]["seed"], None
    if trial_votes is not None:
        names = (task_name(count_votes, item) for item in items)  # in the order of their trials
        parts = (read_result(store, name)["predicted"] for name in names)
        sha256 = write_trial_votes(trial_votes, parts, done, len(task.tests))
    return Votes(counts, done, seed, learner, task.hash, seconds, rate, sha256)
