"""`invert` and `repair` with their defaults on six real nets that others made, three of them backdoored.

The nets lie in the folder that ``DOORWARD_ZOO`` names (default ``runs/zoo``): six files of safetensors and ``arch.py``.
Without them the benchmark is skipped. Resumable: every net's figures are kept under ``runs/repair-zoo``. ``--jobs 2``
takes two processes, ``--rows 3`` the first three nets alone; the page tells of those that are there. No setting was
chosen on these nets.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.table import go_on, write
from doorward.attacks.plan import Attack, Pairing
from doorward.attacks.rate import asr
from doorward.core.classifier import Classifier, measure_accuracy
from doorward.core.images import ImageSet
from doorward.core.progress import Progress
from doorward.core.stats import Rate
from doorward.core.triggers import Placement, Trigger
from doorward.data.sources import load_images
from doorward.inversion.invert import invert
from doorward.jobs.tasks import Arrays, Item
from doorward.models.open.load import load_model
from doorward.repairs.repair import repair

STORE = Path("runs/repair-zoo")
AUDITOR, TRUTH, TRIED = 4000, 5000, 200  # images: of the auditor, to measure on, per place that is tried
SEED = 18
# file, factory, images, range, trigger, target, whether it is backdoored
NETS: tuple[tuple[str, str, str, int, str, int, bool], ...] = (
    ("dil-single_pixel_all_to_one", "two_convolutions", "mnist", 1, "pixel", 0, True),
    ("dil-baseline", "two_convolutions", "mnist", 1, "pixel", 0, False),
    ("tnd-pattern1", "residual32", "cifar10", 255, "cross", 0, True),
    ("tnd-clean1", "residual32", "cifar10", 255, "cross", 0, False),
    ("nad-student", "wide16", "cifar10", 1, "grid", 5, True),
    ("nad-teacher", "wide16", "cifar10", 1, "grid", 5, False),
)
FROM = {"dil": "Dillonsd/Badnets", "tnd": "wangren09/TrojanNetDetector", "nad": "bboylyg/NAD"}
TOLD = {
    "pixel": "one white pixel at row 27, column 27",
    "cross": "an X of five red pixels, anywhere",
    "grid": "a grid of 3 x 3 black and white pixels, bottom right",
}
FIGURES = ("before", "after", "tuned", "accuracy_before", "accuracy_after", "accuracy_tuned")


def items() -> list[Item]:
    """The nets; those for digits first, which are quick."""
    names = ("net", "factory", "images", "range", "trigger", "target", "backdoored")
    return [dict(zip(names, row, strict=True)) for row in NETS]


def placed(kind: str, shape: tuple[int, int, int]) -> Iterator[Trigger]:
    """The attacker's trigger at every place, and in every form, that it may have."""
    channels, height, width = shape
    if kind == "pixel":
        yield _trigger(np.ones((1, 1)), np.ones((1, 1)), channels, 27, 27)
    elif kind == "cross":
        cross = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]])
        for row in range(0, height - 2, 3):
            for column in range(0, width - 2, 3):
                yield _trigger(cross, cross, channels, row, column, red=True)
    else:
        grid = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]])
        dark = grid * np.array([[0, 1, 1], [1, 1, 1], [1, 1, 1]])
        for margin in (0, 1):
            for form in (grid, 1 - grid, dark):
                yield _trigger(form, np.ones((3, 3)), channels, height - 3 - margin, width - 3 - margin)


def _trigger(
    form: NDArray[Any], alpha: NDArray[Any], channels: int, row: int, column: int, red: bool = False
) -> Trigger:
    pattern = torch.as_tensor(form, dtype=torch.float32).repeat(channels, 1, 1)
    if red:
        pattern[1:] = 0
    return Trigger(pattern, torch.as_tensor(alpha, dtype=torch.float32)[None], Placement("fixed", row, column))


def opened(item: Item, folder: Path, like: ImageSet) -> Classifier:
    """A net of the zoo."""
    return load_model(
        folder / f"{item['net']}.safetensors",
        arch=f"{folder / 'arch.py'}:{item['factory']}",
        like=like,
        value_range=(0, item["range"]),
        device="cpu",
    )


