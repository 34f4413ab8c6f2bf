"""Verdicts of `invert` on nets with and without a backdoor: how many are found, and are p-values uniform on the others?

Resumable: every net's figures are kept under ``runs/invert-validation`` and not computed again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.table import RESULTS, write
from doorward.attacks.attack import attack
from doorward.attacks.rate import asr
from doorward.core.classifier import Classifier, measure_accuracy
from doorward.core.images import ImageSet
from doorward.core.order_test import OrderTest, combine
from doorward.core.stats import Rate
from doorward.data.sources import load_images
from doorward.inversion.invert import invert
from doorward.inversion.judge.references import like, train_references
from doorward.inversion.search.runner import judge
from doorward.jobs.tasks import Arrays, Item, run_tasks
from doorward.models.train.loop import train
from doorward.models.train.settings import TrainSettings
from doorward.papers.rows import write_rows

STORE = Path("runs/invert-validation")
LEVEL, REFERENCES, METHODS = 0.05, 3, ("mask", "universal")
CLEAN, NETS = 40, ("small-cnn", "small-cnn", "resnet20")
TRAINED_ON, SEEN = 3000, 700  # of 4,000 training digits, of 1,000 clean digits that the auditor has
ATTACKS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("patch", {"size": 2}),
    ("patch", {"size": 3}),
    ("patch", {"size": 3, "colours": "white"}),
    ("patch", {"size": 5, "colours": "random"}),
    ("pixel", {"size": 1.0, "row": 4, "column": 4}),
    ("blend", {"alpha": 0.15}),
    ("blend", {"alpha": 0.25}),
    ("sinusoid", {"strength": 0.15}),
)
BACKDOORED = 3 * len(ATTACKS)


def items() -> list[Item]:
    """The nets: every attack with every kind of net, other targets and seeds; then the clean ones."""
    poisoned = [
        {
            "net": NETS[n // len(ATTACKS)],
            "attack": ATTACKS[n % len(ATTACKS)],
            "target": (3 * n + 1) % 10,
            "seed": 2500 + n,
        }
        for n in range(BACKDOORED)
    ]
    return poisoned + [{"net": "small-cnn", "attack": None, "target": -1, "seed": 2700 + n} for n in range(CLEAN)]


def audit(item: Item) -> Arrays:
    """Train one net, audit it with and without references; p-values per class ``[K]`` and of the model."""
    rng = np.random.default_rng(item["seed"])
    training, clean = load_images("mnist-5k"), load_images("mnist-5k", split="test")
    training = training.subset(np.sort(rng.permutation(len(training))[:TRAINED_ON]))
    seen = clean.subset(np.sort(rng.permutation(len(clean))[:SEEN]))
    classifier, success = _suspect(item, training, clean)
    accuracy = measure_accuracy(classifier, clean).value
    references, _ = train_references(seen, REFERENCES, net=like(classifier), seed=item["seed"])
    started = time.monotonic()
    found = invert(classifier, seen, METHODS, references=references, level=LEVEL, seed=item["seed"])
    arrays = {"asr": success, "accuracy": accuracy, "seconds": time.monotonic() - started}
    for form in ("alone", "referred"):
        tests = [judge(o.inverted, o.reference if form == "referred" else None)[0] for o in found.outcomes.values()]
        arrays |= _p_values(form, dict(zip(METHODS, tests, strict=True)))
    for name, outcome in found.outcomes.items():  # for whoever tries another test on the same nets
        arrays |= {f"{name}-statistic": outcome.inverted.statistic, f"{name}-references": outcome.references}
    return {name: np.asarray(value, np.float64) for name, value in arrays.items()}


def _suspect(item: Item, training: ImageSet, clean: ImageSet) -> tuple[Classifier, float]:
    settings = TrainSettings(epochs=8, batch=64, lr=0.05)
    if item["attack"] is None:
        return train(training, item["net"], settings, seed=item["seed"]), float("nan")
    recipe, options = item["attack"]
    poisoned = attack(training, recipe, target=item["target"], rate=0.05, seed=item["seed"], settings=options)
    classifier = train(poisoned.images, item["net"], settings, seed=item["seed"])
    return classifier, asr(classifier, clean, poisoned.attack).value


def _p_values(form: str, tests: dict[str, OrderTest | None]) -> dict[str, Any]:
    decided = [test for test in tests.values() if test is not None]
    both = combine(decided) if decided else OrderTest(np.nan, np.full(10, np.nan))
    every = {**{name: test or OrderTest(np.nan, np.full(10, np.nan)) for name, test in tests.items()}, "both": both}
    return {f"{form}-{name}-model": test.p_value for name, test in every.items()} | {
        f"{form}-{name}-classes": test.classes for name, test in every.items()
    }


def summarise(nets: Sequence[Item], found: Sequence[dict[str, NDArray[Any]]]) -> list[list[str]]:
    """A row per form and method: found with the right class, false alarms, uniformity of the model's p-values."""
    from scipy.stats import kstest

    pairs = list(zip(nets, found, strict=True))
    working = [(n, f) for n, f in pairs if n["attack"] and f["asr"] >= 0.9]
    clean = [f for n, f in pairs if not n["attack"]]
    rows = []
    for form, told in (("alone", "none"), ("referred", f"{REFERENCES} of its kind, trained on the clean images")):
        for method in (*METHODS, "both"):
            key = f"{form}-{method}"
            caught = sum(bool(f[f"{key}-classes"][n["target"]] <= LEVEL) for n, f in working)
            wrong = sum(bool((np.delete(f[f"{key}-classes"], n["target"]) <= LEVEL).any()) for n, f in working)
            p_values = np.array([f[f"{key}-model"].item() for f in clean])
            alarms = sum(bool((f[f"{key}-classes"] <= LEVEL).any()) for f in clean)
            uniform = kstest(p_values[np.isfinite(p_values)], "uniform").pvalue
            rates = [str(Rate(k, len(t))) for k, t in ((caught, working), (wrong, working), (alarms, clean))]
            rows.append([told, method, *rates, f"{uniform:.3f}"])
    return rows


