"""What to do next after an audit, with commands that work as they stand."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np

from doorward.audits.records import AuditRecord
from doorward.reports.run_files import RunFolder

_OPTIONS = {  # of a model that was opened, by the name of the run's setting
    "arch": "arch", "mean": "mean", "std": "std", "range": "value_range", "feature-layer": "feature_layer",
    "classes": "classes", "size": "size",
}  # fmt: skip


def next_steps(results: AuditRecord, run: RunFolder, retrained: bool) -> list[tuple[str, str]]:
    """Sentences, each with its command or none.

    Args:
        retrained: whether the run's folder holds a model that was trained without the suspects.
    """
    folder, made = shlex.quote(run.name), []
    left = shlex.quote(f"{Path(results.source).name or 'set'}-clean")
    if results.suspects:
        made.append(("Look at the suspects above: what do they share that others of their class lack?", ""))
        made.append(("Take the set without them.", f"doorward export {folder} --keep -o {left}"))
        if retrained and results.handed_on == "on":
            told = "Use the copy of your model that was trained on without them, until you have trained it anew."
            made.append((told, f"{folder}/model"))
        elif retrained:
            made.append(("Use the model that was trained without them, in the run's folder.", f"{folder}/model"))
        else:
            made.append(("Train your model again, on that set.", f"doorward train {left} -o model-clean"))
    elif results.judgement.level in ("planted", "evidence", "suspicious"):
        if results.doubtful:
            told = "Look at the doubtful images above: do they show what their label says, and what do they share?"
            made.append((told, ""))
            told = "Where they do not, take the set without them."
            made.append((told, f"doorward export {folder} --keep --doubtful -o {left}"))
        made.append(("Do not use this model before somebody has looked at the trigger on pictures.", ""))
        model, clean = shlex.quote(results.model or "MODEL"), shlex.quote(_clean(run) or "CLEAN")
        model += _opened(run)
        search = f"doorward invert {model} --images {clean} -o found"
        made.append(("Search for its triggers on clean images ...", search))
        repair = f"doorward repair {model} --images {clean} --triggers found -o repaired"
        made.append(("... and repair it with them.", repair))
    elif results.judgement.level == "undecided":
        made.append(("Give the audit what it lacked, as the reasons above say, and run it again.", ""))
    else:
        made.append(("Nothing has to be done for what was looked for. What could not be seen stands below.", ""))
    if results.left_out:
        made.append(("Run the audit again with more minutes, or none, for what was left out.", ""))
    return made


def _clean(run: RunFolder) -> str:
    """Where the clean images came from; empty where nobody said."""
    return str(run.manifest.settings.get("clean") or "")


def _opened(run: RunFolder) -> str:
    """The options that the model was opened with, as a command takes them; empty without any."""
    told = ""
    for option, name in _OPTIONS.items():
        value = run.manifest.settings.get(name)
        if value is not None:
            words = value if isinstance(value, str) else ",".join(f"{v:g}" for v in np.atleast_1d(value).tolist())
            told += f" --{option} {shlex.quote(words)}"
    return told
