"""Every repair in one table: what is left of the attacker's trigger, and what accuracy it costs, by clean images.

Digits; a net with batch norms, one without any norm, one with layer norms. Resumable: what is measured is kept under
``runs/repair-peers``. ``--jobs 2`` takes two processes, ``--rows 3`` the first three rows alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.repair_holds import VGG
from benchmarks.table import go_on, write
from doorward.attacks.attack import attack
from doorward.attacks.rate import asr
from doorward.core.classifier import measure_accuracy
from doorward.core.stats import Rate
from doorward.data.sources import load_images
from doorward.inversion.invert import invert
from doorward.inversion.triggers import load_inverted
from doorward.jobs.tasks import Arrays, Item
from doorward.models.train.loop import train
from doorward.models.train.settings import TrainSettings
from doorward.repairs.arms import Planned, make_bench, plan_arms
from doorward.repairs.parts.stamping import Triggers

STORE = Path("runs/repair-peers")
VIT = "benchmarks/newcomer_nets.py:own_vit"
NETS = {"small-cnn": "batch norm", VGG: "no norm", VIT: "layer norm"}
GIVEN = (500, 2500, 5000)
MEASURED = 5000
METHODS = ("hold", "retrain", "ibau", "nad", "ft-sam", "anp", "prune")
ORDER = ("as given", "never poisoned", "fine-tune", "refresh", "single", *METHODS[1::-1], *METHODS[2:], "oracle")
FIGURES = ("accuracy_hits", "asr_hits", "asr_trials", "seconds")
TARGET, SEED = 4, 71


def items() -> list[Item]:
    """Every net with every number of clean images, the fewest first."""
    return [{"net": net, "given": given, "seed": SEED} for given in GIVEN for net in NETS]


def measure(item: Item) -> Arrays:
    """Plant a white 4 x 4 square, invert, repair by every arm; the attacker's square and clean accuracy after each."""
    seed = item["seed"]
    training, test = load_images("mnist-5k"), load_images("mnist", split="test")
    order = np.random.default_rng(seed).permutation(len(test))
    truth, others = test.subset(np.sort(order[:MEASURED])), order[MEASURED:]
    clean = test.subset(np.sort(others[: item["given"]]))
    poisoned = attack(training, "patch", target=TARGET, rate=0.05, seed=seed, settings={"size": 4, "colours": "white"})
    usual = {"lr": 0.05, "epochs": 8} if item["net"] == "small-cnn" else {"optimiser": "adam", "lr": 1e-3, "epochs": 15}
    settings = TrainSettings(batch=64, **usual)
    model, twin = (train(images, item["net"], settings, seed=seed) for images in (poisoned.images, training))
    found = invert(model, clean, seed=seed)
    true: Triggers = {TARGET: [p.stamp for p in poisoned.attack.pairings]}
    every, single = (
        load_inverted(found, model.classes, targets=[str(TARGET)], all_methods=several).stamps
        for several in (True, False)
    )
    bench = make_bench(model, clean, every, held_out=0.2, seed=seed, prove=False)
    figures: dict[str, list[float]] = {
        "as given": _figures(measure_accuracy(model, truth), asr(model, truth, poisoned.attack), 0.0),
        "never poisoned": _figures(measure_accuracy(twin, truth), asr(twin, truth, poisoned.attack), 0.0),
    }
    for name, planned in _arms(every, single, true).items():
        arm = bench.run(planned)
        repaired = arm.repaired.classifier
        figures[name] = _figures(measure_accuracy(repaired, truth), asr(repaired, truth, poisoned.attack), arm.seconds)
        print(f"{item['net']}, {item['given']} images, {name}: {figures[name]}", flush=True)
    accused = float(TARGET in found.target_labels)
    return {"accused": np.array([accused])} | {k: np.asarray(v, np.float64) for k, v in figures.items()}


def _arms(every: Triggers, single: Triggers, true: Triggers) -> dict[str, Planned]:
    """The arms by name: all methods, controls, oracle, and training against the single found trigger."""
    arms = {arm.name: arm for arm in plan_arms(METHODS, triggers=every, oracle=true)}
    (alone,) = plan_arms("retrain", triggers=single, settings={"retrain": {"around": False}}, controls=False)
    return {k: v for k, v in arms.items() if not k.startswith("fine-tune-")} | {"single": alone}


def _figures(accuracy: Rate, success: Rate, seconds: float) -> list[float]:
    return [accuracy.hits, success.hits, success.trials, seconds]


def rows_of(item: Item, arrays: Arrays) -> list[dict[str, Any]]:
    """A row per arm."""
    shared = {**item, "accused": int(arrays["accused"][0])}
    return [
        {**shared, "arm": arm, **dict(zip(FIGURES, (float(v) for v in values), strict=True))}
        for arm, values in arrays.items()
        if arm != "accused"
    ]


def told(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """A line per net and arm, with the figures for every number of clean images."""
    lines = []
    for net, kind in NETS.items():
        here = [r for r in rows if r["net"] == net]
        for arm in sorted({r["arm"] for r in here}, key=ORDER.index):
            by_count = {int(r["given"]): r for r in here if r["arm"] == arm}
            cells = [kind, arm]
            for figure in ("asr", "accuracy", "seconds"):
                cells += [_cell(by_count.get(given), figure) for given in GIVEN]
            lines.append(cells)
    return lines


def _cell(row: dict[str, Any] | None, figure: str) -> str:
    if row is None:
        return "–"
    if figure == "seconds":
        return f"{row['seconds']:.0f}" if row["seconds"] else ""
    hits, trials = (row["asr_hits"], row["asr_trials"]) if figure == "asr" else (row["accuracy_hits"], MEASURED)
    return f"{100 * hits / trials:.1f}"


def main(jobs: int = 1, rows: int | None = None) -> None:
    """Measure every row that was not measured yet; after each the page of those that are there."""
    nets = list(NETS)
    go_on(
        "repair_peers",
        items()[:rows],
        measure,
        STORE,
        key=lambda row: (row["net"], int(row["given"])),
        made=rows_of,
        order=lambda row: (nets.index(row["net"]), row["given"]),
        whole={"given", "seed", "accused"},
        page=_page,
        jobs=jobs,
    )


def _page(done: Sequence[dict[str, Any]]) -> None:
    missed = {f"{NETS[r['net']]} with {int(r['given']):,}" for r in done if not r["accused"]}
    rows = len({(r["net"], r["given"]) for r in done})
    text = (
        f"{rows} of {len(items())} pairs of a net and a number of clean images. Digits (mnist-5k), 5 % of them with a "
        f"white square of 4 x 4 pixels and labelled {TARGET}; one net of each "
        f"kind, seed {SEED}. Columns: percent of {MEASURED:,} other digits (mnist) that the attacker's square sends to "
        f"{TARGET}, clean accuracy on the same digits, seconds of the arm alone; each with "
        + ", ".join(f"{given:,}" for given in GIVEN)
        + " clean images for the auditor. On 5,000 images a 95 % interval is at most 1.4 points to each side, at 98 % "
        "0.4. `single` trains against the smallest found trigger alone, `retrain` around all found ones, once, `hold` "
        "until the class stands out no more; `oracle` is told the square. `fine-tune` has the budget of `hold`. The "
        "inversion named the class "
        + (f"except of {', '.join(sorted(missed))}, where it was named by hand." if missed else "in every row.")
    )
    heads = ["norm", "arm"] + [f"{what}, {given:,}" for what in ("ASR %", "accuracy %", "s") for given in GIVEN]
    write("repair_peers", "Repairs and their peers, by clean images", text, heads, told(done))


if __name__ == "__main__":
    main()
