"""Verdicts of `cleanse` on sets without poison: how often is it silent, and does it still speak where there is poison?

Sets of digits, photographs and faces, of several sizes, with several nets, some of which have hardly learned their set.
Seeds and sets are not those on which the verdict was chosen. Resumable: every set's figures are kept under
``runs/clean-sets``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table import RESULTS, write
from doorward.attacks.attack import attack
from doorward.attacks.rate import asr
from doorward.cleansers.cleanse import cleanse
from doorward.core.images import ImageSet
from doorward.core.results import FINDINGS, LEVELS
from doorward.core.stats import Rate
from doorward.data.sources import load_images
from doorward.jobs.tasks import Arrays, Item, run_tasks
from doorward.models.train.loop import train
from doorward.models.train.settings import TrainSettings
from doorward.papers.hackml.faces import draw_faces, load_orl
from doorward.papers.rows import write_rows

STORE = Path("runs/clean-sets")
ORL = Path("../shared/data/orl_faces.npz")  # the drawn faces where it is absent
METHODS = ("impurity", "activation", "spectral", "scan", "transfer")
SEEDS = (501, 502)
# Source, classes, images (all where 0), net, epochs, rate, batch
GRID: tuple[tuple[str, int, int, str, int, float, int], ...] = (
    *(
        ("mnist-5k", classes, count, net, epochs, 0.05, 64)
        for classes, count in ((4, 400), (4, 1500), (10, 1000), (10, 4000))
        for net, epochs in (("small-cnn", 2), ("small-cnn", 8), ("two-layer", 3), ("two-layer", 15))
    ),
    *(("mnist-5k", c, n, "resnet20", epochs, 0.1, 64) for c, n in ((4, 800), (10, 2000)) for epochs in (1, 5)),
    *(("cifar10", c, n, "small-cnn", epochs, 0.05, 64) for c, n in ((5, 2000), (10, 5000)) for epochs in (3, 20)),
    *(("cifar10", c, n, "resnet20", epochs, 0.1, 64) for c, n in ((5, 2000), (10, 3000)) for epochs in (2, 10)),
    *(("faces", people, 0, "small-cnn", epochs, 0.05, 16) for people in (10, 40) for epochs in (5, 30)),
    *(("faces", people, 0, "two-layer", 40, 0.05, 16) for people in (10, 40)),
)
PLANTED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("pixel", {"size": 1.0, "row": 4, "column": 4}),
    ("patch", {}),
    ("blend", {"alpha": 0.15}),
)


def items() -> list[Item]:
    """Sets without poison, then digits with it, as the demo has them."""
    clean = [{"set": list(row), "attack": None, "seed": seed} for seed in SEEDS for row in GRID]
    digits = ["mnist-5k", 10, 4000, "small-cnn", 8, 0.05, 64]
    planted = [
        {"set": digits, "attack": [recipe, settings, rate], "seed": seed}
        for rate in (0.02, 0.01)
        for recipe, settings in PLANTED
        for seed in (511, 512, 513)
    ]
    return clean + planted


def examine(item: Item) -> Arrays:
    """One set: train, cleanse, the verdict as its place in `LEVELS`."""
    source, classes, count, net, epochs, rate, batch = item["set"]
    seed = int(item["seed"])
    images = subset(source, classes, count, seed)
    success = float("nan")
    truth = np.zeros(len(images), bool)
    if item["attack"]:
        recipe, settings, share = item["attack"]
        poisoned = attack(images, recipe, rate=share, seed=seed, settings=settings)
        images, truth = poisoned.images, poisoned.truth.poisoned
    model = train(images, net, TrainSettings(epochs=epochs, lr=rate, batch=batch), seed=seed, device="cpu")
    if item["attack"]:
        success = asr(model, load_images(source, split="test"), poisoned.attack, seed=seed).value
    started = time.monotonic()
    found = cleanse(images, model, METHODS, seed=seed)
    flag = np.any(list(found.samples.flags.values()), axis=0)
    accused = np.isin(images.labels, [images.classes.index(t) for t in found.targets])
    accuracy = found.record.classifier.accuracy_on_images
    return {
        "level": np.array([LEVELS.index(found.verdict)]),
        "p_value": np.array([np.nan if found.p_value is None else found.p_value]),
        "accuracy": np.array([np.nan if accuracy is None else accuracy.value]),
        "asr": np.array([success]),
        "flagged": np.array([flag.sum()]),
        "caught": np.array([(flag & truth & accused).sum()]),
        "poisoned": np.array([truth.sum()]),
        "images": np.array([len(images)]),
        "seconds": np.array([time.monotonic() - started]),
    }


def subset(source: str, classes: int, count: int, seed: int) -> ImageSet:
    """So many images of so many classes, drawn by the seed."""
    whole = _faces() if source == "faces" else load_images(source)
    rng = np.random.default_rng([seed, 7])
    chosen = np.sort(rng.permutation(len(whole.classes))[:classes])
    rows = rng.permutation(np.flatnonzero(np.isin(whole.labels, chosen)))
    rows = np.sort(rows[:count] if count else rows)
    labels = np.searchsorted(chosen, whole.labels[rows]).astype(np.int64)
    names = tuple(whole.classes[k] for k in chosen)
    return ImageSet(np.ascontiguousarray(whole.pixels[rows]), labels, names, f"{source}, {classes} classes")


def _faces() -> ImageSet:
    if ORL.exists():
        return load_orl(ORL)
    print(f"{ORL}: not there; drawn faces take their place", flush=True)
    return draw_faces()


def main() -> None:
    """Examine every set and write the table and a row per set."""
    rows: list[dict[str, Any]] = []
    todo = items()
    for position, found in run_tasks(examine, todo, STORE, workers=1):
        item = todo[position]
        source, classes, _, net, epochs, *_ = item["set"]
        about = {"source": source, "classes": classes, "net": net, "epochs": epochs, "seed": item["seed"]}
        planted = f"{item['attack'][0]} {item['attack'][2]}" if item["attack"] else ""
        level = LEVELS[int(found.pop("level")[0])]
        rows.append({**about, "attack": planted, "verdict": level, **{k: v[0].item() for k, v in found.items()}})
        print(rows[-1], flush=True)
    whole = ("classes", "epochs", "seed", "flagged", "caught", "poisoned", "images")
    write_rows(RESULTS / "bench-clean-sets.parquet", rows, whole)
    clean = [r for r in rows if not r["attack"]]
    told = (
        f"{len(clean)} sets without poison ({len(GRID)} kinds, seeds {', '.join(map(str, SEEDS))}): digits, CIFAR-10 "
        "and faces, 4 to 40 classes, 400 to 5,000 images, three nets, trained for long or hardly at all; methods "
        f"{', '.join(METHODS)}, level 0.05. Then digits as the demo has them, three seeds each. The reference is the "
        "verdict before this one: exit code 1 when any method flags any image. Rates in percent, 95 % Clopper-Pearson. "
        "A row per set in the Parquet file beside this page."
    )
    columns = ["sets", "number", "nothing found", "undecided", "suspicious", "evidence", "exit code 1", "reference"]
    table = [_row(f"no poison: {s}", [r for r in clean if r["source"] == s]) for s in ("mnist-5k", "cifar10", "faces")]
    table.append(_row("no poison: all", clean))
    for name in dict.fromkeys(r["attack"] for r in rows if r["attack"]):
        own = [r for r in rows if r["attack"] == name]
        low = 100 * min(r["asr"] for r in own)
        table.append(_row(f"{name.replace(' 0.0', ', ')} % (ASR {low:.0f} or more)", own))
    write("clean_sets", "Verdicts of cleanse on sets without poison", told, columns, table)


def _row(name: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    def share(hits: int) -> str:
        return str(Rate(hits, len(rows)))

    counts = {v: sum(r["verdict"] == v for r in rows) for v in LEVELS}
    levels = [str(counts[v]) for v in ("nothing found", "undecided", "suspicious", "evidence")]
    alarms = sum(counts[v] for v in FINDINGS)
    return [name, str(len(rows)), *levels, share(alarms), share(sum(r["flagged"] > 0 for r in rows))]


if __name__ == "__main__":
    main()
