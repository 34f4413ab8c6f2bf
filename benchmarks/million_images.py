"""A million 32 x 32 images poisoned, featurised and cleansed under 4 GiB resident."""

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

COUNT = 1_000_000
LIMIT_GIB = 4
METHODS = ("impurity", "activation", "spectral")


def make_source(folder: Path, count: int) -> None:
    """Images of ten classes: a bright bar at a place of its class's, over noise; written piece by piece."""
    from doorward.core.images import ImageSet

    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, count)
    pixels = np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=np.uint8, shape=(count, 32, 32, 3))
    noise = rng.integers(0, 120, (4096 + 512, 32, 32, 3), dtype=np.uint8)
    for start in range(0, count, 4096):
        rows = labels[start : start + 4096]
        shift = int(rng.integers(512))
        chunk = noise[shift : shift + len(rows)].copy()
        columns = 3 * rows[:, None] + np.arange(3)
        chunk[np.arange(len(rows))[:, None], 8:24, columns] = 200
        pixels[start : start + len(rows)] = chunk
    pixels.flush()
    ImageSet(pixels, labels.astype(np.int64), tuple("0123456789"), "million").save(folder)


def stage(name: str, folder: Path) -> None:
    """One stage, in a process of its own, so that its peak memory is its own."""
    from doorward.attacks.job import AttackRequest, attack_to_folder
    from doorward.cleansers.job import CleanseRequest, cleanse_to_folder
    from doorward.data.sources import load_images
    from doorward.models.files import save_classifier
    from doorward.models.train.loop import train
    from doorward.models.train.settings import TrainSettings

    if name == "make":
        make_source(folder / "source", int(os.environ.get("DOORWARD_BENCH_IMAGES", COUNT)))
    elif name == "poison":
        request = AttackRequest(source=str(folder / "source"), recipe="patch", target="0", rate=0.01, seed=0)
        attack_to_folder(request, folder / "poisoned")
    elif name == "train":
        poisoned = load_images(str(folder / "poisoned"))
        some = poisoned.subset(np.arange(20_000), "20,000 of them")
        classifier = train(some, "small-cnn", TrainSettings(epochs=2, lr=0.05))
        (folder / "model").mkdir()
        save_classifier(classifier, folder / "model")
    else:
        request = CleanseRequest(source=str(folder / "poisoned"), model=str(folder / "model"), methods=METHODS)
        found = cleanse_to_folder(request, folder / "cleanse")
        print({k: m.flagged for k, m in found.record.methods.items()})


def main() -> None:
    """Run the stages one after another and write time and peak memory of each."""
    folder = Path(tempfile.mkdtemp(prefix="doorward-million-", dir=os.environ.get("DOORWARD_BENCH_FOLDER")))
    rows = []
    try:
        for name in ("make", "poison", "train", "cleanse"):
            started = time.monotonic()
            command = [sys.executable, "-m", "benchmarks.million_images", name, str(folder)]
            found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\n")
            seconds, peak = time.monotonic() - started, float(found[-2].split()[-1])
            rows.append([name, f"{seconds:,.0f}", f"{peak:.2f}", found[0] if name == "cleanse" else ""])
            if peak > LIMIT_GIB:
                raise SystemExit(f"million_images: {name} needed {peak:.2f} GiB; expected at most {LIMIT_GIB}")
    finally:
        shutil.rmtree(folder)
    told = (
        "1,000,000 images of 32 x 32 x 3 (3.07 GB) on disk; a 3 x 3 patch on 1 %; small-cnn trained on 20,000; "
        "features, filtered logits and impurity, activation and spectral on all. Peak resident memory of each process."
    )
    write("million_images", "A million images", told, ["stage", "seconds", "peak GiB", "flagged"], rows)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        stage(sys.argv[1], Path(sys.argv[2]))
        print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.3f}")
    else:
        main()
