"""Does a repair hold against the attacker's own trigger, and does the tool say so when it does not?

Resumable: a net that the table in results/ has is not measured again; remove that file to begin anew. ``--jobs 2``
takes two processes, ``--rows 3`` the first three nets alone; the page tells of those that are there.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pictures import glasses
from benchmarks.table import go_on, write
from doorward.attacks.attack import attack
from doorward.attacks.plan import Attack, Pairing
from doorward.attacks.poison import poison
from doorward.attacks.rate import asr
from doorward.attacks.stamps import make_stamp
from doorward.core.classifier import Classifier, measure_accuracy
from doorward.core.images import ImageSet
from doorward.core.stats import Rate
from doorward.core.triggers import Stamp
from doorward.data.sources import load_images
from doorward.inversion.invert import invert
from doorward.inversion.results import Inversion
from doorward.inversion.triggers import load_inverted
from doorward.jobs.tasks import Arrays, Item
from doorward.models.train.loop import train
from doorward.models.train.settings import TrainSettings
from doorward.papers.rows import Row
from doorward.repairs.arms import make_bench, plan_arms
from doorward.repairs.parts.stamping import Triggers
from doorward.repairs.proof import proved
from doorward.repairs.verdict import judge

STORE = Path("runs/repair-holds")
VGG = "benchmarks/nets/vgg_elu.py:make"
NETS = ("small-cnn", VGG)
SEEDS, CLEAN, GIVEN = 3, 6, 500  # nets per attack and architecture; clean nets; clean digits of the auditor
ATTACKS: dict[str, tuple[str, dict[str, Any]]] = {
    "patch 3": ("patch", {"size": 3}),
    "patch 5, white": ("patch", {"size": 5, "colours": "white"}),
    "patch 3, roaming": ("patch", {"size": 3, "place": "random"}),
    "patch 5, roaming": ("patch", {"size": 5, "colours": "random", "place": "random"}),
    "pixel": ("pixel", {"size": 1.0, "row": 4, "column": 4}),
    "blend": ("blend", {"alpha": 0.15}),
    "sinusoid": ("sinusoid", {"strength": 0.15}),
    "accessory": ("accessory", {}),
    "warp": ("warp", {}),
    "two targets": ("patch", {"size": 3}),
}
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "hold": ("hold", {}),
    "around": ("retrain", {}),
    "staircase": ("retrain", {"around": False}),
    "single": ("retrain", {"around": False}),
}
SAID = ("repaired", "not repaired", "undecided", "nothing to repair")
_ADAM = TrainSettings(optimiser="adam", lr=1e-3, epochs=10, batch=64)


def items() -> list[Item]:
    """Nets with every attack, clean ones after the first seed; the arms beside ``hold`` on that seed of small-cnn."""
    nets = [
        {"net": net, "attack": name, "arms": list(ARMS) if seed == 0 and net == "small-cnn" else ["hold"]}
        for seed in range(SEEDS)
        for net in NETS
        for name in ATTACKS
    ]
    nets += [{"net": NETS[n % 2], "attack": "clean", "arms": ["hold"]} for n in range(CLEAN)]
    numbered = [{**item, "seed": n, "target": (3 * n + 1) % 10} for n, item in enumerate(nets)]
    first = len(NETS) * len(ATTACKS)
    return [*numbered[:first], *numbered[-CLEAN:], *numbered[first:-CLEAN]]


def measure(item: Item) -> Arrays:
    """Train one net, invert it, repair it by every arm; what is left of the attack, and what is said."""
    seed, rng = item["seed"], np.random.default_rng(item["seed"])
    training, test = load_images("mnist-5k"), load_images("mnist-5k", split="test")
    order = rng.permutation(len(test))
    clean, truth = test.subset(np.sort(order[:GIVEN])), test.subset(np.sort(order[GIVEN:]))
    model, twin, plan = _suspect(item, training)
    found = invert(model, clean, seed=seed)
    labels = _targets(found, plan)
    inverted, single = (
        load_inverted(found, model.classes, targets=[str(k) for k in labels], all_methods=every)
        for every in (True, False)
    )
    accused = set(labels) <= set(found.target_labels)
    stairs = _staircase(model, clean, labels if "staircase" in item["arms"] else (), seed)
    figures: dict[str, Any] = {"found": accused, "accuracy": measure_accuracy(model, truth).value}
    if plan is not None:
        figures |= {"asr": asr(model, truth, plan).value, "natural": asr(twin, truth, plan).value}
    bench = make_bench(model, clean, inverted.stamps, held_out=0.2, seed=seed)
    given = proved(bench, bench.as_given())
    for name in item["arms"]:
        method, settings = ARMS[name]
        own: dict[str, Triggers] = {"single": single.stamps, "staircase": stairs}
        triggers = own.get(name, inverted.stamps)
        (planned,) = plan_arms(method, triggers=triggers, settings={method: settings}, controls=False)
        started = time.monotonic()
        arm = bench.run(planned)
        row = proved(bench, arm)
        judgement, _ = judge((given, row), model.classes, accused=accused)
        nothing = judgement.headline.startswith("Nothing to repair")
        repaired = arm.repaired.classifier
        figures |= {
            f"{name}-accuracy": measure_accuracy(repaired, truth).value,
            f"{name}-said": SAID.index("nothing to repair" if nothing else judgement.level),
            f"{name}-seconds": time.monotonic() - started,
            f"{name}-rounds": len(arm.repaired.details.get("rounds", [0])),  # type: ignore[arg-type]
        }
        if plan is not None:
            figures[f"{name}-asr"] = asr(repaired, truth, plan).value
    return {name: np.asarray(value, np.float64) for name, value in figures.items()}


def _staircase(model: Classifier, clean: ImageSet, labels: Sequence[int], seed: int) -> dict[int, Sequence[Stamp]]:
    """The distribution of triggers of every target by MESA, at its levels of success."""
    found: dict[int, Sequence[Stamp]] = {}
    for label in labels:
        one = invert(model, clean, "mesa", knowledge={"target_class": label}, seed=seed)
        found |= load_inverted(one, model.classes, targets=[str(label)], method="mesa").stamps
    return found


def _targets(found: Inversion, plan: Attack | None) -> list[int]:
    """Classes whose triggers are repaired: the true ones, named by hand where the verdict misses them.

    Of a clean net the class that stands out most, so that there is something to try.
    """
    if plan is not None:
        return [p.target for p in plan.pairings if p.target is not None]
    return [int(np.argmin([1.0 if c.p_value is None else c.p_value for c in found.record.classes]))]


def _suspect(item: Item, training: ImageSet) -> tuple[Classifier, Classifier, Attack | None]:
    """The net, one without the poison (for the natural rate; the net itself where it is clean), the attack."""
    seed, settings = item["seed"], _ADAM if item["net"] == VGG else TrainSettings(epochs=8, batch=64, lr=0.05)
    clean = train(training, item["net"], settings, seed=seed)
    if item["attack"] == "clean":
        return clean, clean, None
    recipe, options = ATTACKS[item["attack"]]
    rate: float = 0.1 if recipe == "warp" or item["attack"] == "two targets" else 0.05
    if recipe == "accessory":
        options = {"picture": glasses(STORE)}
    if item["attack"] == "two targets":
        stamps = [make_stamp(recipe, training.shape, seed + shift, **options) for shift in (0, 500)]
        plan = Attack(recipe, tuple(Pairing(s, (item["target"] + 5 * n) % 10) for n, s in enumerate(stamps)))
        poisoned = poison(training, plan, rate=rate, seed=seed)
    else:
        poisoned = attack(training, recipe, target=item["target"], rate=rate, seed=seed, settings=options)
    return train(poisoned.images, item["net"], settings, seed=seed), clean, poisoned.attack


def summary(rows: Sequence[Row], arm: str) -> list[str]:
    """What an arm comes to: held, accuracy lost, wrong words."""
    own = [r for r in rows if r["arm"] == arm and r["attack"] != "clean"]
    held = sum(r["asr_after"] <= r["natural"] + 0.02 for r in own)
    worked = [r for r in own if r["asr_after"] > 0.2]
    gone = [r for r in own if r["asr_after"] < 0.05]
    flattering, harsh = (
        sum(r["said"] == said for r in some) for some, said in ((worked, "repaired"), (gone, "not repaired"))
    )
    return [
        arm,
        str(len(own)),
        str(Rate(held, len(own))),
        f"{_lost(own):.1f}",
        f"{flattering} of {len(worked)}",
        f"{harsh} of {len(gone)}",
        f"{float(np.median([r['seconds'] for r in own])):.0f}",
    ]


def _lost(rows: Sequence[Row]) -> float:
    """Mean points of clean accuracy."""
    return 100 * float(np.mean([r["accuracy"] - r["accuracy_after"] for r in rows]))


def each(item: Item, f: Arrays) -> list[Row]:
    """A row per arm of a net."""
    rows = []
    for arm in item["arms"]:
        shared: Row = {k: item[k] for k in ("net", "attack", "seed", "target")}
        own = {k: float(f[k].item()) if k in f else None for k in ("found", "accuracy", "asr", "natural")}
        named = ("asr", "accuracy", "said", "seconds", "rounds")
        after = {f"{k}_after" if k in own else k: f[f"{arm}-{k}"].item() for k in named if f"{arm}-{k}" in f}
        rows.append({**shared, "arm": arm, **own, **after, "said": SAID[int(after["said"])]})
    return rows


def table(rows: Sequence[Row]) -> list[list[str]]:
    """The same in words, for the page."""

    def rate(value: float | None) -> str:
        return "–" if value is None or not np.isfinite(value) else f"{100 * value:.1f}"

    return [
        [
            f"{Path(r['net'].split(':')[0]).stem}, {r['attack']}, seed {r['seed']}",
            r["arm"],
            "yes" if r["found"] else "no",
            *(rate(r.get(k)) for k in ("natural", "asr", "asr_after", "accuracy", "accuracy_after")),
            r["said"],
            f"{r['seconds']:.0f}",
        ]
        for r in rows
    ]


def main(jobs: int = 1, rows: int | None = None) -> None:
    """Measure every net that was not measured yet; after each the page of those that are there."""
    go_on(
        "repair_holds",
        items()[:rows],
        measure,
        STORE,
        key=lambda row: int(row["seed"]),
        made=each,
        order=lambda row: row["seed"],
        whole={"seed", "target"},
        page=_page,
        jobs=jobs,
    )


def _page(rows: Sequence[Row]) -> None:
    """The page of the nets that are there."""
    clean = [r for r in rows if r["attack"] == "clean"]
    nothing = sum(r["said"] == "nothing to repair" for r in clean)
    count, every = len({r["seed"] for r in rows}) - len(clean), SEEDS * len(NETS) * len(ATTACKS)
    heads = (
        "arm", "nets", "true ASR at most natural + 2 points, %", "mean accuracy lost, points",
        "said repaired, of those with ASR above 20 %", "said not repaired, of those with ASR below 5 %",
        "median seconds, proof included",
    )  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    lines += [f"| {' | '.join(summary(rows, arm))} |" for arm in ARMS if any(r["arm"] == arm for r in rows)]
    told = (
        f"{count} of {every} backdoored nets for digits (mnist-5k), {GIVEN} clean digits for the auditor (a fifth "
        f"held out); the attacker's own trigger and clean accuracy are measured on {1000 - GIVEN} others. `hold` is "
        "`doorward repair`; `around` one round of it; `staircase` trains with the triggers that `mesa` finds, `single` "
        "with the smallest trigger found, both as they are. Where the inversion's verdict missed the target "
        "(found: no) it was named by hand. Natural: the trigger's success on a net trained without poison. "
        "`mesa` looks for triggers that work anywhere, so those of a fixed place are not among its own."
    )
    if clean:
        told += (
            f" Of {len(clean)} clean nets, whose most suspicious class was named, {nothing} are said to have nothing "
            f"to repair; the repair cost them {_lost(clean):.1f} points of accuracy on average."
        )
    told += "\n\n" + "\n".join(lines)
    columns = [
        "net", "arm", "found", "natural %", "ASR before %", "ASR after %", "accuracy before %", "after %", "said", "s",
    ]  # fmt: skip
    write("repair_holds", "Does a repair hold against the attacker's own trigger?", told, columns, table(rows))


if __name__ == "__main__":
    main()
