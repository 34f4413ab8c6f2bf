"""The demo's audits: every set and its model once more, with nothing told, and scored."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from doorward.audits.job import AuditRequest, audit_to_folder
from doorward.data.sources import load_images
from doorward.demo.model import once
from doorward.jobs.tasks import Arrays, Item, run_tasks
from doorward.scoring.audits import score_audit

RUN = "audit"  # folder within a scenario's


def audit_all(folders: Sequence[Path], source: str, seed: int) -> list[Path]:
    """Audit ``folder/model`` and its training set for every folder, as many at once as there are cores; the runs.

    Nets this small gain little from a second thread, so one process per core takes half as long as one for all.

    Args:
        folders: of scenarios, each with ``model`` and, unless it is the control, ``poisoned``.
        source: what a control was trained on; its test images measure the models that the audits hand on.
    """
    tasks: list[Item] = [{"folder": str(folder.absolute()), "source": source, "seed": seed} for folder in folders]
    workers = max(1, min(len(tasks), os.cpu_count() or 1))
    with tempfile.TemporaryDirectory() as store:  # what is finished are the runs themselves
        for _ in run_tasks(_audited, tasks, Path(store), workers=workers):
            pass
    return [folder / RUN for folder in folders]


def _audited(item: Item) -> Arrays:
    """One set and its model; runs in a process of its own."""
    folder, source, seed = Path(item["folder"]), str(item["source"]), int(item["seed"])
    poisoned = folder / "poisoned"
    truth = poisoned / "truth.parquet" if poisoned.is_dir() else None
    request = AuditRequest(source=str(poisoned) if truth else source, model=str(folder / "model"), seed=seed)
    once(folder / RUN, partial(audit_to_folder, request), seed)
    score_audit(folder / RUN, truth, test=load_images(source, split="test"))
    return {"done": np.ones(1)}
