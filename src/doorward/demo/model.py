"""The demo's second half: the poisoned model alone, inverted and repaired."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from doorward.core.leftovers import has_its_name
from doorward.data.sources import load_images
from doorward.inversion.job import InvertRequest, invert_to_folder
from doorward.inversion.results import Inversion
from doorward.repairs.job import RepairRequest, repair_to_folder
from doorward.scoring.repairs import score_repair

STAGES = 2  # that `repair_model` tells about
REFERENCES = 2


def repair_model(folder: Path, source: str, seed: int, told: Callable[[str], None]) -> list[Path]:
    """Invert ``folder/model`` with clean test images, repair it with what was found, score the repair; the runs.

    Args:
        folder: of a scenario, with ``poisoned`` (read for scoring alone) and ``model``.
        source: a set with test images. The repair's accuracy is measured on those that it held out.
    """
    model, inverted, repaired = str(folder / "model"), folder / "inverted", folder / "repaired"
    told(f"{folder.name}: invert the model")
    search = InvertRequest(model=model, source=source, methods=("mask",), train_references=REFERENCES, seed=seed)
    once(inverted, partial(invert_to_folder, search), seed)
    told(f"{folder.name}: repair the model")
    if not Inversion.load(inverted).targets:
        return [inverted]
    repair = RepairRequest(
        model=model,
        source=source,
        triggers=str(inverted),
        methods=("retrain",),
        settings={"retrain": {"around": False}},
        seed=seed,
    )
    once(repaired, partial(repair_to_folder, repair), seed)
    score_repair(repaired, folder / "poisoned" / "truth.parquet", load_images(source, split="test"))
    return [inverted, repaired]


def once(path: Path, make: Callable[..., object], seed: int) -> None:
    """Make a run unless it is there."""
    if not has_its_name(path):
        make(path, command=f"doorward demo --seed {seed}")
