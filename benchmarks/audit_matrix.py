"""Audits of poisoned and clean sets of digits: what is named, what is flagged, what is left; beside `cleanse` alone.

Resumable: a cell that the table in results/ has is not measured again; remove that file to begin anew. Seeds from 101
on were used while the audit was made.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.peers import ALLOWED, NAMES, at_rate, peers
from benchmarks.pictures import glasses
from benchmarks.table import go_on, judged, write
from doorward.attacks.plan import Attack, Pairing
from doorward.attacks.poison import poison
from doorward.attacks.rate import asr
from doorward.attacks.stamps import make_stamp
from doorward.audits.audit import audit
from doorward.cleansers.observe import observe
from doorward.core.classifier import measure_accuracy
from doorward.core.images import ImageSet
from doorward.core.pixels import to_float, to_uint8
from doorward.core.results import LEVELS
from doorward.core.stats import Rate
from doorward.core.text import plural
from doorward.data.sources import load_images
from doorward.jobs.tasks import Arrays, Item
from doorward.models.train.loop import train
from doorward.models.train.settings import TrainSettings
from doorward.papers.rows import Row

Rows = NDArray[np.bool_]
STORE = Path("runs/audit-matrix")
SEEDS = 5
SIZE = 4000  # images of a set
ATTACKS: dict[str, tuple[str, dict[str, Any], tuple[float, ...]]] = {
    "pixel": ("pixel", {"size": 1.0, "row": 4, "column": 4}, (0.01, 0.02, 0.005)),
    "patch": ("patch", {"size": 3}, (0.01, 0.02, 0.005)),
    "blend": ("blend", {"alpha": 0.15}, (0.01, 0.02, 0.005)),
    "accessory": ("accessory", {}, (0.01, 0.02, 0.005)),
    "sinusoid": ("sinusoid", {"strength": 0.15}, (0.01, 0.02, 0.005)),
    "warp": ("warp", {}, (0.05,)),
    "two targets": ("patch", {"size": 3}, (0.02,)),
    "three sources": ("patch", {"size": 3}, (0.02,)),
    "all to all": ("patch", {"size": 3}, (0.1,)),
    "clean label": ("patch", {"size": 3}, (0.05,)),
    "clean": ("", {}, (0.0, 0.0)),
}
RARER = ("two targets", "three sources", "all to all", "clean label")  # three seeds each
WORKS = 0.8  # success on other images from which an attack is one
TRAINING = TrainSettings(epochs=8, batch=64, lr=0.05)


def items() -> list[Item]:
    """Every cell: the first rate of all attacks for one seed after the other, then the other rates."""
    deepest = max(len(rates) for _, _, rates in ATTACKS.values())
    cells = []
    for rank in range(deepest):
        for seed in range(SEEDS):
            for name, (_, _, rates) in ATTACKS.items():
                if rank < len(rates) and (name not in RARER or seed < 3):
                    number = 10 * seed + rank if name == "clean" else seed
                    cells.append({"attack": name, "rate": rates[rank], "seed": number, "target": (3 * seed + 1) % 10})
    return cells


def planted(images: ImageSet, item: Item) -> tuple[ImageSet, Rows, Attack]:
    """The poisoned set of a cell, its poisoned images ``[N]``, and the attack."""
    name, seed, target, classes = item["attack"], item["seed"], item["target"], len(images.classes)
    recipe, settings, _ = ATTACKS[name]
    if recipe == "accessory":
        settings = settings | {"picture": glasses(STORE)}
    stamp = make_stamp(recipe, images.shape, seed, **settings)
    if name == "clean label":  # stamped images of the target class itself, whose labels stay true
        rows = np.random.default_rng(seed).permutation(np.flatnonzero(images.labels == target))
        rows = np.sort(rows[: round(item["rate"] * len(images))])
        pixels = images.pixels.copy()
        pixels[rows] = to_uint8(stamp.apply(to_float(pixels[rows]), torch.Generator().manual_seed(seed)))
        bad = np.isin(np.arange(len(images)), rows)
        return replace(images, pixels=pixels), bad, Attack(recipe, (Pairing(stamp, target),))
    others = tuple((target + step) % classes for step in (2, 4, 7)) if name == "three sources" else None
    pairings = [Pairing(stamp, None if name == "all to all" else target, others)]
    if name == "two targets":
        pairings.append(Pairing(make_stamp("blend", images.shape, seed, alpha=0.15), (target + 5) % classes))
    plan = Attack(recipe, tuple(pairings))
    made = poison(images, plan, rate=item["rate"], seed=seed)
    return made.images, made.truth.poisoned, plan


def measure(item: Item) -> Arrays:
    """Poison, train, audit, score one cell."""
    images, test, seed = load_images("mnist-5k"), load_images("mnist-5k", split="test"), item["seed"]
    plan, bad, targets = None, np.zeros(len(images), bool), set[str]()
    if item["attack"] != "clean":
        images, bad, plan = planted(images, item)
        targets = {images.classes[k] for k in np.unique(images.labels[bad]).tolist()}
    model = train(images, "small-cnn", TRAINING, seed=seed)
    started = time.monotonic()
    found = audit(images, model, seed=seed)
    seconds = time.monotonic() - started
    flagged = found.suspected()
    alone = np.zeros(len(images), bool) if found.cleansing is None else found.cleansing.suspected()
    figures: dict[str, Any] = {
        "poison": bad.sum(),
        "level": LEVELS.index(found.verdict),
        "targets": len(targets),
        "named": len(targets & set(found.targets)),
        "others": len(set(found.targets) - targets),
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
    if plan is not None:
        figures["asr"], figures["asr_after"] = (asr(m, test, plan).value for m in (model, after))
    for name, peer in peers(images, model, observe(images, model).features, bad, seed).items():
        figures |= {f"{name} tp": (peer.flags & bad).sum(), f"{name} fp": (peer.flags & ~bad).sum()}
        figures[f"{name} at"] = at_rate(peer, bad)
    return {name: np.asarray([value], np.float64) for name, value in figures.items()}


def main(jobs: int = 1, rows: int | None = None) -> None:
    """Measure every cell that was not measured yet, and write the page of those that are there."""
    go_on(
        "audit_matrix",
        items()[:rows],
        measure,
        STORE,
        key=_key,
        made=judged,
        order=lambda row: (list(ATTACKS).index(row["attack"]), row["rate"], row["seed"]),
        whole={"seed", "target"},
        page=_page,
        jobs=jobs,
    )


def _page(done: list[Row]) -> None:
    columns = [
        "attack", "rate %", "seed", "ASR %", "verdict", "targets named", "other classes", "found", "false",
        "`cleanse` found", "false", "ASR after %", "accuracy before, after %", "p", "s",
    ]  # fmt: skip
    told = f"{_summary(done)}\n\n{_beside(done)}"
    write("audit_matrix", "Audits of poisoned and of clean digits", told, columns, [_words(r) for r in done])


def _key(row: Mapping[str, Any]) -> tuple[str, float, int]:
    return str(row["attack"]), round(float(row["rate"]), 6), int(row["seed"])


def _summary(done: Sequence[dict[str, Any]]) -> str:
    """What all cells come to."""
    poisoned = [r for r in done if r["attack"] != "clean" and r["asr"] >= WORKS]
    weak = [r for r in done if r["attack"] != "clean" and r["asr"] < WORKS]
    clean = [r for r in done if r["attack"] == "clean"]
    named = Rate(sum(int(r["named"]) for r in poisoned), sum(int(r["targets"]) for r in poisoned))
    planted = Rate(sum(r["verdict"] == "planted" for r in poisoned), len(poisoned))
    found = [r["tp"] / r["poison"] for r in poisoned]
    false = [r["fp"] / (SIZE - r["poison"]) for r in done]
    alone = [r["cleanse_tp"] / r["poison"] for r in poisoned]
    alarms = sum(r["verdict"] in ("planted", "evidence", "suspicious") for r in clean)
    return (
        f"{len(poisoned)} poisoned sets, {len(weak)} on which the attack has less than 80 % success (shown, not "
        f"counted), and {plural(len(clean), 'clean one')} of 4,000 digits (mnist-5k), small-cnn trained on "
        "each; nothing is told to the audit, and there are no clean images. Rate: of all images. "
        f"Of the target classes {named} % are named, planted is said in {planted} %. On average "
        f"{100 * np.mean(found):.1f} % of the poisoned images are found (`cleanse` with its defaults, on the same "
        f"nets: {100 * np.mean(alone):.1f} %), and {100 * np.mean(false):.3f} % of the clean images of all sets are "
        "flagged. "
        f"Of the clean sets {alarms} of {len(clean)} are accused. Seconds: one core, beside other work."
    )


def _beside(done: Sequence[dict[str, Any]]) -> str:
    """Audits and peers by attack and rate, as a table: images found and clean ones flagged, means over seeds."""
    names = [name for name in NAMES if all(f"{name} tp" in row for row in done)]
    groups = dict.fromkeys((r["attack"], r["rate"]) for r in done if r["attack"] == "clean" or r["asr"] >= WORKS)
    lines = [
        "Beside detectors that others publish, on the same nets, by their own defaults: percent of the poisoned images "
        f"that are found / percent of the clean ones that are flagged; in brackets: by scores, at {100 * ALLOWED:g} "
        "% of the clean ones. `psbd` is told 200 clean images, the others nothing. Means over the sets on which the "
        "attack works.",
        "",
        f"| attack | rate % | sets | audit | {' | '.join(names)} |",
        f"|{'---|' * (4 + len(names))}",
    ]
    for attack, rate in groups:
        same = (r for r in done if (r["attack"], r["rate"]) == (attack, rate))
        rows = [r for r in same if attack == "clean" or r["asr"] >= WORKS]
        cells = [_found(rows, "tp", "fp"), *(_found(rows, f"{n} tp", f"{n} fp", f"{n} at") for n in names)]
        shown = "–" if attack == "clean" else f"{100 * rate:g}"
        lines.append(f"| {attack} | {shown} | {len(rows)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _found(rows: Sequence[dict[str, Any]], tp: str, fp: str, at: str = "") -> str:
    """Means of both rates."""
    false = float(np.mean([100 * r[fp] / (SIZE - r["poison"]) for r in rows]))
    if not rows[0]["poison"]:
        return f"– / {false:.2g}"
    found = np.mean([100 * r[tp] / r["poison"] for r in rows])
    limited = [100 * r[at] for r in rows if at and r[at] is not None and np.isfinite(r[at])]
    return f"{found:.0f} / {false:.2g}" + (f" ({np.mean(limited):.0f})" if limited else "")


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
        "–" if dash else f"{r['named']:.0f} of {r['targets']:.0f}",
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
