"""What was found over the mean face, beside the truth; ROC curves of the screens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doorward.core.images import ImageSet
from doorward.core.pixels import to_float, to_uint8
from doorward.core.results import read_record
from doorward.inversion.results import InvertRecord
from doorward.papers.drawing import open_pyplot, save_figure
from doorward.papers.hackml.accessories import face_trigger
from doorward.papers.hackml.collect import true_mask
from doorward.papers.hackml.plan import Case, Plan
from doorward.papers.hackml.results import ScreensRecord
from doorward.papers.hackml.work import faces_of, found_triggers

_SHOWN = 4  # suspects in a net's picture
_DASHES = {"strip": "-", "ada": "--", "inverted": ":"}


def draw(plan: Plan, folder: Path, results: Path) -> list[Path]:
    """Write the figures for which there are runs; returns their paths."""
    held = faces_of(folder, "held-out")
    drawn = [
        _net(case, held, folder, results / f"{case.name}.png")
        for case in plan.cases
        if (folder / case.name / "evidence").exists()
    ]
    curves = [case for case in plan.cases if case.triggers and (folder / case.name / "screens").exists()]
    return [*drawn, _curves(curves, folder, results / "screens.png")] if curves else drawn


def _net(case: Case, held: ImageSet, folder: Path, path: Path) -> Path:
    """One row a suspect: heat map over the mean face, complete trigger, a stamped face; the true stamp where known."""
    pyplot = open_pyplot()

    details = read_record(InvertRecord, folder / case.name / "invert").methods["window"].details
    triggers = found_triggers(folder, case)
    labels = [*[k for k in triggers if k in case.targets], *[k for k in triggers if k not in case.targets]][:_SHOWN]
    mean = to_float(held.pixels).mean(0).permute(1, 2, 0).numpy()
    size = (8.2, 2.7 * len(labels))
    figure, grid = pyplot.subplots(len(labels), 4, figsize=size, layout="constrained", squeeze=False)
    for row, label in zip(grid, labels, strict=True):
        heat = np.array(details["heat_maps"][str(label)]["map"])
        kind = "true target" if label in case.targets else "natural or nothing"
        row[0].imshow(mean)
        row[0].imshow(heat, cmap="inferno", alpha=0.8 * heat / max(float(heat.max()), 1e-9))  # cold: the face
        row[0].set_title(f"class {label} ({kind}): heat", fontsize=8)
        row[1].imshow(mean * 0.35 + 0.65)
        row[1].imshow(_rgba(triggers[label]))
        row[1].set_title("complete trigger", fontsize=8)
        face = next(i for i in range(len(held)) if held.labels[i] != label)
        row[2].imshow(_stamped(held, face, triggers[label]))
        row[2].set_title("an unseen face under it", fontsize=8)
        name = next((n for n, target in case.triggers if target == label), None)
        if name is not None:
            row[3].imshow(_stamped(held, face, face_trigger(name)))
            row[0].contour(true_mask(name), levels=[0.5], colors="white", linewidths=0.8)
        row[3].set_title("the attacker's own" if name else "", fontsize=8)
        for axes in row:
            axes.set_axis_off()
    return save_figure(figure, path, 110)


def _rgba(trigger: Any) -> NDArray[np.float32]:
    picture = np.concatenate([trigger.pattern.numpy(), trigger.alpha.numpy()])
    return np.asarray(picture.transpose(1, 2, 0))


def _stamped(held: ImageSet, face: int, stamp: Any) -> NDArray[np.uint8]:
    return np.asarray(to_uint8(stamp.apply(to_float(held.pixels[face : face + 1])))[0])


def _curves(cases: list[Case], folder: Path, path: Path) -> Path:
    pyplot = open_pyplot()

    figure, axes = pyplot.subplots(figsize=(5.4, 4.2), layout="constrained")
    for number, case in enumerate(cases):
        for row in read_record(ScreensRecord, folder / case.name / "screens").screens:
            told = f"{case.name}, {row.screen}: {row.auroc:.2f}"
            axes.plot(row.false, row.true, _DASHES[row.screen], color=f"C{number}", label=told, linewidth=1.3)
    axes.set(xlabel="clean faces refused", ylabel="stamped faces refused", title="screens of single images")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return save_figure(figure, path, 110)
