"""Every number that the three sources publish, with ours and a state; see `benchmarks.sources`, which writes the page.

Published numbers are those of `doorward.papers` where it has them. Ours are read from the Parquet files in results/, so
a number that is run later gets its state when the page is written again. Costs are what dry runs said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import mean

from benchmarks.table import RESULTS
from doorward.core import methods
from doorward.core.stats import Rate
from doorward.papers.cluster_impurity.trainers import CLEAN_ACCURACY, SIZES, TABLE_2
from doorward.papers.mesa.patterns import SIDE
from doorward.papers.mesa.profiles import PUBLISHED, PUBLISHED_CIFAR100
from doorward.papers.mesa.tables import by_case, label
from doorward.papers.rows import Row, pick, pooled, read_rows
from doorward.papers.smoothing_mnist17 import CURVES, PAPER, profile

DRAWN = "not comparable (drawn, no number is printed)"
UNPRINTED = "not comparable (no number is printed)"

# Of the dry runs on the page: minutes of a training and of the methods after it, hours in all.
TRAINING = "43.0 minutes each"
ONE_SIZE = "not run (46.5 minutes for the size)"
FAITHFUL = "not run (20.5 hours for one training)"
ALL_TRIGGERS = "not run (21.4 hours for all 61)"
RESNET18 = "not run (158.9 hours for all 61 triggers)"
TEN_COLOURS = "not run (5.5 hours, as ten triggers of CIFAR-10)"


@dataclass(frozen=True)
class Line:
    """One published number, or one figure or table of which no number is to be had; a result or a setting."""

    what: str
    published: str
    ours: str
    state: str
    setting: bool = False


def judge(published: float, ours: Rate | float, digits: int, *, higher: bool, scale: int = 100) -> str:
    """``reached`` when ours, rounded to the published digits, is at least as good; else by how much it is missed."""
    value = scale * (ours.value if isinstance(ours, Rate) else ours)
    short = round(published - round(value, digits) if higher else round(value, digits) - published, digits)
    if short <= 0:
        return "reached"
    inside = False
    if isinstance(ours, Rate):
        low, high = ours.interval
        inside = scale * low <= published <= scale * high
    return f"missed by {short:.{digits}f}" + (", inside the interval" if inside else "")


def told(rows: Sequence[Row], name: str, digits: int, scale: int = 100) -> str:
    """A rate with its interval over all rows, and the range over them where they are trainings of several seeds."""
    rate = pooled(rows, name)
    low, high = rate.interval
    text = f"{scale * rate.value:.{digits}f} [{scale * low:.{digits}f}, {scale * high:.{digits}f}]"
    seeds = {row["seed"] for row in rows if "seed" in row}
    if len(seeds) < 2:
        return text
    values = [scale * pooled([row], name).value for row in rows]
    return f"{text} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def same(what: str, published: str, ours: str) -> Line:
    """A setting."""
    state = "reached" if published == ours else "not comparable (another setting)"
    return Line(what, published, ours, state, setting=True)


def smoothing() -> Iterator[Line]:
    """Wang, Cao, Jia and Gong 2020: the one certified accuracy, the curve, the setting."""
    rows = read_rows(RESULTS / "smoothing-mnist17" / "curves.parquet")
    own = CURVES[0]
    asked = own.request(profile("mnist", 0, "cpu"), 0)

    def found(radius: int, trials: int = own.trials, learner: str = own.learner) -> list[float]:
        of_curve = pick(rows, radius=radius, trials=trials, learner=learner, keep=own.keep)
        return [r["certified_accuracy"] for r in of_curve] or [0.0]

    def shown(values: Sequence[float]) -> str:
        low, high = 100 * min(values), 100 * max(values)
        return f"{100 * mean(values):.1f} ({low:.1f} to {high:.1f})" if high else "0"

    radius, published = PAPER[0], 100 * PAPER[1]
    state = judge(published, mean(found(radius)), 0, higher=True)
    yield Line(f"certified accuracy at radius {radius}, %", f"{published:.0f}", shown(found(radius)), state)
    for drawn in (0, 1):
        yield Line(f"Figure 1, radius {drawn}, %", "–", shown(found(drawn)), DRAWN)
    state = "not comparable (10,000 votes cannot reach radius 3)"
    more = shown(found(3, 1_000_000, "nearest-centroid"))
    yield Line("Figure 1, radius 3, %", "–", f"{shown(found(3))}; `nearest-centroid`, 1,000,000 votes: {more}", state)
    yield same("training digits", "100", f"{asked.train}")
    yield same("test digits", "1,000", f"{asked.test:,}")
    yield same("probability beta of keeping a value", "0.9", asked.keep)
    yield same("N", "10,000", f"{asked.trials:,}")
    yield same("confidence 1 - alpha, %", "99.9", f"{100 * (1 - float(asked.alpha)):.1f}")
    yield same("size of a digit, pixels", "28 x 28", "28 x 28")
    yield same("pixels become 0 or 1 at", "0.5", f"{(asked.binarise or 0) / 255:.1f}")
    used = methods.get("certify", own.learner).configure(dict(own.settings)).model_dump()
    ours = f"{used['hidden']} hidden, {used['steps']} steps at a rate of {used['learning_rate']}"
    state = "not comparable (theirs are not published)"
    yield Line("two-layer net: width, optimiser, steps", "–", ours, state, setting=True)


def mesa() -> Iterator[Line]:
    """Qiao, Yang and Li 2019: the authors' poster, ranges of the paper's text, CIFAR-100, the setting."""
    rows = pick(read_rows(RESULTS / "mesa" / "models.parquet"), place="free")
    for kind, digits in (("black-white", 1), ("colour", 2)):
        for arm, (average, worst) in PUBLISHED[kind].items():
            of_arm, higher = pick(rows, kind=kind, arm=arm), arm == "before"
            what = f"{kind}, {label(arm)}"
            state = judge(average, pooled(of_arm, "asr"), digits, higher=higher)
            yield Line(f"{what}: mean", f"{average:.{digits}f}", told(of_arm, "asr", digits), state)
            if worst is not None:
                yield _extreme(f"{what}: {'lowest' if higher else 'highest'}", of_arm, worst, not higher, higher)
    black = pick(rows, kind="black-white")
    for what, arm, end, most, higher in (
        ("backdoored net: lowest (text)", "before", 92.3, False, True),
        ("backdoored net: highest (text)", "before", 99.8, True, True),
        ("retrain, MESA beta 0.9: lowest (text)", "mesa-beta-0.9", 1.2, False, False),
        ("retrain, pixel baseline: lowest (text)", "pixel-short", 2.4, False, False),
    ):
        yield _extreme(f"black-white, {what}", pick(black, arm=arm), end, most, higher)
    for arm, average in PUBLISHED_CIFAR100.items():
        yield Line(f"colour on CIFAR-100, {label(arm)}: mean", f"{average:.2f}", "–", TEN_COLOURS)
    yield from _mesa_setting(rows)


def _extreme(what: str, rows: list[Row], published: float, most: bool, higher: bool) -> Line:
    """The trigger at one end of the list; the runs of one trigger together."""
    cases = by_case(rows)
    end: Callable[..., str] = max if most else min
    case = end(cases, key=lambda name: cases[name].value)
    state = judge(published, cases[case], 1, higher=higher)
    return Line(what, f"{published:.1f}", f"{told(pick(rows, case=case), 'asr', 1)} ({case})", state)


def _mesa_setting(rows: list[Row]) -> Iterator[Line]:
    searches = pick(read_rows(RESULTS / "mesa" / "inversions.parquet"), inversion="mesa", place="free")
    success = mean(row["success"] for row in searches)
    clean = pick(rows, arm="clean")
    state = judge(90, success, 0, higher=True)
    yield Line("MESA's own triggers, attacked class", "about 90", f"{100 * success:.1f}", state)
    yield Line("MESA's own triggers, other classes", "very low", "–", UNPRINTED)
    state = judge(93.02, pooled(clean, "accuracy"), 2, higher=True)
    yield Line("clean accuracy of the network", "93.02", told(clean, "accuracy", 2), state)
    yield Line("network", "ResNet-18", "ResNet-20, 0.27 M weights", RESNET18, setting=True)
    for kind, published in (("black-white", 51), ("colour", 10)):
        count = len({row["case"] for row in rows if row["kind"] == kind})
        state = "reached" if count >= published else ALL_TRIGGERS
        yield Line(f"{kind} triggers on CIFAR-10", f"{published}", f"{count}", state, setting=True)
    yield same("size of a trigger, pixels", "3 x 3", f"{SIDE} x {SIDE}")
    yield Line("pictures of the distribution", "–", "[figure](mesa/distribution.png)", DRAWN)


def hackml() -> Iterator[Line]:
    """The same authors' slides on CSAW HackML 2019: they print no result; ours beside each of their steps."""
    names = ("scans", "places", "arms", "times")
    scans, places, arms, times = (read_rows(RESULTS / "hackml" / f"{name}.parquet") for name in names)
    true = [(scan, target) for scan in scans for target in scan["targets"].split(", ") if target]
    named = sum(target in scan["named"].split(", ") for scan, target in true)
    off, overlap = ([row[name] for row in places] for name in ("distance", "overlap"))
    left = [row for row in pick(arms, arm="retrain") if row["asr_trials"]]
    after = ", ".join(f"{100 * pooled([row], 'asr').value:.1f}" for row in left)
    (given,) = pick(scans, net="given")
    other = "not comparable (the contest's faces of 2019 are not at hand)"
    yield Line("people", "1,284", f"{given['classes']:,} (contest of 2020), and 40", other, setting=True)
    yield Line("pictures of each", "10", "10, seven to train on", other, setting=True)
    searched = methods.get("invert", "window").configure({}).model_dump()
    yield same("side of the heat map's window, pixels", "15", f"{searched['window']}")
    cost = f"not run ({sum(row['seconds'] for row in times) / 60:.0f} minutes for our form and all nets)"
    yield Line("step 1: 15 x 15 windows at random", "–", "an option; here the whole image", cost, setting=True)
    yield Line("step 1: true and natural backdoors found", "–", f"{named} of {len(true)} true ones named", UNPRINTED)
    yield Line("step 2: heat map", "–", f"centre off by {min(off):.1f} to {max(off):.1f} pixels", DRAWN)
    words = f"intersection over union {min(overlap):.2f} to {max(overlap):.2f}"
    yield Line("step 3: the whole trigger", "–", words, DRAWN)
    yield Line("repair of both together: ASR, %", "–", f"{after} ({len(left)} nets)", UNPRINTED)