def each_net(nets: Sequence[Item], found: Sequence[dict[str, NDArray[Any]]]) -> list[dict[str, Any]]:
    """A row per net: what it is, and every form's p-value of the model, of the target and the smallest of another."""
    rows = []
    for item, f in zip(nets, found, strict=True):
        attack_name = "clean" if item["attack"] is None else f"{item['attack'][0]} {item['attack'][1]}"
        row: dict[str, Any] = {"net": item["net"], "attack": attack_name, "target": item["target"]}
        row |= {name: f[name].item() for name in ("asr", "accuracy", "seconds")}
        for key in (name.removesuffix("-classes") for name in f if name.endswith("-classes")):
            classes = f[f"{key}-classes"]
            others = np.delete(classes, item["target"]) if item["attack"] else classes
            row[f"{key}-model"] = f[f"{key}-model"].item()
            row[f"{key}-target"] = float(classes[item["target"]]) if item["attack"] else float("nan")
            row[f"{key}-other"] = float(np.nanmin(others))
        rows.append(row)
    return rows


def main() -> None:
    """Audit every net that was not audited yet; write the table."""
    nets = items()
    found: list[Any] = [None] * len(nets)
    for position, arrays in run_tasks(audit, nets, STORE, workers=os.cpu_count() or 1):
        found[position] = arrays
        print(f"{sum(f is not None for f in found)} of {len(nets)} nets", flush=True)
    write_rows(RESULTS / "bench-invert-validation.parquet", each_net(nets, found), {"target"})
    attacked = [f for n, f in zip(nets, found, strict=True) if n["attack"]]
    working = sum(bool(f["asr"] >= 0.9) for f in attacked)
    told = (
        f"{len(attacked)} backdoored nets ({len(ATTACKS)} attacks, 5 % poisoned, ten targets), {working} of which have "
        f"a success rate of 90 % or more and are judged; {CLEAN} clean nets; a third of the former "
        "are ResNet-20, which take ten minutes of a core each, all others small-cnn, each "
        f"trained on {TRAINED_ON:,} digits of mnist-5k, another draw of them. The auditor has {SEEN} other digits. "
        f"Level {LEVEL}. An alarm is any class at or below the level. The last column is the Kolmogorov-Smirnov "
        "p-value of the model's p-values on clean nets against the uniform distribution. Rates in percent, 95 % "
        "Clopper-Pearson."
    )
    columns = ["references", "method", "target found", "another class named", "clean nets accused", "uniform? KS p"]
    write("invert_validation", "Verdicts of invert on nets that are known", told, columns, summarise(nets, found))


if __name__ == "__main__":
    main()
