"""`audit` with real nets that others made, given with a training set: images of theirs, some under the net's trigger.

The nets are those of `benchmarks.repair_zoo`, in the folder that ``DOORWARD_ZOO`` names; without them the benchmark is
skipped. Nobody has the very images that they were trained on: the set is made of the same data set, and for a
backdoored net 1 % of it gets the attacker's trigger and label, as the net decides it. Resumable: a net that the table
in results/ has is not measured again. No setting was chosen on these nets.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.repair_zoo import FROM, items, lacking, opened, placed
from benchmarks.table import RESULTS, write
from doorward.attacks.plan import Attack, Pairing
from doorward.attacks.poison import poison
from doorward.attacks.rate import asr
from doorward.audits.audit import audit
from doorward.core.classifier import Classifier, measure_accuracy
from doorward.core.images import ImageSet
from doorward.data.sources import load_images
from doorward.jobs.tasks import Item
from doorward.papers.rows import read_rows, write_rows

STORE = Path("runs/audit-zoo")
SIZE, RATE, SEED, TRIED, TRUTH = 10_000, 0.01, 19, 200, 2000


def trained_on(images: ImageSet, model: Classifier, item: Item) -> tuple[ImageSet, NDArray[np.bool_], Attack]:
    """A training set for a net, its poisoned images ``[N]``, and the attack at the place where it works best."""
    rows = np.sort(np.random.default_rng(SEED).permutation(len(images))[:SIZE])
    part = images.subset(rows)
    ways = [Attack(item["trigger"], (Pairing(t, item["target"]),)) for t in placed(item["trigger"], part.shape)]
    few = part.subset(np.arange(TRIED))
    best = ways[int(np.argmax([asr(model, few, way).value for way in ways]))]
    if not item["backdoored"]:
        return part, np.zeros(len(part), bool), best
    made = poison(part, best, rate=RATE, seed=SEED)
    return made.images, made.truth.poisoned, best


def measure(item: Item, folder: Path) -> dict[str, Any]:
    """Audit one net with its set, and measure its copy."""
    images, test = load_images(item["images"]), load_images(item["images"], split="test")
    truth = test.subset(np.sort(np.random.default_rng(SEED).permutation(len(test))[:TRUTH]))
    model = opened(item, folder, images)
    part, bad, attack = trained_on(images, model, item)
    started = time.monotonic()

    def say(stage: str, done: int, total: int, note: str = "") -> None:
        if not done:
            print(f"{item['net']}, {time.monotonic() - started:.0f} s: {stage} {note}", flush=True)

    found = audit(replace(part, name=f"{SIZE:,} images"), model, seed=0, folder=STORE / item["net"], progress=say)
    seconds, flagged, after = time.monotonic() - started, found.suspected(), found.repaired or model
    named = part.classes[item["target"]]
    return {
        "net": item["net"],
        "backdoored": int(item["backdoored"]),
        "poison": int(bad.sum()),
        "verdict": found.verdict,
        "accused": ", ".join(found.targets) or "none",
        "named": int(named in found.targets),
        "p": found.p_value,
        "true": int((flagged & bad).sum()),
        "false": int((flagged & ~bad).sum()),
        "asr": asr(model, truth, attack).value,
        "asr_after": asr(after, truth, attack).value,
        "accuracy": measure_accuracy(model, truth).value,
        "accuracy_after": measure_accuracy(after, truth).value,
        "trained": found.facts.handed_on or "none",
        "seconds": seconds,
        **{f"seconds_{s.name}": s.seconds for s in found.facts.stages},
    }


def main(jobs: int = 1, rows: int | None = None) -> None:
    """Audit every net that was not audited yet, and write the page of those that were."""
    folder = Path(os.environ.get("DOORWARD_ZOO", "runs/zoo")).resolve()
    nets = items()[:rows]
    missing = lacking(nets, folder)
    if missing:
        print(f"audit_zoo: skipped, {missing[0]} is not in the folder that DOORWARD_ZOO names", flush=True)
        return
    table = RESULTS / "bench-audit-zoo.parquet"
    done = read_rows(table)
    for item in nets:
        if item["net"] not in {row["net"] for row in done}:
            done.append(measure(item, folder))
            print(" | ".join(_words(done[-1])), flush=True)
            write_rows(table, done, {"backdoored", "poison", "named", "true", "false"})
    columns = [
        "net", "poisoned images", "verdict", "accused", "p", "found", "false", "ASR before, after %",
        "accuracy before, after %", "s", "without the experiment, s",
    ]  # fmt: skip
    text = (
        f"`audit`, defaults and seed 0, of real nets that others made, each with {SIZE:,} training images of its data "
        f"set; for the backdoored ones {100 * RATE:g} % of them bear the attacker's trigger and label. Nothing is "
        "told, there are no clean images. No setting was chosen on these nets. After: the copy that the audit hands "
        f"on, on {TRUTH:,} test images; of a clean net the ASR is what the trigger does by nature. One run each."
    )
    write("audit_zoo", "Audits of nets that others made", text, columns, [_words(row) for row in done])


def _words(r: dict[str, Any]) -> list[str]:
    """A row for people."""
    late = sum(r.get(f"seconds_{name}") or 0.0 for name in ("experiment", "retrain"))
    return [
        f"{r['net']}, {FROM[r['net'].split('-')[0]]}",
        f"{r['poison']:,}",
        r["verdict"],
        r["accused"],
        "–" if r["p"] is None else f"{r['p']:.2g}",
        f"{r['true']:,}",
        f"{r['false']:,}",
        f"{100 * r['asr']:.1f}, {100 * r['asr_after']:.1f}",
        f"{100 * r['accuracy']:.1f}, {100 * r['accuracy_after']:.1f}",
        f"{r['seconds']:.0f}",
        f"{r['seconds'] - late:.0f}",
    ]
