"""Opening and hashing many small files: files/s and peak memory, against a plain loop over the same files."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.table import write

COUNT = 20_000  # DOORWARD_BENCH_FILES=200000 for the figures in results/
LIMIT_GIB = 1


def make(folder: Path, count: int) -> None:
    """PNG files of 32 x 32 in ten class folders."""
    from PIL import Image

    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for label in range(10):
        (folder / str(label)).mkdir(parents=True)
    for index in range(count):
        row, column = rng.integers(0, 32, 2)
        image = Image.fromarray(noise[row : row + 32, column : column + 32] // 2 + index % 128)
        image.save(folder / str(index % 10) / f"{index:06d}.png", compress_level=1)


def plain(folder: Path) -> str:
    """The usual loop: every file opened, converted, put into one array, and the array hashed."""
    from PIL import Image

    files = sorted(folder.rglob("*.png"))
    pixels = np.empty((len(files), 32, 32, 3), np.uint8)
    for row, file in enumerate(files):
        with Image.open(file) as image:
            pixels[row] = np.asarray(image.convert("RGB"))
    return hashlib.sha256(pixels.data).hexdigest()


def stage(name: str, folder: Path) -> str:
    """One stage, in a process of its own, so that its peak memory is its own."""
    if name == "plain":
        return plain(folder)
    from doorward.data.sources import load_images

    return load_images(folder).hash


def measure(name: str, folder: Path, cache: Path) -> tuple[float, float, str]:
    """Seconds, peak GiB of all processes, and the hash."""
    command = [sys.executable, "-m", "benchmarks.open_files", name, str(folder)]
    started = time.monotonic()
    environment = {**os.environ, "DOORWARD_CACHE": str(cache)}
    lines = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.split("\n")
    return time.monotonic() - started, float(lines[1]), lines[0]


def main() -> None:
    """Measure and write the table."""
    count = int(os.environ.get("DOORWARD_BENCH_FILES", COUNT))
    scratch = Path(tempfile.mkdtemp(prefix="doorward-files-", dir=os.environ.get("DOORWARD_BENCH_FOLDER")))
    rows = []
    try:
        make(scratch / "files", count)
        measure(
            "plain", scratch / "files", scratch / "cache"
        )  # once: then all find the files in the system's own cache
        for what, name in (("plain loop", "plain"), ("first run", "doorward"), ("second run", "doorward")):
            seconds, peak, _ = measure(name, scratch / "files", scratch / "cache")
            rows.append([what, f"{count / seconds:,.0f}", f"{seconds:,.1f}", f"{peak:.2f}"])
            if peak > LIMIT_GIB and name == "doorward":
                raise SystemExit(f"open_files: {what} needed {peak:.2f} GiB; expected at most {LIMIT_GIB}")
    finally:
        shutil.rmtree(scratch)
    told = (
        f"{count:,} PNG files of 32 x 32, opened and hashed; each row is a process of its own with its start. "
        "The plain loop: PIL.Image.open(...).convert('RGB') into one array. Peak: the process and its largest child."
    )
    write("open_files", "Opening many files", told, ["", "files/s", "seconds", "peak GiB"], rows)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(stage(sys.argv[1], Path(sys.argv[2])))
        used = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        print(f"{sum(used) / 2**20:.3f}")
    else:
        main()
