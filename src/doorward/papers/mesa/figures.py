"""The slides' figures with our numbers: ASR per trigger, the distribution in a plane, triggers as pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doorward.core.results import read_record
from doorward.core.tensors import read_tensors
from doorward.papers.drawing import open_pyplot, save_figure
from doorward.papers.mesa.arms import BEFORE
from doorward.papers.mesa.collect import Found
from doorward.papers.mesa.plan import Plan
from doorward.papers.mesa.results import SamplesRecord
from doorward.papers.mesa.tables import BASELINE, by_case, label, main_arms
from doorward.papers.rows import pick

Arrays = Mapping[str, NDArray[Any]]
_STYLES = {
    "oracle": ("#1b7837", "_"),
    "mesa-ensemble": ("#2166ac", "o"),
    "mesa-default": ("#67a9cf", "s"),
    "pixel-short": ("#c0392b", "x"),
    "pixel": ("#e39a6f", "+"),
    "fine-tune": ("#9a9a9a", "v"),
    "refresh": ("#c9c9c9", "^"),
}
_TICKS = (0, 1, 2, 5, 10, 20, 50, 100)
_PER_ROW = 12  # sample triggers in the picture


def draw(plan: Plan, found: Found, folder: Path, results: Path) -> list[Path]:
    """Write the figures for which there are runs; returns their paths, those of earlier results included."""
    drawn = [_each_trigger(found, results / "asr-per-trigger.png")]
    plane_file, pictures = results / "distribution.png", results / "triggers.png"
    for case in plan.cases:
        run = folder / case.name / "shown"
        if case.shown and run.exists():
            arrays = {k: v.numpy() for k, v in read_tensors(run / "samples.safetensors").items()}
            betas = list(read_record(SamplesRecord, run, "samples").levels)
            _plane(arrays, case.name, plane_file)
            _pictures(arrays, betas, case.name, pictures)
    return drawn + [path for path in (plane_file, pictures) if path.exists()]


def _each_trigger(found: Found, path: Path) -> Path:
    pyplot = open_pyplot()

    rows = [r for r in found.models if r["place"] == "free"]
    cases = list(by_case(rows))
    figure, axes = pyplot.subplots(figsize=(max(10.0, 5 + 0.22 * len(cases)), 4.2), layout="constrained")
    shown = [arm for arm in main_arms(found) if arm in _STYLES]
    for number, arm in enumerate(shown):
        colour, marker = _STYLES[arm]
        aside = 0.12 * (number - (len(shown) - 1) / 2)  # so that arms do not hide each other
        same = pick(rows, arm=arm)
        several = arm in ("pixel", BASELINE)
        if several:
            single = [100 * r["asr_hits"] / r["asr_trials"] for r in same]
            axes.plot(
                [cases.index(r["case"]) + aside for r in same], single, ".", color=colour, alpha=0.35, markersize=5
            )
        rates = by_case(same)
        where = [cases.index(case) + aside for case in rates]
        values = np.array([100 * rate.value for rate in rates.values()])
        bounds = np.array([rate.interval for rate in rates.values()]).T * 100
        error = None if several else [values - bounds[0], bounds[1] - values]
        told = label(arm) + (" (points: single runs)" if several else "")
        axes.errorbar(where, values, yerr=error, fmt=marker, color=colour, capsize=2, linewidth=0.8, label=told)
    axes.set_xticks(range(len(cases)), cases, rotation=90, fontsize=7)
    low = min(rate.value for rate in by_case(pick(rows, arm=BEFORE)).values())
    title = f"attack success after repair (before: at least {100 * low:.1f} %)"
    axes.set_yscale("symlog", linthresh=1)  # what repairs leave lies far below what the controls leave
    axes.set_yticks(_TICKS, [f"{tick:g}" for tick in _TICKS])
    figure.suptitle(title, fontsize=11)  # the legend leaves the axes too narrow for it
    axes.set(ylabel="ASR %", ylim=(-0.3, 130))
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return save_figure(figure, path)


def plane(samples: NDArray[np.float64], *others: NDArray[np.float64]) -> tuple[list[NDArray[np.float64]], float]:
    """First two principal components of the samples ``[N, D]``: coordinates of all, and share of variance."""
    centre = samples.mean(axis=0)
    _, values, axes = np.linalg.svd(samples - centre, full_matrices=False)
    share = float((values[:2] ** 2).sum() / max((values**2).sum(), 1e-12))
    return [(points - centre) @ axes[:2].T for points in (samples, *others)], share


def _flat(patterns: NDArray[Any]) -> NDArray[np.float64]:
    return patterns.reshape(len(patterns), -1).astype(np.float64)


def _plane(arrays: Arrays, name: str, path: Path) -> Path:
    pyplot = open_pyplot()

    (samples, baseline, true), share = plane(*(_flat(arrays[k]) for k in ("samples", "baseline", "true")))
    figure, axes = pyplot.subplots(figsize=(7, 5), layout="constrained")
    shade: dict[str, Any] = {"cmap": "viridis", "vmin": 0, "vmax": 1}
    seen = axes.scatter(
        samples[:, 0], samples[:, 1], c=arrays["samples_success"], s=12, alpha=0.8, label="MESA samples", **shade
    )
    solutions = arrays["baseline_success"]
    axes.scatter(
        baseline[:, 0],
        baseline[:, 1],
        c=solutions,
        s=90,
        marker="s",
        edgecolors="#c0392b",
        label="pixel baseline",
        **shade,
    )
    axes.scatter(
        true[:, 0],
        true[:, 1],
        c=arrays["true_success"],
        s=260,
        marker="*",
        edgecolors="black",
        label="true trigger",
        **shade,
    )
    figure.colorbar(seen, ax=axes, label="success rate")
    axes.set(
        title=f"{name}: triggers that work ({100 * share:.0f} % of the variance)",
        xlabel="first principal component",
        ylabel="second",
    )
    axes.legend(fontsize=8, frameon=False)
    return save_figure(figure, path)


def _pictures(arrays: Arrays, betas: list[float], name: str, path: Path) -> Path:
    pyplot = open_pyplot()

    rows: list[tuple[str, NDArray[Any], NDArray[Any]]] = []
    for level, beta in enumerate(betas):
        chosen = np.flatnonzero(arrays["levels"] == level)[:_PER_ROW]
        rows.append((f"MESA\nβ = {beta:g}", arrays["samples"][chosen], arrays["samples_success"][chosen]))
    rows.append(("pixel\nbaseline", arrays["baseline"][:_PER_ROW], arrays["baseline_success"][:_PER_ROW]))
    rows.append(("true", arrays["true"], arrays["true_success"]))
    figure, grid = pyplot.subplots(
        len(rows), _PER_ROW, figsize=(0.75 * _PER_ROW + 1, 0.95 * len(rows) + 0.4), squeeze=False, layout="constrained"
    )
    for line, (words, patterns, success) in zip(grid, rows, strict=True):
        line[0].set_ylabel(words, rotation=0, ha="right", va="center", fontsize=8)
        for number, axes in enumerate(line):
            axes.set(xticks=[], yticks=[])
            if number >= len(patterns):
                axes.set_frame_on(False)
                continue
            picture = patterns[number].transpose(1, 2, 0)
            axes.imshow(np.broadcast_to(picture, (*picture.shape[:2], 3)), vmin=0, vmax=1)
            axes.set_title(f"{100 * success[number]:.0f} %", fontsize=6, pad=2)
    figure.suptitle(f"{name}: triggers, each with its success rate", fontsize=9)
    return save_figure(figure, path)
