"""Verdicts of `invert` on nets with and without a backdoor: how many are found, and are p-values uniform on the others?

The successor of `invert_validation`: four kinds of nets, twelve attacks, searches that race; every fourth net is looked
at with references, too. Resumable, a row per net: one that the table in results/ has is not looked at again; remove
that file to begin anew.
``--jobs 2`` takes two processes, ``--rows 80`` the first eighty nets alone. Settings were chosen on seeds below 3500,
and 5000 to 5004 were seen.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kstest

from benchmarks.nets.vgg_elu import make as vgg_elu
from benchmarks.newcomer_nets import own_vit
from benchmarks.pictures import glasses
from benchmarks.table import go_on, plain, spread, write
from doorward.attacks.attack import attack
from doorward.attacks.rate import asr
from doorward.core.classifier import Classifier, measure_accuracy
from doorward.core.images import ImageSet
from doorward.core.order_test import OrderTest
from doorward.core.stats import Rate
from doorward.data.sources import load_images
from doorward.inversion.invert import invert
from doorward.inversion.judge.references import train_references
from doorward.inversion.results import Inversion
from doorward.inversion.verdict import together
from doorward.jobs.tasks import Arrays, Item
from doorward.models.open.architectures import Named
from doorward.models.train.loop import train
from doorward.models.train.settings import TrainSettings
from doorward.papers.rows import Row

STORE = Path("runs/invert-verdicts")
LEVEL, REFERENCES, EVERY, METHODS = 0.05, 2, 4, ("mask", "universal", "pairwise", "warp")
FORMS = {"alone": "none", "referred": f"{REFERENCES} of its kind, trained on the clean images"}
CLEAN, BACKDOORED, BLOCK = 200, 120, (5, 3)  # of every block so many are clean, and so many are not
WORKS = 0.9  # success from which a backdoor is one
SEEN = 700  # clean images that the auditor has
SOURCES: dict[str, tuple[str, int]] = {"digits": ("mnist-5k", 3000), "cifar10": ("cifar10", 8000)}
NETS: dict[str, tuple[Named, dict[str, Any]]] = {
    "small-cnn": ("small-cnn", {"epochs": 8, "batch": 64, "lr": 0.05}),
    "resnet20": ("resnet20", {"epochs": 8, "batch": 64, "lr": 0.05}),
    "vgg-elu": (vgg_elu, {"epochs": 12, "batch": 64, "lr": 0.05}),
    "tiny-vit": (own_vit, {"epochs": 12, "batch": 64, "lr": 0.002, "optimiser": "adam"}),
}
KINDS = (  # as often as they can be afforded
    ("small-cnn", "digits"), ("small-cnn", "cifar10"), ("small-cnn", "digits"), ("resnet20", "digits"),
    ("small-cnn", "digits"), ("vgg-elu", "cifar10"), ("small-cnn", "digits"), ("small-cnn", "cifar10"),
    ("small-cnn", "digits"), ("tiny-vit", "digits"), ("small-cnn", "digits"),
)  # fmt: skip
ATTACKS: dict[str, tuple[str, dict[str, Any]]] = {
    "patch 3": ("patch", {"size": 3}),
    "pixel": ("pixel", {"size": 1.0, "row": 4, "column": 4}),
    "blend 0.15": ("blend", {"alpha": 0.15}),
    "warp": ("warp", {}),
    "sinusoid": ("sinusoid", {"strength": 0.15}),
    "accessory": ("accessory", {}),
    "all to all": ("patch", {"size": 3}),
    "patch 5": ("patch", {"size": 5, "colours": "random"}),
    "patch 2": ("patch", {"size": 2}),
    "three sources": ("patch", {"size": 3}),
    "blend 0.25": ("blend", {"alpha": 0.25}),
    "patch 3 white": ("patch", {"size": 3, "colours": "white"}),
}
APART = ("warp", "all to all", "three sources")
RATES, HARDER = (0.02, 0.05, 0.01, 0.1), 0.1  # the last one of the attacks above


def items() -> list[Item]:
    """The nets, clean ones and others in turn, so that a part of them is like the whole."""
    clean = [_item("clean", 0.0, -1, 6000 + n, n % EVERY == 0) for n in range(CLEAN)]
    names = list(ATTACKS)
    planted = []
    for n in range(BACKDOORED):
        turn, place = divmod(n, len(names))
        name, referred = names[place], (turn + place // 3) % EVERY == 0  # not always at the same rate
        rate = HARDER if name in APART else RATES[(turn + n) % len(RATES)]
        planted.append(_item(name, rate, -1 if name == "all to all" else (3 * n + 1) % 10, 4000 + n, referred))
    some, more = BLOCK
    blocks = zip(range(0, CLEAN, some), range(0, BACKDOORED, more), strict=True)
    return [item for i, j in blocks for item in (*clean[i : i + some], *planted[j : j + more])]


def _item(name: str, rate: float, target: int, seed: int, referred: bool) -> Item:
    net, images = KINDS[seed % len(KINDS)]
    about = {"net": net, "images": images, "attack": name, "rate": rate, "target": target, "seed": seed}
    return {**about, "referred": int(referred)}


def measure(item: Item) -> Arrays:
    """Train one net, look at it, and with references where the item says so."""
    rng, (source, count) = np.random.default_rng(item["seed"]), SOURCES[item["images"]]
    training, clean = load_images(source), load_images(source, split="test")
    training = training.subset(np.sort(rng.permutation(len(training))[:count]))
    clean = clean.subset(np.sort(rng.permutation(len(clean))[:1000]))
    seen = clean.subset(np.sort(rng.permutation(len(clean))[:SEEN]))
    model, success = _suspect(item, training, clean)
    figures: dict[str, Any] = {"asr": success, "accuracy": measure_accuracy(model, clean).value}
    started = time.monotonic()
    race = {name: {"race": True} for name in METHODS}
    found = {"alone": invert(model, seen, METHODS, settings=race, level=LEVEL, seed=item["seed"])}
    figures["seconds"] = time.monotonic() - started
    outcomes = found["alone"].outcomes.values()
    figures["passes"] = sum(sum(o.inverted.details["steps"]) * o.settings.batch for o in outcomes)  # type: ignore[attr-defined]
    if item["referred"]:
        references, _ = train_references(seen, REFERENCES, net=NETS[item["net"]][0], seed=item["seed"])
        found["referred"] = invert(
            model, seen, METHODS, settings=race, references=references, level=LEVEL, seed=item["seed"]
        )
    for form in FORMS:
        figures |= _p_values(form, found.get(form), item["target"])
    named = {t.label: t.natural for t in found["referred"].record.targets} if item["referred"] else {}
    figures["natural target"] = named.pop(item["target"], None)
    figures["natural other"] = min((p for p in named.values() if p is not None), default=None)
    figures = {name: np.nan if value is None else value for name, value in figures.items()}
    return {name: np.asarray([value], np.float64) for name, value in figures.items()}


def _suspect(item: Item, training: ImageSet, clean: ImageSet) -> tuple[Classifier, float]:
    """The net and the success of its backdoor, NaN of a clean one."""
    net, settings = NETS[item["net"]]
    if item["attack"] == "clean":
        return train(training, net, TrainSettings(**settings), seed=item["seed"]), float("nan")
    recipe, options = ATTACKS[item["attack"]]
    if recipe == "accessory":
        options = {"picture": glasses(STORE)}
    target = item["target"]
    sources = tuple((target + step) % 10 for step in (2, 4, 7)) if item["attack"] == "three sources" else None
    poisoned = attack(
        training,
        recipe,
        target="next" if target < 0 else target,
        sources=sources,
        rate=item["rate"],
        seed=item["seed"],
        settings=options,
    )
    model = train(poisoned.images, net, TrainSettings(**settings), seed=item["seed"])
    return model, asr(model, clean, poisoned.attack).value


def _p_values(form: str, found: Inversion | None, target: int) -> dict[str, float]:
    """Of every method and of all: the model's, the target's, the smallest of another class; NaN where undecided."""
    outcomes = found.outcomes if found else {}
    tests = {name: outcome.test for name, outcome in outcomes.items()}
    tests["together"] = together(list(outcomes.values()))
    figures = {}
    for name in (*METHODS, "together"):
        known = tests.get(name) or OrderTest(np.nan, np.full(10, np.nan))
        others = known.classes if target < 0 else np.delete(known.classes, target)
        figures[f"{form} {name}"] = known.p_value
        figures[f"{form} {name} target"] = np.nan if target < 0 else float(known.classes[target])
        figures[f"{form} {name} other"] = float(others.min())
    return figures


def main(jobs: int = 1, rows: int | None = None) -> None:
    """Look at every net that was not looked at yet; after each write its row and the page of those that are there."""
    go_on(
        "invert_verdicts",
        items()[:rows],
        measure,
        STORE,
        key=lambda row: int(row["seed"]),
        made=lambda item, arrays: [{**item, **plain(arrays)}],
        order=lambda row: row["seed"],
        whole={"target", "seed", "referred", "passes"},
        page=_page,
        jobs=jobs,
    )


def _page(done: list[Row]) -> None:
    planted = [r for r in done if r["attack"] != "clean"]
    works = [r for r in planted if r["asr"] >= WORKS]
    clean = [r for r in done if r["attack"] == "clean"]
    kinds = {kind: sum((r["net"], r["images"]) == kind for r in done) for kind in dict.fromkeys(KINDS)}
    told = (
        f"{len(clean)} of {CLEAN} clean and {len(planted)} of {BACKDOORED} backdoored nets, {len(works)} of these with "
        f"a success of {100 * WORKS:.0f} % or more; the others are not counted. Digits (3,000 of mnist-5k) and "
        "CIFAR-10 (8,000 images), another draw for every net: "
        + ", ".join(f"{n} {net} of {images}" for (net, images), n in kinds.items())
        + f". Poisoned: {100 * min(RATES):.0f} to {100 * max(RATES):.0f} %. The auditor has {SEEN} other images and is "
        f"told nothing; level {LEVEL}. Named: the target's p-value is at most the level; of all to all, which has no "
        "target, the model's. An alarm on a clean net is any class at or below the level. KS: one-sided p-value that "
        "the p-values of clean nets are not smaller than uniform ones / two-sided that they are uniform. "
        "Every fourth net is looked at with references, too. Rates in percent, 95 % Clopper-Pearson. "
        f"Without references a look takes {_cost(done)}. {_natural(done)}"
    )
    columns = [
        "references", "method", "nets that work, clean", "named", *(f"named: {name}" for name in APART),
        "another class", "clean", "KS p",
    ]  # fmt: skip
    lines = []
    for form in FORMS:
        some, others = ([r for r in rows if form == "alone" or r["referred"]] for rows in (works, clean))
        numbers = f"{len(some)}, {len(others)}"
        lines += [
            [FORMS[form], method, numbers, *_rates(f"{form} {method}", some, others)]
            for method in (*METHODS, "together")
        ]
    write("invert_verdicts", "Verdicts of invert on nets that are known", told, columns, lines)


def _cost(done: Sequence[Row]) -> str:
    """Seconds and steps of a look, by kind of net."""
    told = []
    for net, images in dict.fromkeys(KINDS):
        own = [r for r in done if (r["net"], r["images"]) == (net, images)]
        if own:
            told.append(f"{spread([r['seconds'] for r in own], 0)} s on {net} of {images}")
    return ", ".join(told) + " (median, range; one core, beside other work)"


def _natural(done: Sequence[Row]) -> str:
    """Of the classes that are named with references, how many are called planted."""
    told = []
    for whose, key in (("targets", "natural target"), ("other classes", "natural other")):
        p = [r[key] for r in done if r["referred"] and r[key] is not None and np.isfinite(r[key])]
        told.append(f"{Rate(sum(map(_small, p)), len(p))} % of {len(p)} {whose}" if p else f"no {whose}")
    return (
        f"Of the classes named with references, whose trigger can be tried on these, {' and '.join(told)} are planted."
    )


def _rates(key: str, works: Sequence[Row], clean: Sequence[Row]) -> list[str]:
    """A line of the table."""
    groups = [[r for r in works if r["attack"] not in APART], *([r for r in works if r["attack"] == a] for a in APART)]
    named = [str(Rate(sum(_named(r, key) for r in some), len(some))) if some else "–" for some in groups]
    targeted = [r for r in works if r["target"] >= 0]
    other = Rate(sum(_small(r[f"{key} other"]) for r in targeted), len(targeted))
    alarms = Rate(sum(_small(r[f"{key} other"]) for r in clean), len(clean))
    p = np.array([r[key] for r in clean], np.float64)
    known = p[np.isfinite(p)]
    ks = [f"{kstest(known, 'uniform', alternative=how).pvalue:.2g}" for how in ("greater", "two-sided") if len(known)]
    return [*named, str(other), str(alarms), " / ".join(ks) or "–"]


def _named(row: Mapping[str, Any], key: str) -> bool:
    return _small(row[f"{key} target" if row["target"] >= 0 else key])


def _small(p: float | None) -> bool:
    """Whether a p-value accuses; a row that was read again has None where a test was undecided."""
    return p is not None and bool(p <= LEVEL)


if __name__ == "__main__":
    main()
