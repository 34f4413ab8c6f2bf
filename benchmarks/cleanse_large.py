"""One look of `cleanse` at large images: memory and speed beside batches of a fixed number of images."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.table import spread, write

FIXED, ROUNDS = 128, 2
NET = f"{Path(__file__).parent / 'nets' / 'efficientnet.py'}:make_net"
CASES = (
    ("small-cnn", 32, 10_000),
    ("small-cnn", 96, 1_000),
    ("small-cnn", 224, 1_000),
    ("efficientnet-lite0", 224, 256),
)


def look(net: str, side: int, count: int, batch: int) -> float:
    """Seconds that features, logits and filtered logits of made-up images take."""
    from doorward.cleansers.observe import observe
    from doorward.data.sources import load_images
    from doorward.models.train.start import fresh

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    images = load_images((pixels, np.arange(count) % 5), name="noise")
    classifier = fresh(images, NET if net == "efficientnet-lite0" else net, seed=0)
    started = time.perf_counter()
    observe(images, classifier, ["mean2"], batch=batch)
    return time.perf_counter() - started


def in_child(net: str, side: int, count: int, batch: int) -> tuple[float, float]:
    """Seconds and peak resident memory in GiB of one look, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.cleanse_large", net, *map(str, (side, count, batch))]
    seconds, peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(seconds), float(peak)


def main() -> None:
    """Both ways in turn, and the table."""
    from doorward.core.classifier import forward_batch, pick_device

    rows = []
    for net, side, count in CASES:
        own = forward_batch(pick_device("cpu"), (3, side, side))
        seconds: dict[int, list[float]] = {}
        peaks: dict[int, list[float]] = {}
        for _ in range(ROUNDS):
            for batch in dict.fromkeys((FIXED, own)):
                took, peak = in_child(net, side, count, batch)
                seconds.setdefault(batch, []).append(took)
                peaks.setdefault(batch, []).append(peak)
        for batch, took in seconds.items():
            faster = statistics.median(seconds[FIXED]) / statistics.median(took)
            about = f"{net}, {count:,} images of {side} x {side}"
            peak = max(peaks[batch])
            rows.append([about, str(batch), spread(took), f"{count / statistics.median(took):,.0f}", f"{faster:.2f}",
                         f"{peak:.2f}", f"{peak / max(peaks[FIXED]):.2f}"])  # fmt: skip
            print(rows[-1], flush=True)
    told = (
        f"Features, logits and logits under one filter: two passes through the net. Batches of {FIXED} images, as they "
        f"were before, and as many as `forward_batch` says. Each row is {ROUNDS} processes of its own, in turn; "
        "seconds of the look alone, median (minimum to maximum). Peak: resident memory of the whole process with its "
        "images (0.15 GB at 224), torch itself 0.3 GiB of it; the higher of the two."
    )
    columns = ["", "images at a time", "seconds", "images/s", "times as fast", "peak GiB", "of the peak"]
    write("cleanse_large", "Memory of a look at large images", told, columns, rows)


if __name__ == "__main__":
    if len(sys.argv) == 5:
        took = look(sys.argv[1], *map(int, sys.argv[2:]))
        print(took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
    else:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        main()
