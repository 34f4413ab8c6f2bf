"""Figure 1 of Wang, Cao, Jia and Gong 2020: certified accuracy on MNIST 1/7, and how far past it one gets.

The paper's setting: digits 1 and 7, binarised at 0.5, 100 training and 1,000 test digits, a two-layer net, beta = .9,
N = 10,000, 1 - alpha = 99.9 %; headline: 36 % certified accuracy at 2 changed pixels or labels. It gives neither
width nor optimiser nor epochs; those of the registered learner were chosen on digits that are in no split here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any, Literal

import numpy as np

from doorward.certification.job import certify_to_folder
from doorward.certification.request import CertifyRequest
from doorward.certification.results import CertifyRecord
from doorward.core.files import atomic_write
from doorward.core.progress import Progress
from doorward.core.results import read_record
from doorward.core.tables import write_parquet
from doorward.papers.drawing import open_pyplot, save_figure

RADII = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20)
PAPER = (2, 0.36)


@dataclass(frozen=True)
class Curve:
    """One row of the table: a learner, its noise and its trials, over several draws of digits."""

    name: str
    learner: str
    trials: int = 0
    keep: str = "0.9"
    settings: dict[str, Any] = field(default_factory=dict)
    draws: int = 5

    @property
    def slug(self) -> str:
        """A name for its folder."""
        parts = [self.learner, *(f"{k}-{v}" for k, v in self.settings.items())]
        if self.trials:
            parts += [str(n) for n in (self.keep, self.trials)]
        return "-".join(parts)

    def request(self, profile: Profile, draw: int) -> CertifyRequest:
        """The certify request of one draw."""
        return CertifyRequest(
            source=profile.source,
            classes=("1", "7"),
            train=100,
            test=profile.test,
            learner=self.learner,
            settings=self.settings,
            keep=self.keep,
            trials=max(1, self.trials),
            draw=draw,
            skip=profile.skip,
            seed=draw,
            workers=profile.workers,
            device=profile.device,
        )


@dataclass(frozen=True)
class Profile:
    """How much of it to run, on which digits."""

    source: str
    test: int
    curves: tuple[Curve, ...]
    skip: int = 0
    workers: int = 0
    device: str = "auto"


TUNED_ON = 6000  # the first 1/7 digits of the training file, on which the deterministic rules were chosen
PLAIN = {"k": 33, "balanced": False, "centre": 0}

CURVES = (
    Curve("two-layer net, the paper's setting", "two-layer", 10_000),
    Curve("nearest centroid", "nearest-centroid", 10_000),
    Curve("naive Bayes", "naive-bayes", 10_000),
    Curve("ridge", "ridge", 10_000),
    Curve("nearest centroid", "nearest-centroid", 100_000),
    Curve("naive Bayes", "naive-bayes", 100_000),
    Curve("nearest centroid, beta .8", "nearest-centroid", 100_000, keep="0.8"),
    Curve("nearest centroid, beta .95", "nearest-centroid", 100_000, keep="0.95"),
    Curve("nearest centroid", "nearest-centroid", 1_000_000),
    Curve("nearest centroid, beta .8", "nearest-centroid", 1_000_000, keep="0.8"),
    Curve("nearest neighbours, k = 33, plain (deterministic)", "nearest-neighbours", settings=PLAIN),
    Curve("nearest neighbours, k = 33, balanced and centred (deterministic)", "nearest-neighbours"),
    Curve("mean distance (deterministic)", "mean-distance"),
)


def profile(name: Literal["mnist", "mnist-5k"], workers: int, device: str) -> Profile:
    """``mnist``: the paper's digits. ``mnist-5k``: bundled, fewer test digits and fewer trials, no download."""
    if name == "mnist":
        return Profile("mnist", 1000, CURVES, TUNED_ON, workers, device)
    return Profile("mnist-5k", 500, tuple(c for c in CURVES if c.trials <= 10_000), 0, workers, device)


def reproduce(chosen: Profile, folder: Path, results: Path, *, progress: Progress | None = None) -> Path:
    """Run every curve (finished ones are read), write table, data and figure into ``results``; returns the table."""
    open_pyplot()  # what is missing is told before the work
    found: list[tuple[Curve, list[CertifyRecord]]] = []
    done, total = 0, sum(curve.draws for curve in chosen.curves)
    for curve in chosen.curves:
        runs = []
        for draw in range(curve.draws):
            if progress:
                progress(f"{curve.name}, N = {curve.trials:,}" if curve.trials else curve.name, done, total)
            done += 1
            path = folder / f"{curve.slug}-{draw}"
            if not path.exists():
                folder.mkdir(parents=True, exist_ok=True)
                certify_to_folder(curve.request(chosen, draw), path, command=_command(chosen))
            runs.append(read_record(CertifyRecord, path, "certify"))
        found.append((curve, runs))
    results.mkdir(parents=True, exist_ok=True)
    _write_data(found, results / "curves.parquet")
    _draw(found, results / "figure.png")
    table = results / "README.md"
    atomic_write(table, _markdown(found, chosen))
    return table


def accuracies(runs: Sequence[CertifyRecord], radius: int) -> list[float]:
    """Certified accuracy at a radius in every run; 0 past the last radius that any image has."""
    return [r.certified_accuracy.get(radius, 0.0) for r in runs]


