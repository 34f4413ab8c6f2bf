"""Audits of poisoned and clean sets of digits: what is named, what is flagged, what is left; beside `cleanse` alone.

Resumable: every cell is kept under ``runs/audit-matrix``. Seeds from 101 on were used while the audit was made.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table import RESULTS, write
from doorward.attacks.attack import attack
from doorward.attacks.poison import Poisoned
from doorward.attacks.rate import asr
from doorward.audits.audit import audit
from doorward.core.classifier import measure_accuracy
from doorward.core.results import LEVELS
from doorward.core.stats import Rate
from doorward.data.sources import load_images
from doorward.jobs.tasks import Arrays, Item, run_tasks
from doorward.models.train.loop import train
from doorward.models.train.settings import TrainSettings
from doorward.papers.rows import write_rows

STORE = Path("runs/audit-matrix")
SEEDS = 5
ATTACKS: dict[str, tuple[str, dict[str, Any], tuple[float, ...]]] = {
    "pixel": ("pixel", {"size": 1.0, "row": 4, "column": 4}, (0.01, 0.02, 0.005)),
    "patch": ("patch", {"size": 3}, (0.01, 0.02, 0.005)),
    "blend": ("blend", {"alpha": 0.15}, (0.01, 0.02, 0.005)),
    "sinusoid": ("sinusoid", {"strength": 0.15}, (0.01, 0.02, 0.005)),
    "warp": ("warp", {}, (0.05,)),
    "clean": ("", {}, (0.0, 0.0)),
}
TRAINING = TrainSettings(epochs=8, batch=64, lr=0.05)


def items() -> list[Item]:
    """Every cell: the first rate of all attacks for one seed after the other, then the other rates."""
    deepest = max(len(rates) for _, _, rates in ATTACKS.values())
    cells = []
    for rank in range(deepest):
        for seed in range(SEEDS):
            for name, (_, _, rates) in ATTACKS.items():
                if rank < len(rates):
                    number = 10 * seed + rank if name == "clean" else seed
                    cells.append({"attack": name, "rate": rates[rank], "seed": number, "target": (3 * seed + 1) % 10})
    return cells


def measure(item: Item) -> Arrays:
    """Poison, train, audit, score one cell."""
    images, test, seed = load_images("mnist-5k"), load_images("mnist-5k", split="test"), item["seed"]
    made: Poisoned | None = None
    if item["attack"] != "clean":
        recipe, settings, _ = ATTACKS[item["attack"]]
        made = attack(images, recipe, target=item["target"], rate=item["rate"], seed=seed, settings=settings)
        images = made.images
    bad = np.zeros(len(images), bool) if made is None else made.truth.poisoned
    model = train(images, "small-cnn", TRAINING, seed=seed)
    started = time.monotonic()
    found = audit(images, model, seed=seed)
    seconds = time.monotonic() - started
    flagged = found.suspected()
    alone = np.zeros(len(images), bool) if found.cleansing is None else found.cleansing.suspected()
    named = "" if made is None else images.classes[item["target"]]
    figures: dict[str, Any] = {
        "poison": bad.sum(),
        "level": LEVELS.index(found.verdict),
        "named": named in found.targets,
        "others": len(set(found.targets) - {named}),
        "tp": (flagged & bad).sum(),
        "fp": (flagged & ~bad).sum(),
        "cleanse_tp": (alone & bad).sum(),
        "cleanse_fp": (alone & ~bad).sum(),
        "p": np.nan if found.p_value is None else found.p_value,
        "accuracy": measure_accuracy(model, test).value,
        "seconds": seconds,
    }
    after = found.repaired or model
    figures["accuracy_after"] = measure_accuracy(after, test).value
    if made is not None:
        figures["asr"], figures["asr_after"] = (asr(m, test, made.attack).value for m in (model, after))
    return {name: np.asarray([value], np.float64) for name, value in figures.items()}


def main(jobs: int = 1, rows: int | None = None) -> None:
    """Measure every cell that was not measured yet, and write the page of those that are there."""
    cells = items()[:rows]
    done: list[dict[str, Any]] = []
    for position, arrays in run_tasks(measure, cells, STORE, workers=jobs):
        row = {**cells[position], **{name: float(value.reshape(-1)[0]) for name, value in arrays.items()}}
        row["verdict"] = LEVELS[int(row.pop("level"))]
        done.append(row)
        print(" | ".join(_words(row)), flush=True)
    done.sort(key=lambda row: (list(ATTACKS).index(row["attack"]), row["rate"], row["seed"]))
    write_rows(RESULTS / "bench-audit-matrix.parquet", done, {"seed", "target"})
    columns = [
        "attack", "rate %", "seed", "ASR %", "verdict", "target named", "other classes", "found", "false",
        "`cleanse` found", "false", "ASR after %", "accuracy before, after %", "p", "s",
    ]  # fmt: skip
    write("audit_matrix", "Audits of poisoned and of clean digits", _summary(done), columns, [_words(r) for r in done])


def _summary(done: Sequence[dict[str, Any]]) -> str:
    """What all cells come to."""
    poisoned = [r for r in done if r["attack"] != "clean"]
    clean = [r for r in done if r["attack"] == "clean"]
    named = Rate(sum(bool(r["named"]) for r in poisoned), len(poisoned))
    planted = Rate(sum(r["verdict"] == "planted" for r in poisoned), len(poisoned))
    found = [r["tp"] / r["poison"] for r in poisoned]
    false = [r["fp"] / (4000 - r["poison"]) for r in done]
    alone = [r["cleanse_tp"] / r["poison"] for r in poisoned]
    alarms = sum(r["verdict"] in ("planted", "evidence", "suspicious") for r in clean)
    return (
        f"{len(poisoned)} poisoned sets and {len(clean)} clean ones of 4,000 digits (mnist-5k), small-cnn trained on "
        "each; nothing is told to the audit, and there are no clean images. Rate: of all images. "
        f"The target is named in {named} %, planted is said in {planted} %. On average {100 * np.mean(found):.1f} % of "
        f"the poisoned images are found (`cleanse` with its defaults, on the same nets: {100 * np.mean(alone):.1f} %), "
        f"and {100 * np.mean(false):.2f} % of the clean images of all sets are flagged. "
        f"Of the clean sets {alarms} of {len(clean)} are accused. Seconds: one core, beside other work."
    )


def _words(r: dict[str, Any]) -> list[str]:
    """A row for people."""
    dash = r["attack"] == "clean"

    def rate(value: float | None) -> str:
        return "–" if value is None else f"{100 * value:.1f}"

    return [
        r["attack"],
        "–" if dash else f"{100 * r['rate']:g}",
        str(r["seed"]),
        rate(r.get("asr")),
        r["verdict"],
        "–" if dash else ("yes" if r["named"] else "no"),
        f"{r['others']:.0f}",
        "–" if dash else f"{r['tp']:.0f} of {r['poison']:.0f}",
        f"{r['fp']:.0f}",
        "–" if dash else f"{r['cleanse_tp']:.0f}",
        f"{r['cleanse_fp']:.0f}",
        rate(r.get("asr_after")),
        f"{100 * r['accuracy']:.1f}, {100 * r['accuracy_after']:.1f}",
        f"{r['p']:.2g}",
        f"{r['seconds']:.0f}",
    ]


if __name__ == "__main__":
    main()
