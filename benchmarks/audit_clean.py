"""Verdicts of `audit` on sets without poison: how often is it silent, and are its p-values honest?

The kinds of sets are those of `clean_sets`, from seeds of their own; 531, 541, 551, 552, 561, 571 and 572 were seen
while the audit was made. Resumable: a set that the table in results/ has is not audited again; remove that file to
begin anew. ``--jobs 2`` takes two processes, ``--rows 10`` the first ten alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kstest

from benchmarks.clean_sets import GRID, subset
from benchmarks.table import go_on, plain, write
from doorward.audits.audit import audit
from doorward.core.results import FINDINGS, LEVELS
from doorward.core.stats import Rate
from doorward.jobs.tasks import Arrays, Item
from doorward.models.train.loop import train
from doorward.models.train.settings import TrainSettings
from doorward.papers.rows import Row

STORE = Path("runs/audit-clean")
SEEDS = (581, 582)
SHOWN = ("nothing found", "undecided", "suspicious", "evidence", "planted")


def items() -> list[Item]:
    """Every kind of set with every seed, quick ones first."""
    return [{"kind": kind, "seed": seed} for kind in range(len(GRID)) for seed in SEEDS]


def examine(item: Item) -> Arrays:
    """One set: train, audit, the verdict as its place in `LEVELS`."""
    source, classes, count, net, epochs, rate, batch = GRID[item["kind"]]
    seed = int(item["seed"])
    images = subset(source, classes, count, seed)
    model = train(images, net, TrainSettings(epochs=epochs, lr=rate, batch=batch), seed=seed, device="cpu")
    started = time.monotonic()
    found = audit(images, model, seed=seed)
    accuracy = found.record.classifier.accuracy_on_images
    figures = {
        "level": LEVELS.index(found.verdict),
        "p_value": np.nan if found.p_value is None else found.p_value,
        "accuracy": np.nan if accuracy is None else accuracy.value,
        "flagged": found.suspected().sum(),
        "images": len(images),
        "seconds": time.monotonic() - started,
    }
    return {name: np.asarray([value], np.float64) for name, value in figures.items()}


def main(jobs: int = 1, rows: int | None = None) -> None:
    """Audit every set that was not audited yet, and write the page of those that are there."""
    go_on(
        "audit_clean",
        items()[:rows],
        examine,
        STORE,
        key=lambda row: (int(row["kind"]), int(row["seed"])),
        made=lambda item, arrays: [_figures(item, arrays)],
        order=lambda row: (row["seed"], row["kind"]),
        whole={"kind", "classes", "epochs", "seed", "flagged", "images"},
        page=_page,
        jobs=jobs,
    )


def _figures(item: Item, arrays: Arrays) -> Row:
    source, classes, _, net, epochs, *_ = GRID[item["kind"]]
    about = {"source": source, "classes": classes, "net": net, "epochs": epochs}
    figures = plain(arrays)
    return {**item, **about, "verdict": LEVELS[int(figures.pop("level"))], **figures}


def _page(done: list[Row]) -> None:
    columns = ["sets", "number", *SHOWN, "exit code 1", "images flagged %", "median seconds"]
    table = [_line(source, [r for r in done if r["source"] == source]) for source in ("mnist-5k", "cifar10", "faces")]
    told = _told(done)
    write("audit_clean", "Verdicts of audit on sets without poison", told, columns, [*table, _line("all", done)])


def _told(done: Sequence[dict[str, Any]]) -> str:
    """What was audited, and whether the p-values are smaller than those of chance."""
    p = np.array([r["p_value"] for r in done if np.isfinite(r["p_value"])])
    smaller = kstest(p, "uniform", alternative="greater").pvalue if len(p) else np.nan
    return (
        f"{len(done)} of {len(items())} sets without poison: digits, CIFAR-10 and faces, 4 to 40 classes, 400 to 5,000 "
        "images, three nets, trained for long or hardly at all. The audit is given the set and the net, and told "
        f"nothing; level 0.05. Rates in percent, 95 % Clopper-Pearson. {len(p)} audits have a p-value, the others no "
        "test. Whether these are smaller than chance gives (Kolmogorov-Smirnov against uniform, one-sided): p = "
        f"{smaller:.2g}; {int((p <= 0.05).sum())} are at most 0.05. Seconds: one core, beside other work. A row per "
        "set in the Parquet file beside this page."
    )


def _line(name: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    counts = [str(sum(r["verdict"] == v for r in rows)) for v in SHOWN]
    if not rows:
        return [name, "0", *counts, "–", "–", "–"]
    alarms = Rate(sum(r["verdict"] in FINDINGS for r in rows), len(rows))
    flagged = float(np.mean([r["flagged"] / r["images"] for r in rows]))
    seconds = float(np.median([r["seconds"] for r in rows]))
    return [name, str(len(rows)), *counts, str(alarms), f"{100 * flagged:.3f}", f"{seconds:.0f}"]


if __name__ == "__main__":
    main()