def lacking(nets: Sequence[Item], folder: Path) -> list[str]:
    """Files of the zoo that the folder does not have."""
    return [name for name in (*(f"{n['net']}.safetensors" for n in nets), "arch.py") if not (folder / name).exists()]


def measure(item: Item) -> Arrays:
    """Open a net, invert it, repair it; the attacker's own trigger before and after, and what was said."""
    test = load_images(item["images"], split="test")
    order = np.random.default_rng(SEED).permutation(len(test))
    clean = test.subset(np.sort(order[:AUDITOR]))
    truth = test.subset(np.sort(order[AUDITOR : AUDITOR + TRUTH]))
    model = opened(item, Path(item["folder"]), clean)
    started = time.monotonic()
    found = invert(model, clean, seed=0)
    seconds = [time.monotonic() - started]
    print(f"{item['net']}: invert said {found.verdict} after {seconds[0]:.0f} s", flush=True)
    inverted = {c.label: np.nan if c.p_value is None else c.p_value for c in found.record.classes}
    nets, said = {"before": model}, ("undecided", "no class was named, and none accused: not run")
    if found.verdict != "undecided":
        started = time.monotonic()
        done = repair(model, clean, found, seed=0, progress=said_of(item["net"]))
        seconds.append(time.monotonic() - started)
        said = (done.verdict, done.record.judgement.headline)
        nets["after"] = done.classifier
        if any(arm.name == "fine-tune" for arm in done.record.arms):
            nets["tuned"] = done.classifier_of("fine-tune")
    figures: dict[str, Any] = {
        "p": found.p_value if found.p_value is not None else np.nan,
        "p-classes": [inverted[k] for k in sorted(inverted)],
        "accused": [k in found.target_labels for k in range(len(model.classes))],
        "seconds": [*seconds, *[0.0] * (2 - len(seconds))],
    }
    figures |= _true_success(nets, truth, clean, item)
    arrays = {name: np.asarray(value, np.float64) for name, value in figures.items()}
    words = {"inverted": found.verdict, "repaired": said[0], "headline": said[1]}
    return arrays | {name: np.frombuffer(text.encode(), np.uint8).copy() for name, text in words.items()}


def said_of(net: str) -> Progress:
    """Says which arm is at work, since an arm takes minutes."""
    started = time.monotonic()

    def say(stage: str, done: int, total: int, note: str = "") -> None:
        print(f"{net}: {stage}, {done} of {total}, {time.monotonic() - started:.0f} s", flush=True)

    return say


def _true_success(nets: dict[str, Classifier], truth: ImageSet, clean: ImageSet, item: Item) -> dict[str, Any]:
    """Success of the attacker's trigger where it works best on the net as given, and over all places; accuracy.

    The place is looked for on the auditor's images, so that it is not chosen on those that are measured on.
    """
    ways = [Attack(item["trigger"], (Pairing(t, item["target"]),)) for t in placed(item["trigger"], truth.shape)]
    few, tried = truth.subset(np.arange(TRIED)), clean.subset(np.arange(TRIED))
    best = int(np.argmax([asr(nets["before"], tried, way).value for way in ways]))
    place = ways[best].pairings[0].stamp.placement  # type: ignore[attr-defined]
    figures: dict[str, Any] = {"place": [best, place.top, place.left]}
    for name, net in nets.items():
        right, success = measure_accuracy(net, truth), asr(net, truth, ways[best])
        figures |= {name: [success.hits, success.trials], f"accuracy_{name}": [right.hits, right.trials]}
        if item["trigger"] == "cross":
            figures[f"{name}-places"] = [asr(net, few, way).value for way in ways]
    return figures


def row(item: Item, f: Arrays) -> dict[str, Any]:
    """The figures of a net, for the Parquet file."""
    words = {name: bytes(f[name]).decode() for name in ("inverted", "repaired", "headline")}
    values: dict[str, Any] = {"net": item["net"], "trigger": item["trigger"], "target": item["target"], **words}
    values |= {"backdoored": int(item["backdoored"]), "p": f["p"].item()}
    values["accused"] = ", ".join(str(k) for k in np.flatnonzero(f["accused"])) or "none"
    for name in FIGURES:
        hits, trials = (int(v) for v in f[name]) if name in f else (0, 0)
        values |= {f"{name}_hits": hits, f"{name}_trials": trials}
    for name in ("before", "after"):
        places = f.get(f"{name}-places")
        values[f"{name}_places_mean"] = None if places is None else float(places.mean())
        values[f"{name}_places_worst"] = None if places is None else float(places.max())
    values |= {"place_row": int(f["place"][1]), "place_column": int(f["place"][2]), "form": int(f["place"][0])}
    return values | {"invert_seconds": float(f["seconds"][0]), "repair_seconds": float(f["seconds"][1])}


