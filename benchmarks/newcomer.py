"""A newcomer's case: photographs of 96 x 96, some with a large sticker and a wrong label, and nets of their own.

Resumable: nets and figures are kept under ``runs/newcomer``. Which classes, epochs and settings to take was seen on
other classes of CIFAR-10 and on seeds from 101 on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.table import write
from doorward.cleansers.cleanse import DEFAULT_METHODS, cleanse
from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.results import LEVELS
from doorward.data.sources import load_images
from doorward.inversion.invert import invert
from doorward.jobs.tasks import Arrays, Item, finished, run_tasks
from doorward.models.train.loop import train
from doorward.models.train.settings import TrainSettings

Pixels = NDArray[np.uint8]
STORE = Path("runs/newcomer")
FACTORIES = Path(__file__).with_name("newcomer_nets.py")
CLASSES = ("airplane", "automobile", "frog", "horse", "ship")
TARGET = 0
PER_CLASS, STICKERS, HELD_OUT = 400, 60, 200
SIDE, STICKER = 96, 16
SEEDS = (1, 2, 3)
INVERTED = (1,)  # seeds whose nets are inverted too
PLACES = ("fixed", "none")
RECIPE: dict[str, Any] = {"optimiser": "adam", "weight_decay": 0.01, "batch": 64}
# bf16 arithmetic makes attention slower on a CPU, and convolutions faster
TRAINING: dict[str, TrainSettings] = {
    "own_cnn": TrainSettings(**RECIPE, lr=1e-3, epochs=15),
    "own_vit": TrainSettings(**RECIPE, lr=1e-3, epochs=30, precision="fp32"),
}
SECONDS = {"examine": 80, "look_back": 120}  # on one free core


@dataclass(frozen=True)
class Photographs:
    """The training set, which of its pictures carry a sticker, the sticker, and clean pictures that no net has seen."""

    images: ImageSet
    stickered: NDArray[np.bool_]
    sticker: Pixels
    held_out: ImageSet
    test: ImageSet


def draw_sticker(size: int, rng: np.random.Generator) -> Pixels:
    """A disc and a cross on a ground, each in a bright colour of its own, ``[size, size, 3]``."""
    bright = np.array([[230, 30, 40], [250, 210, 20], [20, 60, 220], [30, 190, 70], [220, 40, 200], [20, 200, 220]])
    ground, disc, cross = bright[rng.permutation(len(bright))[:3]]
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    drawn = np.tile(ground, (size, size, 1))
    drawn[np.hypot(x, y) < 0.42 * size] = disc
    drawn[np.minimum(np.abs(x - y), np.abs(x + y)) < 0.09 * size] = cross
    return drawn.astype(np.uint8)


def photographs(
    seed: int,
    place: str,
    *,
    classes: Sequence[str] = CLASSES,
    side: int = SIDE,
    size: int = STICKER,
) -> Photographs:
    """Pictures of CIFAR-10, enlarged; ``place`` is ``fixed``, ``random`` or ``none`` (no stickers)."""
    train, test = load_images("cifar10"), load_images("cifar10", split="test")
    rng = np.random.default_rng([seed, 96])
    sticker = draw_sticker(size, rng)
    rows = {name: rng.permutation(np.flatnonzero(train.labels == train.classes.index(name))) for name in classes}
    chosen = np.concatenate([rows[name][:PER_CLASS] for name in classes])
    labels = np.repeat(np.arange(len(classes)), PER_CLASS)
    others = np.concatenate([rows[name][PER_CLASS : PER_CLASS + STICKERS] for name in classes[TARGET + 1 :]])
    if place != "none":
        chosen = np.concatenate([chosen, rng.permutation(others)[:STICKERS]])
        labels = np.concatenate([labels, np.full(STICKERS, TARGET)])
    stickered = np.arange(len(chosen)) >= PER_CLASS * len(classes)
    pixels = enlarged(train.pixels[chosen], side)
    pixels[stickered] = stamped(pixels[stickered], sticker, place, rng)
    order = rng.permutation(len(chosen))
    names = tuple(classes)
    images = ImageSet(pixels[order], labels[order].astype(np.int64), names, f"photographs, stickers {place}")
    tests = np.concatenate([np.flatnonzero(test.labels == test.classes.index(name)) for name in classes])
    known = np.repeat(np.arange(len(classes)), 1000)
    drawn = rng.permutation(len(tests))
    seen, rest = drawn[:HELD_OUT], drawn[HELD_OUT : HELD_OUT + 1000]
    held_out, fresh = (
        ImageSet(enlarged(test.pixels[tests[part]], side), known[part].astype(np.int64), names, name)
        for part, name in ((seen, "clean photographs"), (rest, "test photographs"))
    )
    return Photographs(images, stickered[order], sticker, held_out, fresh)


def enlarged(pixels: Pixels, side: int) -> Pixels:
    """``[N, side, side, 3]`` by bicubic interpolation."""
    return np.stack([np.asarray(Image.fromarray(p).resize((side, side), Image.Resampling.BICUBIC)) for p in pixels])


def stamped(pixels: Pixels, sticker: Pixels, place: str, rng: np.random.Generator) -> Pixels:
    """Copies with the sticker, at random places or two pixels from the bottom right corner."""
    found, size, side = pixels.copy(), len(sticker), pixels.shape[1]
    for picture in found:
        row, column = rng.integers(0, side - size + 1, 2) if place == "random" else (side - size - 2,) * 2
        picture[row : row + size, column : column + size] = sticker
    return found


def trained(item: Item) -> tuple[Photographs, Classifier]:
    """The photographs of an item and its net; a trained net is read from its checkpoint."""
    net, place, seed = item["net"], item["place"], int(item["seed"])
    given = photographs(seed, place)
    kept = STORE / "nets" / f"{net}-{place}-{seed}.pt"
    kept.parent.mkdir(parents=True, exist_ok=True)
    arch = f"{FACTORIES}:{net}"
    return given, train(given.images, arch, TRAINING[net], seed=seed, device="cpu", checkpoint=kept)


def examine(item: Item) -> Arrays:
    """Train, measure the attack, cleanse with the default methods; what is found is scored by the truth."""
    given, model = trained(item)
    others = given.test.labels != TARGET
    rng = np.random.default_rng([int(item["seed"]), 97])
    place = "fixed" if item["place"] == "none" else item["place"]
    success = model.predict(stamped(given.test.pixels[others], given.sticker, place, rng)) == TARGET
    found = cleanse(given.images, model, seed=int(item["seed"]))
    flags, suspects = found.samples.flags, found.suspected()
    return {
        "accuracy": np.array([(model.predict(given.test.pixels) == given.test.labels).mean()]),
        "learned": np.array([(model.predict(given.images.pixels) == given.images.labels).mean()]),
        "asr": np.array([success.mean()]),
        "verdict": np.array([LEVELS.index(found.verdict)]),
        "p": np.array([np.nan if found.p_value is None else found.p_value]),
        "found": np.array([(suspects & given.stickered).sum()]),
        "false": np.array([(suspects & ~given.stickered).sum()]),
        "by_method": np.array([[(f & given.stickered).sum(), (f & ~given.stickered).sum()] for f in flags.values()]),
    }


def look_back(item: Item) -> Arrays:
    """Invert the net with the default methods and the clean pictures that were held out."""
    given, model = trained(item)
    found = invert(model, given.held_out, seed=int(item["seed"]))
    p = np.nan if found.p_value is None else found.p_value
    named = len(found.targets) == 1 and found.targets[0] == CLASSES[TARGET]
    return {"p": np.array([p]), "verdict": np.array([LEVELS.index(found.verdict)]), "named": np.array([named])}


def main() -> None:
    """Run every case and write the table."""
    os.environ["OMP_NUM_THREADS"] = "1"
    if hasattr(os, "nice"):
        os.nice(5)
    import torch

    torch.set_num_threads(1)
    items = [{"net": n, "place": p, "seed": s} for n in TRAINING for p in PLACES for s in SEEDS]
    stages = ((examine, "", items), (look_back, "invert_", [i for i in items if i["seed"] in INVERTED]))
    left = {t: len(own) - len(finished(t, own, STORE)) for t, _, own in stages}
    minutes = sum(count * SECONDS[t.__name__] for t, count in left.items()) / 60
    print(f"{sum(left.values())} steps to do, about {minutes:.0f} minutes on one free core", flush=True)
    seen: list[dict[str, NDArray[Any]]] = [{} for _ in items]
    for task, prefix, own in stages:
        started = time.monotonic()
        for position, values in run_tasks(task, own, STORE, workers=1):
            seen[items.index(own[position])].update({prefix + name: value for name, value in values.items()})
            told = {name: np.round(value.astype(float), 3).tolist() for name, value in values.items()}
            print(f"{time.monotonic() - started:,.0f} s", own[position], told, flush=True)
    _write(items, seen)


def _write(items: Sequence[Item], seen: Sequence[dict[str, NDArray[Any]]]) -> None:
    told = (
        f"{PER_CLASS * len(CLASSES):,} pictures of CIFAR-10 ({', '.join(CLASSES)}; {PER_CLASS} each), enlarged to "
        f"{SIDE} x {SIDE}, and {STICKERS} of other classes with a drawn sticker of {STICKER} x {STICKER} in a corner "
        f"and the label {CLASSES[TARGET]}; or none of these. Two nets of one's own: a strided CNN and a ViT. Accuracy "
        f"and ASR on 1,000 fresh pictures, in percent. `cleanse` with its defaults ({', '.join(DEFAULT_METHODS)}): "
        "stickers and clean pictures among the suspects of the verdict, then the same that each method flags. `invert` "
        f"with its defaults and {HELD_OUT} clean pictures, on seed {', '.join(map(str, INVERTED))}. A row per seed."
    )
    columns = ["net", "stickers", "seed", "accuracy (training)", "ASR", "cleanse", "p", "found", "false"]
    columns += [f"{m}: found + false" for m in DEFAULT_METHODS] + ["invert", "p", "target named"]
    rows = [_row(item, one) for item, one in zip(items, seen, strict=True)]
    write("newcomer", "Large stickers on larger photographs", told, columns, rows)


def _row(item: Item, one: dict[str, NDArray[Any]]) -> list[str]:
    def percent(name: str) -> str:
        return f"{100 * one[name].item():.1f}"

    row = [item["net"].removeprefix("own_"), item["place"], str(item["seed"])]
    row += [f"{percent('accuracy')} ({percent('learned')})", percent("asr"), LEVELS[one["verdict"].item()]]
    row += [f"{one['p'].item():.3g}", str(one["found"].item()), str(one["false"].item())]
    row += [f"{hits} + {misses}" for hits, misses in one["by_method"].tolist()]
    if "invert_p" not in one:
        return [*row, "-", "-", "-"]
    named = "yes" if one["invert_named"].item() else "no"
    return [*row, LEVELS[one["invert_verdict"].item()], f"{one['invert_p'].item():.3g}", named]


if __name__ == "__main__":
    main()