# Method, the form that is nearest to the poster's, its name here, the denominator of its FPR in the authors' code.
NEAREST = (
    ("SS", "half", "spectral", "fpr_target"),
    ("AC", "declared", "activation", "fpr_target"),
    ("CI", "poster", "impurity", "fpr"),
)
CI_FORMS = {
    "poster": "all features",
    "misfits": "all features, misfits",
    "blind": "16 components",
    "leftovers": "16 components, misfits, lookalikes",
}


def _detections(folder: str, scenario: str) -> list[Row]:
    return pick(read_rows(RESULTS / folder / "detections.parquet"), scenario=scenario)


def table_2() -> Iterator[Line]:
    """Xiang, Miller and Kesidis 2019: both rates of every method at every size; 14 epochs, the nearest form."""
    found = _detections("cluster-impurity", "multiple-source")
    for size in SIZES:
        for name, form, method, denominator in NEAREST:
            rows = pick(found, size=size, form=form, method=method)
            rates = (("TPR", "tpr", True), ("FPR", denominator, False))
            for published, (rate, column, higher) in zip(TABLE_2[size][name], rates, strict=True):
                ours = told(rows, column, 3, 1) if rows else "–"
                done = judge(published, pooled(rows, column), 3, higher=higher, scale=1) if rows else ONE_SIZE
                yield Line(f"{size:.2f}, {name}, {rate}", f"{published:.3f}", ours, done)


