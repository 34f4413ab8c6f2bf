"""Votes are the same bits however they are computed; shards survive a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from worlds import small_task

from doorward.certification.smoothing import montecarlo
from doorward.certification.smoothing.learners.nearest_centroid import NearestCentroid, nearest_centroid
from doorward.certification.smoothing.montecarlo import Learner, Votes, smooth
from doorward.certification.smoothing.noise import Noise
from doorward.certification.smoothing.parts.adapters import NoSettings
from doorward.certification.smoothing.task import NoisyBlock, SmoothingTask, cells_of, draw_split
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet

LEARNERS = {
    "two-layer": {"hidden": 24, "steps": 6},
    "nearest-centroid": {},
    "naive-bayes": {},
    "ridge": {},
}


def learner(name: str) -> Learner:
    return Learner.named(name, LEARNERS[name])


def votes(task: SmoothingTask, which: Learner, trials: int = 150, **options: Any) -> NDArray[np.int64]:
    return smooth(task, which, trials, 7, **options).counts


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("classes", [2, 3])
def test_votes_are_the_same_for_any_batch_and_shard(name: str, classes: int) -> None:
    task = small_task(classes)
    expected = votes(task, learner(name), batch=64)
    assert (expected.sum(axis=1) == 150).all() and expected.min() < expected.max()
    for options in ({"batch": 1}, {"batch": 7}, {"batch": 7, "shard": 11}, {"shard": 150}, {"batch": 150}):
        assert np.array_equal(votes(task, learner(name), **options), expected), options


@pytest.mark.parametrize("name", LEARNERS)
def test_votes_of_an_image_do_not_depend_on_the_others(name: str) -> None:
    """New images are certified later by the same models: the paper's re-use, by regenerating h_j from the seed."""
    task = small_task()
    expected = votes(task, learner(name))
    for rows in ([3], [16, 2, 5], list(range(9, 17))):
        assert np.array_equal(votes(task.with_tests(task.tests[rows]), learner(name)), expected[rows])


def test_votes_are_the_same_for_one_and_two_workers(tmp_path: Path) -> None:
    task = small_task()
    which = learner("two-layer")
    expected = votes(task, which, shard=40)
    assert np.array_equal(votes(task, which, shard=40, workers=2, store=tmp_path), expected)


def test_a_longer_run_extends_a_shorter_one(tmp_path: Path) -> None:
    task = small_task()
    which = learner("nearest-centroid")
    first = votes(task, which, 128, store=tmp_path, shard=64)
    calls: list[tuple[int, float]] = []
    both = smooth(task, which, 192, 7, store=tmp_path, shard=64, watch=lambda done, rate, _: calls.append((done, rate)))
    assert [done for done, _ in calls] == [64, 128, 192]
    assert calls[1][1] == 0 and calls[2][1] > 0  # the rate counts what this call computed
    assert ((both.counts - first) >= 0).all()
    assert np.array_equal(both.counts, votes(task, which, 192))


def test_other_seeds_settings_and_tasks_do_not_share_shards(tmp_path: Path) -> None:
    task = small_task()
    made = len(list(tmp_path.iterdir()))
    for count, (seed, values, noise) in enumerate(
        [(0, {}, "0.9"), (1, {}, "0.9"), (0, {"smoothing": 2}, "0.9"), (0, {}, "0.8")], start=1
    ):
        other = small_task(keep=float(noise))
        smooth(other, Learner.named("naive-bayes", values), 10, seed, store=tmp_path)
        assert len(list(tmp_path.iterdir())) == made + count
    assert small_task().hash == task.hash


def test_a_trial_is_computed_by_one_thread() -> None:
    """Several threads split sums, and rounding would depend on how many there are."""
    seen = []

    def watch(block: NoisyBlock, settings: NoSettings) -> NDArray[np.uint8]:
        seen.append(torch.get_num_threads())
        return nearest_centroid(block, NearestCentroid())

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        smooth(small_task(), Learner("watch", NoSettings(), watch), 10, 0)
        assert seen == [1] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


KILLED = """
import os, signal, sys
from pathlib import Path
from worlds import small_task
from doorward.certification.smoothing.parts.adapters import NoSettings
from doorward.certification.smoothing.learners.nearest_centroid import NearestCentroid, nearest_centroid
from doorward.certification.smoothing.montecarlo import Learner, smooth

def learner(block, settings):
    if block.start >= 96 and "--die" in sys.argv:
        os.kill(os.getpid(), signal.SIGKILL)
    print("trials from", block.start, flush=True)
    return nearest_centroid(block, NearestCentroid())

made = smooth(small_task(), Learner("mine", NoSettings(), learner), 192, 7, store=Path(sys.argv[1]), shard=32, batch=16)
print(made.counts.tolist())
"""


def test_kill_9_loses_one_shard_at_most(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", KILLED, str(tmp_path / "store"), *arguments]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    killed = run("--die")
    assert killed.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "store").glob("*.safetensors"))) == 3
    resumed = run()
    assert resumed.returncode == 0, resumed.stderr
    lines = resumed.stdout.splitlines()
    assert lines[:-1] == [f"trials from {start}" for start in range(96, 192, 16)]
    assert lines[-1] == str(votes(small_task(), learner("nearest-centroid"), 192).tolist())


