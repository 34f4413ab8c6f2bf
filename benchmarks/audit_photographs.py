"""Audits of a newcomer's photographs with nets of their own: large stickers, or none.

Pictures, stickers and nets are those of `benchmarks.newcomer`. Resumable: a row that the table in results/ has is not
measured again; remove that file to begin anew. Seeds from 101 on and other classes were used while the audit was made.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.newcomer import CLASSES, FACTORIES, PER_CLASS, STICKERS, STORE, TARGET, stamped, trained
from benchmarks.table import go_on, judged, write
from doorward.audits.audit import audit
from doorward.core.results import LEVELS
from doorward.core.stats import Rate
from doorward.jobs.tasks import Arrays, Item
from doorward.papers.rows import Row

SEEDS = (1, 2, 3)


def items() -> list[Item]:
    """One seed after the other: both nets, with stickers and without."""
    cells = [(seed, place, net) for seed in SEEDS for place in ("fixed", "none") for net in ("own_cnn", "own_vit")]
    return [{"net": net, "place": place, "seed": seed} for seed, place, net in cells]


def measure(item: Item) -> Arrays:
    """Train, audit, score."""
    given, model = trained(item)
    started = time.monotonic()
    found = audit(given.images, model, net=f"{FACTORIES}:{item['net']}", seed=int(item["seed"]))
    seconds, flagged = time.monotonic() - started, found.suspected()
    after, rng = found.repaired or model, np.random.default_rng([int(item["seed"]), 97])
    others = given.test.labels != TARGET
    marked = stamped(given.test.pixels[others], given.sticker, "fixed", rng)
    alone = found.cleansing.suspected() if found.cleansing is not None else np.zeros(len(flagged), bool)
    figures = {
        "level": LEVELS.index(found.verdict),
        "p": np.nan if found.p_value is None else found.p_value,
        "named": CLASSES[TARGET] in found.targets,
        "others": len(set(found.targets) - {CLASSES[TARGET]}),
        "tp": (flagged & given.stickered).sum(),
        "fp": (flagged & ~given.stickered).sum(),
        "cleanse_tp": (alone & given.stickered).sum(),
        "cleanse_fp": (alone & ~given.stickered).sum(),
        "asr": (model.predict(marked) == TARGET).mean(),
        "asr_after": (after.predict(marked) == TARGET).mean(),
        "accuracy": (model.predict(given.test.pixels) == given.test.labels).mean(),
        "accuracy_after": (after.predict(given.test.pixels) == given.test.labels).mean(),
        "seconds": seconds,
    }
    return {name: np.asarray([value], np.float64) for name, value in figures.items()}


def main(jobs: int = 1, rows: int | None = None) -> None:
    """Measure every row that is not there yet, and write the page of those that are."""
    go_on(
        "audit_photographs",
        items()[:rows],
        measure,
        STORE / "audits",
        key=lambda row: (row["net"], row["place"], int(row["seed"])),
        made=judged,
        order=lambda row: (row["place"], row["net"], row["seed"]),
        whole={"seed"},
        page=_page,
        jobs=jobs,
    )


def _page(done: list[Row]) -> None:
    columns = [
        "net", "stickers", "seed", "ASR %", "verdict", "other classes", "found", "false", "`cleanse` found", "false",
        "ASR after %", "accuracy before, after %", "p", "s",
    ]  # fmt: skip
    lines = [_words(row) for row in done]
    write("audit_photographs", "Audits of photographs with nets of one's own", _told(done), columns, lines)


def _told(done: list[dict[str, Any]]) -> str:
    marked, clean = ([r for r in done if (r["place"] == "fixed") == wanted] for wanted in (True, False))
    planted = Rate(sum(r["verdict"] == "planted" for r in marked), len(marked))
    found = Rate(sum(int(r["tp"]) for r in marked), STICKERS * len(marked))
    alarms = sum(r["verdict"] in LEVELS[: LEVELS.index("suspicious") + 1] for r in clean)
    return (
        f"{len(CLASSES)} classes of CIFAR-10 of {PER_CLASS} pictures each, enlarged to 96 x 96, {STICKERS} more with a "
        "sticker of 16 x 16 and a wrong label, or none; a CNN and a ViT of one's own, right on about 60 to 75 % of "
        "fresh pictures. Nothing is told to the audit, and there are no clean images. Of the sets with stickers "
        f"{planted} % are planted, and {found} % of the stickers are found; "
        f"{sum(r['fp'] for r in done):.0f} clean pictures of all sets are flagged. Of the sets without any {alarms} of "
        f"{len(clean)} are accused. That an experiment counts as one test more was decided after the clean CNN of seed "
        "1 had been seen once (p of a class 0.027). `cleanse`: its defaults, the same nets. Seconds: one core, beside "
        "other work."
    )


def _words(r: Mapping[str, Any]) -> list[str]:
    """A row for people."""
    none = r["place"] == "none"
    return [
        str(r["net"]).removeprefix("own_"),
        str(r["place"]),
        str(r["seed"]),
        f"{100 * r['asr']:.1f}",
        str(r["verdict"]),
        f"{r['others'] + (r['named'] if none else 0):.0f}",
        "–" if none else f"{r['tp']:.0f} of {STICKERS}",
        f"{r['fp']:.0f}",
        "–" if none else f"{r['cleanse_tp']:.0f}",
        f"{r['cleanse_fp']:.0f}",
        f"{100 * r['asr_after']:.1f}",
        f"{100 * r['accuracy']:.1f}, {100 * r['accuracy_after']:.1f}",
        f"{r['p']:.2g}",
        f"{r['seconds']:.0f}",
    ]


if __name__ == "__main__":
    main()
