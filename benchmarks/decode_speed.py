"""JPEG photographs of mixed size to 224 x 224: images/s against a plain loop over the same files."""

from __future__ import annotations

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

COUNT = 1_000  # DOORWARD_BENCH_FILES=5000 for the figures in results/
SIZE = 224


def make(folder: Path, count: int) -> None:
    """JPEG files with a side of 200 to 1,200 pixels: textures of several scales, enlarged, with some noise."""
    from PIL import Image

    rng = np.random.default_rng(0)
    noise = rng.normal(0, 6, (1400, 1400, 3)).astype(np.float32)
    for label in range(5):
        (folder / f"kind-{label}").mkdir(parents=True)
    for index in range(count):
        width, height = (int(v) for v in rng.integers(200, 1201, 2))
        small = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        large = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.float32)
        row, column = (int(v) for v in rng.integers(0, 200, 2))
        pixels = np.clip(large + noise[row : row + height, column : column + width], 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"kind-{index % 5}" / f"IMG_{index:05d}.jpg", quality=90)


def plain(folder: Path) -> int:
    """The usual loop, as torchvision's Resize and CenterCrop do it: decoded whole, resized, cropped."""
    from PIL import Image

    files = sorted(folder.rglob("*.jpg"))
    pixels = np.empty((len(files), SIZE, SIZE, 3), np.uint8)
    for row, file in enumerate(files):
        with Image.open(file) as image:
            colour = image.convert("RGB")
            scale = SIZE / min(colour.size)
            width, height = (max(SIZE, round(side * scale)) for side in colour.size)
            colour = colour.resize((width, height), Image.Resampling.BICUBIC)
            left, top = (width - SIZE) // 2, (height - SIZE) // 2
            pixels[row] = np.asarray(colour.crop((left, top, left + SIZE, top + SIZE)))
    return len(files)


def stage(name: str, folder: Path) -> None:
    """One stage, in a process of its own, so that its peak memory is its own."""
    if name == "plain":
        plain(folder)
        return
    from doorward.data.sources import load_images

    load_images(folder, size=SIZE)


def main() -> None:
    """Measure and write the table."""
    count = int(os.environ.get("DOORWARD_BENCH_FILES", COUNT))
    scratch = Path(tempfile.mkdtemp(prefix="doorward-decode-", dir=os.environ.get("DOORWARD_BENCH_FOLDER")))
    rows, reference = [], 0.0
    environment = {**os.environ, "DOORWARD_CACHE": str(scratch / "cache")}
    try:
        make(scratch / "files", count)
        for what, name in (("plain loop", "plain"), ("first run", "doorward"), ("second run", "doorward")):
            command = [sys.executable, "-m", "benchmarks.decode_speed", name, str(scratch / "files")]
            started = time.monotonic()
            peak = float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)
            seconds = time.monotonic() - started
            reference = reference or seconds
            speed = f"{count / seconds:,.0f}"
            rows.append([what, speed, f"{reference / seconds:.2f}", f"{seconds:,.1f}", f"{peak:.2f}"])
    finally:
        shutil.rmtree(scratch)
    told = (
        f"{count:,} JPEG files with sides of 200 to 1,200 pixels to {SIZE} x {SIZE}; each row is a process of its own "
        "with its start. The plain loop decodes whole, resizes (bicubic), crops, in one process, into memory. Peak: "
        "the process and its largest child."
    )
    columns = ["", "images/s", "times the plain loop", "seconds", "peak GiB"]
    write("decode_speed", "Decoding photographs", told, columns, rows)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        stage(sys.argv[1], Path(sys.argv[2]))
        used = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        print(f"{sum(used) / 2**20:.3f}")
    else:
        main()