class DiesOnce:
    """A learner that kills its worker the first time that it reaches a trial in the middle."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __call__(self, block: NoisyBlock, settings: NoSettings) -> NDArray[np.uint8]:
        if block.start >= 64 and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return nearest_centroid(block, NearestCentroid())


def test_a_killed_local_worker_is_told_in_one_line_and_resumed(tmp_path: Path) -> None:
    task = small_task()
    mine = Learner("dies once", NoSettings(), DiesOnce(tmp_path / "died"))
    with pytest.raises(DoorwardError, match="worker process was killed"):
        smooth(task, mine, 150, 7, store=tmp_path / "store", shard=32, workers=2)
    made = smooth(task, mine, 150, 7, store=tmp_path / "store", shard=32, workers=2)
    assert np.array_equal(made.counts, votes(task, learner("nearest-centroid")))


@pytest.mark.slow
def test_votes_are_the_same_on_ray_with_a_worker_killed(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason="needs pip install 'doorward[ray]'")
    task = small_task()
    mine = Learner("dies once", NoSettings(), DiesOnce(tmp_path / "died"))
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test module
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    try:
        made = smooth(task, mine, 150, 7, store=tmp_path / "store", shard=32, workers=2, engine="ray")
        two_layer = smooth(task, learner("two-layer"), 150, 7, shard=40, workers=2, engine="ray")
    finally:
        ray.shutdown()
    assert (tmp_path / "died").exists()
    assert np.array_equal(made.counts, votes(task, learner("nearest-centroid")))
    assert np.array_equal(two_layer.counts, votes(task, learner("two-layer")))


def test_votes_say_what_they_are() -> None:
    task = small_task()
    made = smooth(task, "nearest-centroid", 5, 3)
    assert isinstance(made, Votes)
    assert (made.trials, made.seed, made.task_hash, made.learner.name) == (5, 3, task.hash, "nearest-centroid")
    assert made.counts.dtype == np.int64 and made.trials_per_second > 0


def test_memory_of_a_block_is_bounded() -> None:
    small = small_task()
    assert montecarlo.default_batch(small) == 64
    big = SmoothingTask(
        np.zeros((13_007, 784), np.uint8), np.arange(13_007) % 2, small_task(side=28).tests, 2, small.noise, (1, 28, 28)
    )
    assert montecarlo.default_batch(big) * 16 * big.images.size <= 1 << 28


def digits(count: int = 40) -> ImageSet:
    rng = np.random.default_rng(0)
    return ImageSet(
        rng.integers(0, 256, (count, 4, 4, 1), dtype=np.uint8), np.arange(count) % 4, ("0", "1", "2", "3"), "digits"
    )


def test_a_split_is_disjoint_and_repeats() -> None:
    images = digits()
    train, test = draw_split(images, ["3", "1"], 12, 8, seed=5)
    assert train.classes == ("3", "1") and (len(train), len(test)) == (12, 8)
    rows = {p.tobytes() for p in train.pixels} | {p.tobytes() for p in test.pixels}
    assert len(rows) == 20
    original = {p.tobytes(): int(y) for p, y in zip(images.pixels, images.labels, strict=True)}
    for part in (train, test):
        assert [original[p.tobytes()] for p in part.pixels] == [(3, 1)[y] for y in part.labels]
    again, _ = draw_split(images, ["3", "1"], 12, 8, seed=5)
    other, _ = draw_split(images, ["3", "1"], 12, 8, seed=6)
    assert again.hash == train.hash != other.hash


@pytest.mark.parametrize(
    ("classes", "train", "test", "message"),
    [
        (["1", "7"], 5, 5, "class '7'"),
        (["1"], 5, 5, "at least two"),
        (["1", "1"], 5, 5, "each once"),
        (["1", "2"], 15, 6, "has 20"),
        (["1", "2"], 0, 6, "0 training"),
    ],
)
def test_a_split_that_cannot_be_drawn_is_refused(classes: list[str], train: int, test: int, message: str) -> None:
    with pytest.raises(DoorwardError, match=message):
        draw_split(digits(), classes, train, test, 0)


def test_binarising_is_at_128_and_grey_needs_a_domain() -> None:
    images = digits()
    assert np.array_equal(cells_of(images), (images.pixels.reshape(40, 16) >= 128).astype(np.uint8))
    grey = cells_of(images, binarise=None)
    noise = Noise.of(0.9, classes=4)
    with pytest.raises(DoorwardError, match="binarise them, or give the domain"):
        SmoothingTask(grey, images.labels, grey, 4, noise, (1, 4, 4))
    SmoothingTask(grey, images.labels, grey, 4, Noise.of(0.9, classes=4, domain=256), (1, 4, 4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": 1}, "1 class"),
        ({"classes": 3}, "label noise over 2"),
        ({"labels": np.full(24, 2)}, "label 2"),
        ({"labels": np.zeros(23, np.int64)}, "labels"),
        ({"tests": np.zeros((0, 64), np.uint8)}, "no test images"),
        ({"tests": np.zeros((3, 63), np.uint8)}, "test images"),
        ({"images": np.zeros((24, 64), np.int64)}, "int64"),
    ],
)
def test_a_task_that_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    task = small_task()
    parts = {name: getattr(task, name) for name in ("images", "labels", "tests", "classes", "noise", "shape")}
    with pytest.raises(DoorwardError, match=message):
        SmoothingTask(**{**parts, **change})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trials": 0}, "trials = 0"),
        ({"seed": -1}, "seed -1"),
        ({"batch": 0}, "batch = 0"),
        ({"shard": -3}, "shard = -3"),
        ({"device": "abacus"}, "device 'abacus'"),
        ({"learner": "oracle"}, "no method 'oracle'"),
        ({"workers": 0}, "0 workers"),
        ({"engine": "steam"}, "engine 'steam'"),
    ],
)
def test_bad_options_are_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    given = {"learner": "nearest-centroid", "trials": 5, "seed": 0, **options}
    with pytest.raises(DoorwardError, match=message) as error:
        smooth(small_task(), **given)
    assert "\n" not in str(error.value)
