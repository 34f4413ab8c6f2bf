"""Models per second of flip smoothing against one-model-at-a-time PyTorch, on the same noise and initial weights."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from joblib import Parallel, delayed
from numpy.typing import NDArray
from torch import nn

from benchmarks.table import spread, write
from doorward.certification.smoothing.learners.nearest_centroid import NearestCentroid
from doorward.certification.smoothing.learners.two_layer import TwoLayer, initial_weights, two_layer
from doorward.certification.smoothing.montecarlo import Learner, smooth
from doorward.certification.smoothing.noise import Noise
from doorward.certification.smoothing.task import NoisyBlock, SmoothingTask, cells_of, draw_split
from doorward.data.sources import load_images

TESTS, ROUNDS, PLAIN_MODELS, CROSS_CHECKED = 1000, 3, 16, 64
SETTINGS = TwoLayer(hidden=128, steps=100, learning_rate=0.1, init=1.0)
Votes = NDArray[np.uint8]


def make_task() -> SmoothingTask:
    """100 training and 1,000 test digits, 1 and 7, binarised; the bundled digits are repeated to make 1,000."""
    train, test = draw_split(load_images("mnist-5k"), ["1", "7"], 100, 600, seed=0)
    tests = np.resize(cells_of(test), (TESTS, 784))
    return SmoothingTask(cells_of(train), train.labels, tests, 2, Noise.of("0.9", classes=2), train.shape)


def plain_two_layer(task: SmoothingTask, trial: int) -> Votes:
    """One model the ordinary way: module, autograd, SGD on all images at once, then the noisy test images."""
    block = NoisyBlock(task, 0, trial, trial + 1)
    start = initial_weights(block, SETTINGS)
    net = nn.Sequential(nn.Linear(784, SETTINGS.hidden), nn.ReLU(), nn.Linear(SETTINGS.hidden, task.classes))
    values = (start.first, start.first_bias, start.second, start.second_bias)
    with torch.no_grad():
        for parameter, value in zip(net.parameters(), values, strict=True):
            parameter.copy_(value[0])
    pixels = torch.from_numpy(block.pixels[0]).float() * 2 - 1
    mean, labels = pixels.mean(dim=0), torch.from_numpy(block.labels[0])
    pixels = pixels - mean
    optimiser = torch.optim.SGD(net.parameters(), lr=SETTINGS.learning_rate)
    for _ in range(SETTINGS.steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(pixels), labels).backward()
        optimiser.step()
    with torch.no_grad():
        tests = torch.from_numpy(block.tests(0)).float() * 2 - 1 - mean
        return net(tests).argmax(dim=1).numpy().astype(np.uint8)


def plain_loop(task: SmoothingTask, trials: Sequence[int], threads: int) -> Votes:
    """Models one after another."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return np.stack([plain_two_layer(task, trial) for trial in trials])
    finally:
        torch.set_num_threads(before)


def plain_processes(task: SmoothingTask, models: int, processes: int) -> None:
    """The same loop in several processes at once."""
    share = range(models // processes)
    Parallel(n_jobs=processes, max_nbytes=None)(delayed(plain_loop)(task, share, 1) for _ in range(processes))


def rate(run: Callable[[], object], models: int) -> float:
    """Models per second of wall time."""
    started = time.perf_counter()
    run()
    return models / (time.perf_counter() - started)


def main() -> None:
    """Cross-check the two paths vote by vote, then time them in turn."""
    task, cores = make_task(), os.cpu_count() or 1
    batched = two_layer(NoisyBlock(task, 0, 0, CROSS_CHECKED), SETTINGS)
    agreeing = int((batched == plain_loop(task, range(CROSS_CHECKED), 1)).sum())

    def smoothed(learner: Learner, models: int) -> tuple[Callable[[], object], int]:
        return lambda: smooth(task, learner, models, 0, workers=cores, device="cpu"), models

    def plain(threads: int) -> tuple[Callable[[], object], int]:
        return lambda: plain_loop(task, range(PLAIN_MODELS), threads), PLAIN_MODELS

    runs = {
        "two-layer, plain PyTorch, one thread": plain(1),
        f"two-layer, plain PyTorch, {cores} threads": plain(cores),
        f"two-layer, plain PyTorch, {cores} processes": (lambda: plain_processes(task, 32, cores), 32 // cores * cores),
        f"two-layer, doorward, {cores} processes": smoothed(Learner("two-layer", SETTINGS), 1024),
        f"nearest-centroid, doorward, {cores} processes": smoothed(
            Learner("nearest-centroid", NearestCentroid()), 65536
        ),
    }
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(ROUNDS + 1):
        for name, (run, models) in runs.items():
            measured = rate(run, models)
            if number:
                rates[name].append(measured)
    single = [max(pair) for pair in zip(*list(rates.values())[:2], strict=True)]
    several = list(rates.values())[2]
    rows = []
    for name, values in rates.items():
        ratios = [[v / r for v, r in zip(values, of, strict=True)] for of in (single, several)]
        rows.append([name, spread(values, 1), *(spread(r, 1) for r in ratios)])
    told = (
        f"784-128-2 with {SETTINGS.steps} full-batch steps on 100 noisy digits (MNIST 1/7, binarised, beta 0.9), then "
        f"{TESTS:,} noisy test digits each; {ROUNDS} rounds in turn after a warm-up; median (minimum to maximum); "
        f"ratios are taken round by round. {agreeing:,} of {batched.size:,} votes agree between plain and batched "
        "training."
    )
    columns = ["way", "models/s", "against one model at a time, the faster", f"against {cores} such processes"]
    write("certify_throughput", "Certification throughput", told, columns, rows)


if __name__ == "__main__":
    main()
