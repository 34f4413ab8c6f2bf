"""The attack and the truth on disk, apart from the images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from doorward.attacks.plan import Attack, Pairing
from doorward.attacks.poison import Truth
from doorward.attacks.warp import Warp
from doorward.core.errors import DoorwardError, brief, show
from doorward.core.files import write_json
from doorward.core.opening import read_json
from doorward.core.tables import read_parquet, write_parquet
from doorward.core.tensors import SMALL, read_tensors
from doorward.core.triggers import Stamp, Trigger, check_floats


def save_attack(attack: Attack, folder: Path | str) -> None:
    """Write ``attack.json`` and one safetensors file per stamp into ``folder``."""
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    pairings: list[dict[str, Any]] = []
    for index, pairing in enumerate(attack.pairings):
        stamp = pairing.stamp
        if not isinstance(stamp, Trigger | Warp):
            raise DoorwardError(f"attack: a stamp of type {type(stamp).__name__} cannot be saved")
        name = f"stamp_{index}.safetensors"
        stamp.save(folder / name)
        kind = "warp" if isinstance(stamp, Warp) else "trigger"
        pairings.append({"stamp": name, "kind": kind, "target": pairing.target, "sources": pairing.sources})
    write_json(folder / "attack.json", {"recipe": attack.recipe, "pairings": pairings})


def load_attack(folder: Path | str) -> Attack:
    """Read an attack that `save_attack` wrote."""
    folder = Path(folder)
    about = read_json(folder / "attack.json", inside=folder)
    pairings, recipe = about.get("pairings"), about.get("recipe")
    if not isinstance(pairings, list) or not pairings or not isinstance(recipe, str):
        raise DoorwardError(f"{folder / 'attack.json'}: no recipe or pairings; expected an attack written by doorward")
    return Attack(recipe, tuple(_load_pairing(folder, entry) for entry in pairings))


def _load_pairing(folder: Path, entry: Any) -> Pairing:
    try:
        stamp, kind, target, sources = (entry[k] for k in ("stamp", "kind", "target", "sources"))
        if kind not in ("trigger", "warp") or not isinstance(stamp, str) or not _is_label(target, or_none=True):
            raise ValueError(f"stamp {stamp!r}, kind {kind!r}, target {target!r}")
        if sources is not None and not (isinstance(sources, list) and sources and all(map(_is_label, sources))):
            raise ValueError(f"sources {sources!r}")
    except (KeyError, TypeError, ValueError) as error:
        told = f"{folder / 'attack.json'}: a pairing with {brief(error)}"
        raise DoorwardError(f"{told}; expected an attack written by doorward") from None
    path = folder / Path(stamp).name  # stays inside the folder
    return Pairing(_load_stamp(path, kind, folder), target, None if sources is None else tuple(sources))


def _is_label(value: Any, or_none: bool = False) -> bool:
    return (value is None and or_none) or (type(value) is int and 0 <= value < 2**31)


def _load_stamp(path: Path, kind: str, folder: Path) -> Stamp:
    if kind == "trigger":
        return Trigger.load(path, inside=folder)
    field = read_tensors(path, inside=folder, most=SMALL).get("warp")
    try:
        if field is None or field.ndim != 3 or len(field) != 2:
            raise ValueError("no field [2, height, width]")
        check_floats(field, "warp")
    except ValueError as error:
        raise DoorwardError(f"{show(path)}: {error}; expected a warp written by doorward") from None
    return Warp(field.float())


def save_truth(truth: Truth, path: Path | str) -> None:
    """Write ``truth.parquet``: index, poisoned, original_label, stamp, source_index."""
    write_parquet(path, {"index": np.arange(len(truth.poisoned)), **vars(truth)})


def load_truth(path: Path | str) -> Truth:
    """Read a truth that `save_truth` wrote."""
    columns = read_parquet(path)
    missing = {"poisoned", "original_label", "stamp", "source_index"} - set(columns)
    if missing:
        raise DoorwardError(
            f"{path}: has no column {sorted(missing)[0]!r}; expected a truth.parquet of 'doorward attack'"
        )
    return Truth(
        columns["poisoned"].astype(bool),
        columns["original_label"].astype(np.int64),
        columns["stamp"].astype(np.int64),
        columns["source_index"].astype(np.int64),
    )