def _command(chosen: Profile) -> str:
    return f"doorward reproduce smoothing-mnist17 --profile {chosen.source}"


def _write_data(found: Sequence[tuple[Curve, list[CertifyRecord]]], path: Path) -> None:
    rows = [
        (curve.name, curve.learner, curve.keep, curve.trials, draw, radius, value)
        for curve, runs in found
        for draw, run in enumerate(runs)
        for radius, value in run.certified_accuracy.items()
    ]
    names = ("curve", "learner", "keep", "trials", "split", "radius", "certified_accuracy")
    write_parquet(path, {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)})


def _markdown(found: Sequence[tuple[Curve, list[CertifyRecord]]], chosen: Profile) -> str:
    head = "| classifier | N | " + " | ".join(f"r = {r}" for r in RADII) + " |"
    lines = [head, "|---|---|" + "---|" * len(RADII)]
    lines.append("| *two-layer net, as published* | 10,000 | | | *36* |" + " |" * (len(RADII) - 3))
    for curve, runs in found:
        cells = []
        for radius in RADII:
            values = accuracies(runs, radius)
            cells.append(
                f"{100 * mean(values):.1f} ({100 * min(values):.0f}–{100 * max(values):.0f})" if max(values) else "0"
            )
        trials = f"{curve.trials:,}" if curve.trials else "–"
        lines.append(f"| {curve.name} | {trials} | {' | '.join(cells)} |")
    told = (
        f"Certified accuracy in percent on MNIST 1/7, binarised at 0.5: 100 training and {chosen.test:,} test digits "
        f"of {chosen.source}, mean over five random splits (minimum–maximum); beta = .9 unless said, alpha = .001 per "
        "image. At radius r no change of r training pixels, training labels and test pixels together can change the "
        "prediction. Deterministic certificates hold with probability one."
    )
    limits = (
        "The paper's curve must end at 2: at N = 10,000 no vote reaches radius 3, which takes 10,069 trials. The paper "
        "gives neither width nor optimiser nor steps; ours were chosen on MNIST's test split, and the deterministic "
        f"rules on the first {TUNED_ON:,} digits 1 and 7 of the training file. "
        + (
            "No digit of either is among those drawn here."
            if chosen.skip
            else "The bundled digits come from MNIST too, and some of them may be among those: see the profile mnist."
        )
    )
    used = sorted({f"`{c.learner}`: {_settings(c)}" for c, _ in found})
    return "\n".join(
        [
            "# MNIST 1/7: certified accuracy",
            "",
            told,
            "",
            f"    {_command(chosen)}",
            "",
            *lines,
            "",
            "![curves](figure.png)",
            "",
            limits,
            "",
            *_tightness(found),
            "All blocks have the same beta: the worst split of a budget lies in the block with the largest one, so "
            "unequal betas buy a larger region of (training pixels, labels, test pixels) but no larger radius.",
            "",
            "Settings: " + "; ".join(used) + ".",
            "",
        ]
    )


def _tightness(found: Sequence[tuple[Curve, list[CertifyRecord]]]) -> list[str]:
    """How far the deterministic radii are from attacks that were found."""
    told = []
    for curve, runs in found:
        searches = [r.attack_search for r in runs if r.attack_search is not None]
        attacked = sum(s.attacked for s in searches)
        if attacked:
            exact, near = (sum(s.gaps.get(g, 0) for s in searches) / attacked for g in (0, 1))
            shares = f"the exact truth for {100 * exact:.0f} %, at most one cell short for {100 * (exact + near):.0f} %"
            told += [f"{curve.name}: attacks found on {attacked:,} images; the radius is {shares}.", ""]
    return told


def _settings(curve: Curve) -> str:
    from doorward.core import methods

    resolved = methods.get("certify", curve.learner).configure(curve.settings).model_dump(mode="json")
    return ", ".join(f"{k} = {v}" for k, v in resolved.items()) or "none"


def _draw(found: Sequence[tuple[Curve, list[CertifyRecord]]], path: Path) -> None:
    """The curves with bands from minimum to maximum; the paper's 36 % at 2 is marked."""
    pyplot = open_pyplot()

    figure, axes = pyplot.subplots(figsize=(9, 5.2), layout="constrained")
    colours = pyplot.get_cmap("tab20").colors
    most = 0
    for number, (curve, runs) in enumerate(found):
        reach = max(r for run in runs for r in run.certified_accuracy)
        most = max(most, reach)
        radii = range(reach + 2)
        values = np.array([accuracies(runs, r) for r in radii]) * 100
        label = f"{curve.name}, N = {curve.trials:,}" if curve.trials else curve.name
        axes.step(radii, values.mean(axis=1), where="mid", label=label, color=colours[number], linewidth=1.8)
        axes.fill_between(radii, values.min(axis=1), values.max(axis=1), step="mid", alpha=0.15, color=colours[number])
    axes.plot(*(PAPER[0], 100 * PAPER[1]), "k*", markersize=13, label="published: 36 % at 2")
    axes.set(
        xlabel="changed training pixels, training labels and test pixels, together", ylabel="certified accuracy, %"
    )
    axes.set(xlim=(-0.5, min(most, 24) + 0.5), ylim=(0, 101))
    axes.grid(alpha=0.25)
    axes.legend(fontsize=7.5, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    save_figure(figure, path)
