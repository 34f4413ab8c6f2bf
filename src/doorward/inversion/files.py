"""The files of an inversion: triggers, a table of the classes, stamped images."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from doorward.core.images import ImageSet
from doorward.core.pixels import to_float, to_uint8
from doorward.core.triggers import Stamp, Trigger
from doorward.inversion.distribution.triggers import TriggerDistribution
from doorward.inversion.inverted import Inverted
from doorward.inversion.search.runner import Outcome

_NUMBERED = re.compile(r"(.+)_([0-9]{1,9})\.safetensors")
SAVED_CLASSES = 32  # per method, the most suspicious
_SHOWN_CLASSES, _SHOWN_IMAGES = 8, 6


def trigger_files(name: str, inverted: Inverted) -> dict[int, tuple[str, ...]]:
    """Names of the files that keep a method's triggers, by class, most suspicious first."""
    return {label: tuple(_named(name, inverted, label)) for label in inverted.ranked()[:SAVED_CLASSES]}


def _named(name: str, inverted: Inverted, label: int) -> dict[str, Trigger | TriggerDistribution]:
    """The triggers of a class by the names of their files."""
    files: dict[str, Trigger | TriggerDistribution] = {
        f"{name}_{label}_{number}.safetensors": trigger for number, trigger in enumerate(inverted.triggers[label])
    }
    if label in inverted.distributions:
        files[f"{name}_{label}_distribution.safetensors"] = inverted.distributions[label]
    return files


def save_triggers(outcomes: Mapping[str, Outcome], folder: Path) -> None:
    """Write the triggers of every method's most suspicious classes."""
    folder.mkdir(exist_ok=True)
    for name, outcome in outcomes.items():
        for label in outcome.inverted.ranked()[:SAVED_CLASSES]:
            for file, trigger in _named(name, outcome.inverted, label).items():
                trigger.save(folder / file)


def kept_stamps(inverted: Inverted, label: int) -> list[Stamp]:
    """What `load_stamps` gives of the same inversion."""
    if label not in inverted.ranked()[:SAVED_CLASSES]:
        return []
    whole = inverted.distributions.get(label)
    return list(inverted.triggers[label]) if whole is None else [whole]


def load_stamps(run: Path | str, method: str, label: int) -> list[Stamp]:
    """The triggers that a run keeps for one class: its distribution alone where there is one."""
    folder = Path(run) / "triggers"
    whole = folder / f"{Path(method).name}_{label}_distribution.safetensors"
    if whole.exists():
        return [TriggerDistribution.load(whole, inside=run)]
    named = {path: _NUMBERED.fullmatch(path.name) for path in folder.glob("*.safetensors")}
    mine = {path: int(m[2]) for path, m in named.items() if m and m[1] == f"{method}_{label}"}
    return [Trigger.load(path, inside=run) for path in sorted(mine, key=lambda path: mine[path])]


def copy_run(source: Path, folder: Path, rounds: Sequence[str] = ()) -> None:
    """Copy the files of a finished run into another folder."""
    for name in ("triggers", *(Path(inside).name for inside in rounds)):
        if (source / name).is_dir():
            shutil.copytree(source / name, folder / name, dirs_exist_ok=True)
    for name in ("classes.parquet", "thumbnails.npy"):
        if (source / name).exists():
            shutil.copyfile(source / name, folder / name)


def class_columns(outcomes: Mapping[str, Outcome], p_values: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    """Columns of ``classes.parquet``; ``p_values``: over all methods, ``[K]``."""
    count = len(p_values)
    columns: dict[str, NDArray[Any]] = {"label": np.arange(count), "p_value": p_values}
    for name, outcome in outcomes.items():
        inverted, missing = outcome.inverted, np.full(count, np.nan)
        rates = [outcome.success.get(k) for k in range(count)]
        columns[f"{name}_statistic"] = inverted.statistic
        columns[f"{name}_p_value"] = missing if outcome.test is None else outcome.test.classes
        columns[f"{name}_size"] = missing if inverted.size is None else inverted.size
        columns[f"{name}_asr"] = np.array([np.nan if r is None else r.value for r in rates])
        columns[f"{name}_converged"] = inverted.converged
    return columns


def picture_rows(outcomes: Mapping[str, Outcome], images: ImageSet) -> dict[str, Any]:
    """Which rows of `pictures` show what: ``clean``, and ``stamped`` by method and class."""
    shown, first = min(_SHOWN_IMAGES, len(images)), 0
    stamped: dict[str, dict[int, tuple[int, ...]]] = {}
    for name, outcome in outcomes.items():
        stamped[name] = {}
        for label in outcome.inverted.ranked()[:_SHOWN_CLASSES]:
            first += shown
            stamped[name][label] = tuple(range(first, first + shown))
    return {"clean": tuple(range(shown)), "stamped": stamped}


def pictures(outcomes: Mapping[str, Outcome], images: ImageSet, seed: int) -> NDArray[np.uint8]:
    """A few clean images, and the same ones under the triggers of the most suspicious classes, ``[M, H, W, C]``."""
    rows = np.random.default_rng(seed).permutation(len(images))[:_SHOWN_IMAGES]
    clean = np.asarray(images.pixels[np.sort(rows)])
    shown = [clean]
    for outcome in outcomes.values():
        for label in outcome.inverted.ranked()[:_SHOWN_CLASSES]:
            stamp: Stamp = outcome.inverted.distributions.get(label, outcome.inverted.triggers[label][0])
            shown.append(to_uint8(stamp.apply(to_float(clean), torch.Generator().manual_seed(seed))))
    return np.concatenate(shown)