def other_forms() -> Iterator[list[str]]:
    """Cells of Table 2 again, with 30 epochs and with other forms of cluster impurity."""
    for size in SIZES:
        for name, nearest, method, denominator in NEAREST:
            for form in CI_FORMS if name == "CI" else (nearest,):
                for folder, epochs in (("cluster-impurity", 14), ("cluster-impurity-30-epochs", 30)):
                    rows = pick(_detections(folder, "multiple-source"), size=size, form=form, method=method)
                    if not rows or (epochs == 14 and form == nearest):
                        continue  # the table itself has the nearest form after 14 epochs
                    cells = [f"{size:.2f}", name, CI_FORMS.get(form, "nearest"), f"{epochs}"]
                    rates = (("tpr", True), (denominator, False))
                    for published, (column, higher) in zip(TABLE_2[size][name], rates, strict=True):
                        done = judge(published, pooled(rows, column), 3, higher=higher, scale=1)
                        cells += [f"{pooled(rows, column).value:.3f}", done]
                    yield cells


def poster() -> Iterator[Line]:
    """The rest of the poster: its setting, what it draws, and the table of the paper that is not public."""
    found = read_rows(RESULTS / "cluster-impurity" / "models.parquet")
    longer = read_rows(RESULTS / "cluster-impurity-30-epochs" / "models.parquet")
    clean = pick(found, model="clean set")
    state = judge(100 * CLEAN_ACCURACY, pooled(clean, "accuracy"), 2, higher=True)
    yield Line("clean accuracy, %", f"{100 * CLEAN_ACCURACY:.2f}", told(clean, "accuracy", 2), state)
    yield Line("epochs", "200", "14, 30", FAITHFUL, setting=True)
    yield Line("images in a batch", "32", "128", FAITHFUL, setting=True)
    counted = _detections("cluster-impurity", "multiple-source")[0]
    yield same("clean training images", "50,000", f"{counted['fpr_trials']:,}")
    yield same("of each class", "5,000", f"{counted['fpr_target_trials']:,}")
    yield same("test images", "10,000", f"{clean[0]['accuracy_trials']:,}")
    yield same("perturbed pixels", "1", "1")
    for number, scenario in ((2, "single-source"), (5, "multiple-source")):
        figure = f"Figure {number}, {scenario}"
        missing = []
        for size in SIZES:
            here, more = (pick(rows, scenario=scenario, size=size, model="poisoned set") for rows in (found, longer))
            if here:
                yield Line(f"{figure}, {size:.2f}", "–", _both(here), DRAWN)
            if more:
                yield Line(f"{figure}, {size:.2f}, 30 epochs", "–", _both(more), DRAWN)
            if not here and not more:
                missing.append(f"{size:.2f}")
        yield Line(f"{figure}, {', '.join(missing)}", "–", "–", f"not run ({len(missing)} trainings, {TRAINING})")
    for name, *_ in NEAREST:
        rows = pick(found, scenario="multiple-source", size=0.25, model=f"after {name}")
        yield Line(f"Figure 6, retrained after {name}, 0.25", "–", _both(rows), DRAWN)
    yield Line("Figure 6, all three, other sizes", "–", "–", f"not run (15 trainings, {TRAINING})")
    for name, form, method, denominator in NEAREST:
        rows = pick(_detections("cluster-impurity", "single-source"), size=0.25, form=form, method=method)
        ours = f"TPR {told(rows, 'tpr', 3, 1)}, FPR {told(rows, denominator, 3, 1)}"
        yield Line(f"Table 1, single-source, 0.25, {name}", "–", ours, "not comparable (Table 1 is not public)")
    yield Line("Table 1, single-source, other sizes", "–", "–", f"not run (5 trainings, {TRAINING})")


def _both(rows: list[Row]) -> str:
    return f"ASR {told(rows, 'asr', 1)}, accuracy {told(rows, 'accuracy', 1)}"
