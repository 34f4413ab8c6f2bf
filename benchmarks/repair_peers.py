"""Every repair in one table: what is left of the attacker's trigger, and what accuracy it costs, by clean images.

Digits; a net with batch norms, one without any norm, one with layer norms. Resumable: what is measured is kept under
``runs/repair-peers``. ``--jobs 2`` takes two processes, ``--rows 3`` the first three arms alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.repair_holds import VGG
from benchmarks.table import go_on, write
from doorward.attacks.attack import attack
from doorward.attacks.rate import asr
from doorward.core.classifier import Classifier, measure_accuracy
from doorward.core.images import ImageSet
from doorward.core.stats import Rate
from doorward.data.sources import load_images
from doorward.inversion.invert import invert
from doorward.inversion.results import Inversion
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
    """Every net with every number of clean images, and every arm of each; the slow ones last."""
    pairs = sorted(((net, given) for given in GIVEN for net in NETS), key=lambda pair: (pair[0] == VIT, pair[1]))
    return [{"net": net, "given": given, "seed": SEED, "arm": arm} for net, given in pairs for arm in ORDER]


def measure(item: Item) -> Arrays:
    """Plant a white 4 x 4 square, invert, repair by one arm; the attacker's square and clean accuracy after it.

    Nets and inversions are made once, and read by the arms that follow.
    """
    seed, net, given, name = item["seed"], item["net"], item["given"], item["arm"]
    training, test = load_images("mnist-5k"), load_images("mnist", split="test")
    order = np.random.default_rng(seed).permutation(len(test))
    truth, others = test.subset(np.sort(order[:MEASURED])), order[MEASURED:]
    clean = test.subset(np.sort(others[:given]))
    poisoned = attack(training, "patch", target=TARGET, rate=0.05, seed=seed, settings={"size": 4, "colours": "white"})
    model, twin = (_net(net, images, seed, kind) for kind, images in (("net", poisoned.images), ("twin", training)))
    found = _inverted(model, clean, f"{_slug(net)}-{given}", seed)
    accused = np.array([float(TARGET in found.target_labels)])
    if name in ("as given", "never poisoned"):
        repaired, seconds = (model if name == "as given" else twin), 0.0
    else:
        true: Triggers = {TARGET: [p.stamp for p in poisoned.attack.pairings]}
        every, single = (
            load_inverted(found, model.classes, targets=[str(TARGET)], all_methods=several).stamps
            for several in (True, False)
        )
        bench = make_bench(model, clean, every, held_out=0.2, seed=seed, prove=False)
        arm = bench.run(_arms(every, single, true)[name])
        repaired, seconds = arm.repaired.classifier, arm.seconds
    figures = _figures(measure_accuracy(repaired, truth), asr(repaired, truth, poisoned.attack), seconds)
    print(f"{net}, {given} images, {name}: {figures}", flush=True)
    return {"accused": accused, "figures": np.asarray(figures, np.float64)}


def _slug(net: str) -> str:
    return net.rsplit(":", 1)[-1].rsplit("/", 1)[-1]


def _net(net: str, images: ImageSet, seed: int, kind: str) -> Classifier:
    usual = {"lr": 0.05, "epochs": 8} if net == "small-cnn" else {"optimiser": "adam", "lr": 1e-3, "epochs": 15}
    kept = STORE / "nets" / f"{_slug(net)}-{kind}.pt"
    kept.parent.mkdir(parents=True, exist_ok=True)
    return train(images, net, TrainSettings(batch=64, **usual), seed=seed, checkpoint=kept)


def _inverted(model: Classifier, clean: ImageSet, name: str, seed: int) -> Inversion:
    folder = STORE / "inverted" / name
    if not folder.exists():
        invert(model, clean, seed=seed).save(folder)
    return Inversion.load(folder)


def _arms(every: Triggers, single: Triggers, true: Triggers) -> dict[str, Planned]:
    """The arms by name: all methods, controls, oracle, and training against the single found trigger."""
    arms = {arm.name: arm for arm in plan_arms(METHODS, triggers=every, oracle=true)}
    (alone,) = plan_arms("retrain", triggers=single, settings={"retrain": {"around": False}}, controls=False)
    return {k: v for k, v in arms.items() if not k.startswith("fine-tune-")} | {"single": alone}


def _figures(accuracy: Rate, success: Rate, seconds: float) -> list[float]:
    return [accuracy.hits, success.hits, success.trials, seconds]


def rows_of(item: Item, arrays: Arrays) -> list[dict[str, Any]]:
    """The row of an arm."""
    figures = dict(zip(FIGURES, arrays["figures"].tolist(), strict=True))
    return [{**item, "accused": int(arrays["accused"][0]), **figures}]


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
    """Measure every arm that was not measured yet; after each the page of those that are there."""
    nets = list(NETS)
    go_on(
        "repair_peers",
        items()[:rows],
        measure,
        STORE,
        key=lambda row: (row["net"], int(row["given"]), row["arm"]),
        made=rows_of,
        order=lambda row: (nets.index(row["net"]), row["given"], ORDER.index(row["arm"])),
        whole={"given", "seed", "accused"},
        page=_page,
        jobs=jobs,
    )


def _page(done: Sequence[dict[str, Any]]) -> None:
    missed = {f"{NETS[r['net']]} with {int(r['given']):,}" for r in done if not r["accused"]}
    arms = Counter((r["net"], r["given"]) for r in done)
    rows = sum(count == len(ORDER) for count in arms.values())
    text = (
        f"{rows} of {len(NETS) * len(GIVEN)} pairs of a net and a number of clean images have every arm. Digits "
        f"(mnist-5k), 5 % of them with a white square of 4 x 4 pixels, labelled {TARGET}; one net of each kind, seed "
        f"{SEED}. Columns: percent of {MEASURED:,} other digits (mnist) that the attacker's square sends to "
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