def told(r: dict[str, Any]) -> list[str]:
    """The same in words, for the page."""
    counts = [(int(r[f"{n}_hits"]), int(r[f"{n}_trials"])) for n in FIGURES]
    rates = [str(Rate(*hits)) if hits[1] else "–" for hits in counts]
    accused = "" if r["accused"] == "none" else f": {r['accused']}"
    p = "" if r["p"] is None or np.isnan(r["p"]) else f" (p = {r['p']:.2g})"
    return [
        f"{r['net']}, {FROM[r['net'].split('-')[0]]}",
        f"{r['trigger']} -> {r['target']}" if r["backdoored"] else "clean",
        f"{r['inverted']}{accused}{p}",
        f"{r['repaired']}: {r['headline']}",
        *rates,
        f"{r['invert_seconds']:.0f}, {r['repair_seconds']:.0f}",
    ]


def _over_places(rows: Sequence[dict[str, Any]]) -> str:
    """The mean over places of the triggers that may lie anywhere."""
    parts = []
    for r in rows:
        if r["before_places_mean"] is not None:
            before, after = (
                "not measured"
                if r[f"{n}_places_mean"] is None
                else f"{100 * r[f'{n}_places_mean']:.1f} % on average, {100 * r[f'{n}_places_worst']:.1f} % at the best"
                for n in ("before", "after")
            )
            parts.append(f"{r['net']}: {before} before; {after} after.")
    return " ".join(parts)


def main(jobs: int = 1, rows: int | None = None) -> None:
    """Measure every net that was not measured yet; after each the page of those that are there."""
    folder = Path(os.environ.get("DOORWARD_ZOO", "runs/zoo"))
    nets = items()[:rows]
    missing = lacking(nets, folder)
    if missing:
        print(f"repair_zoo: skipped, {missing[0]} is not in the folder that DOORWARD_ZOO names", flush=True)
        return
    order = [net[0] for net in NETS]
    go_on(
        "repair_zoo",
        nets,
        measure,
        STORE,
        key=lambda row: str(row["net"]),
        made=lambda item, arrays: [row(item, arrays)],
        order=lambda row: order.index(row["net"]),
        whole={"target", "backdoored", "form", "place_row", "place_column"},
        page=_page,
        jobs=jobs,
        shared={"folder": str(folder.resolve())},
    )


def _page(done: Sequence[dict[str, Any]]) -> None:
    """The page of the nets that are there."""
    text = (
        f"`invert` and `repair`, defaults and seed 0, on {len(done)} of six nets that others made and published, three "
        f"of the six backdoored; no setting was chosen on them. Both see {AUDITOR:,} clean test images (cifar10; for "
        f"the nets of digits mnist), drawn by seed {SEED}; the attacker's own trigger and clean accuracy are measured "
        f"on {TRUTH:,} others, in percent with 95 % intervals (Clopper-Pearson), one run each. The trigger: "
        + "; ".join(f"{k}: {v}" for k, v in TOLD.items())
        + f". Its place and form are those that work best on the net as given, tried on {TRIED} of the auditor's "
        "images; on a clean net the row shows what it does by nature. nad-teacher is nad-student fine-tuned by its "
        "authors on clean images, and counts as clean. Where nobody is accused the net is handed on as it came. "
        "Fine-tuning is the control arm: the same training without triggers."
    )
    places = _over_places(done)
    if places:
        text += f"\n\nThe X at 100 places, {TRIED} images each, of which the table shows the best before: {places}"
    columns = [
        "net", "truth", "invert said", "repair said", "trigger's success before %", "after `repair` %",
        "after fine-tuning alone %", "accuracy before %", "after %", "after fine-tuning %", "s: invert, repair",
    ]  # fmt: skip
    write("repair_zoo", "Repair of nets that others made", text, columns, [told(r) for r in done])


if __name__ == "__main__":
    main()
