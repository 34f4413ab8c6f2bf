"""The poster's figures 2, 5 and 6 with our numbers; bars are 95 % intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from doorward.papers.cluster_impurity.collect import Found
from doorward.papers.cluster_impurity.tables import POSTER
from doorward.papers.cluster_impurity.trainers import TABLE_2
from doorward.papers.drawing import open_pyplot, save_figure
from doorward.papers.rows import Row, pick, pooled

_COLOURS = {"SS": "#b5651d", "AC": "#6a51a3", "CI": "#1b7837", "FP": "#2166ac"}
_ASIDE = 0.002  # on the axis of sizes


def draw(found: Found, folder: Path) -> list[Path]:
    """Write the figures for which there are rows; returns their paths."""
    drawn = []
    for scenario, name in (("multiple-source", "figure-5.png"), ("single-source", "figure-2.png")):
        rows = pick(found.models, scenario=scenario, model="poisoned set")
        if rows:
            drawn.append(_attack(rows, f"{scenario}: before any defence", folder / name))
    retrained = [r for r in pick(found.models, scenario="multiple-source") if str(r["model"]).startswith("after")]
    if retrained:
        drawn.append(_retrained(retrained, folder / "figure-6.png"))
    if pick(found.detections, scenario="multiple-source"):
        drawn.append(_detected(found, folder / "detection.png"))
    return drawn


def _curve(axes: Any, rows: list[Row], name: str, aside: float = 0.0, **style: Any) -> None:
    """A rate over sizes with its interval, all seeds together; moved aside so that curves do not hide each other."""
    sizes = sorted({r["size"] for r in rows})
    rates = [pooled(pick(rows, size=size), name) for size in sizes]
    values = [100 * r.value for r in rates]
    low = [v - 100 * r.interval[0] for v, r in zip(values, rates, strict=True)]
    high = [100 * r.interval[1] - v for v, r in zip(values, rates, strict=True)]
    axes.errorbar([size + aside for size in sizes], values, yerr=[low, high], **{"marker": "o", "capsize": 3, **style})


def _attack(rows: list[Row], title: str, path: Path) -> Path:
    figure, axes = _axes(title)
    _curve(axes, rows, "asr", label="attack success rate", color="#c0392b")
    _curve(axes, rows, "accuracy", label="clean accuracy", color="#34495e")
    return _save(figure, axes, path)


def _retrained(rows: list[Row], path: Path) -> Path:
    figure, axes = _axes("multiple-source: after each defence (full: ASR, dashed: clean accuracy)")
    for number, model in enumerate(dict.fromkeys(r["model"] for r in rows)):
        name, aside = str(model).removeprefix("after "), (number - 1.5) * _ASIDE
        same = pick(rows, model=model)
        _curve(axes, same, "asr", aside, label=f"{name}: ASR", color=_COLOURS[name])
        _curve(
            axes, same, "accuracy", aside, label=f"{name}: accuracy", color=_COLOURS[name], linestyle="--", mfc="white"
        )
    return _save(figure, axes, path)


def _detected(found: Found, path: Path) -> Path:
    figure, axes = _axes("multiple-source: poisoned images found (dotted: the poster)")
    for name, form, method, _ in POSTER:
        rows = pick(found.detections, scenario="multiple-source", form=form, method=method)
        if rows and form not in ("authors", "misfits", "leftovers"):  # other readings of CI would hide these
            label, mark = (f"{name}, all features", "s") if form == "poster" else (name, "o")
            _curve(axes, rows, "tpr", label=label, color=_COLOURS[name], marker=mark)
        axes.plot(list(TABLE_2), [100 * TABLE_2[s][name][0] for s in TABLE_2], ":", color=_COLOURS[name])
    return _save(figure, axes, path)


def _axes(title: str) -> tuple[Any, Any]:
    pyplot = open_pyplot()

    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    axes.set(title=title, xlabel="perturbation size", ylabel="%", ylim=(-3, 103))
    axes.grid(alpha=0.25)
    return figure, axes


def _save(figure: Any, axes: Any, path: Path) -> Path:
    left, right = axes.get_xlim()
    axes.set_xlim(min(left, min(TABLE_2) - 0.02), max(right, max(TABLE_2) + 0.02))  # one size alone is no scale
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return save_figure(figure, path)
