"""The attack and the truth on disk, apart from the images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from doorward.attacks.plan import Attack, Pairing
from doorward.attacks.poison import Truth
from doorward.attacks.warp import Warp
from doorward.core.errors import DoorwardError
from doorward.core.files import write_json
from doorward.core.opening import read_json
from doorward.core.tables import read_parquet, write_parquet
from doorward.core.tensors import read_tensors
from doorward.core.triggers import Stamp, Trigger


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
    about = read_json(folder / "attack.json")
    try:
        pairings = []
        for entry in about["pairings"]:
            file = folder / Path(str(entry["stamp"])).name  # stays inside the folder
            sources = None if entry["sources"] is None else tuple(int(s) for s in entry["sources"])
            target = None if entry["target"] is None else int(entry["target"])
            pairings.append(Pairing(_load_stamp(file, str(entry["kind"])), target, sources))
        return Attack(str(about["recipe"]), tuple(pairings))
    except (KeyError, TypeError, ValueError) as error:
        raise DoorwardError(f"{folder / 'attack.json'}: {error!r}; expected an attack written by doorward") from None


def _load_stamp(path: Path, kind: str) -> Stamp:
    if kind == "trigger":
        return Trigger.load(path)
    tensors = read_tensors(path)
    if "warp" not in tensors:
        raise DoorwardError(f"{path}: holds no warp; expected a warp written by doorward")
    return Warp(tensors["warp"])


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
