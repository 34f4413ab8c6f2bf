"""The files of a folder in Hugging Face's layout, looked at before transformers opens them by their names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from doorward.core.errors import DoorwardError, show
from doorward.core.opening import check_file, read_json
from doorward.core.tensors import read_header

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_CONFIG, _PREPARATION = "config.json", "preprocessor_config.json"
_MOST_SHARDS = 1000
_MOST_PARTS, _MOST_NUMBER = 4096, 10_000_000  # layers of a net; anything else that a configuration counts
_OF_PARTS = (
    "layer",
    "depth",
    "block",
    "stage",
    "repeat",
    "expert",
)  # in names of settings that say how many parts a net has


def read_config(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """``config.json`` and ``preprocessor_config.json`` of a folder, the second empty where there is none.

    Raises:
        DoorwardError: see `read_json`; a net of more parts than any has; weights that are to be quantised.
    """
    path = folder / _CONFIG
    config = read_json(path, inside=folder)
    beside = folder / _PREPARATION
    seen = read_json(beside, inside=folder) if beside.exists() else {}
    if config.get("quantization_config") is not None:
        raise DoorwardError(f"{path}: quantization_config; expected weights as plain numbers")
    _check_counts(config, path)
    return config, seen


def weight_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of a folder, whose files are regular, inside it, and whole.

    Raises:
        DoorwardError: the file that is none of this.
    """
    if (folder / WEIGHTS[0]).exists():
        return dict(read_header(folder / WEIGHTS[0], inside=folder).shapes)
    index = folder / WEIGHTS[1]
    named = read_json(index, inside=folder).get("weight_map")
    files = sorted(set(named.values())) if isinstance(named, dict) and _are_names(named.values()) else []
    if not files or len(files) > _MOST_SHARDS:
        expected = f"expected weight_map with the names of up to {_MOST_SHARDS:,} files beside it"
        raise DoorwardError(f"{index}: {len(files):,} files of weights; {expected}")
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        shapes |= read_header(folder / file, inside=folder).shapes
    return shapes


def check_beside(folder: Path) -> None:
    """Refuse links out of the folder, pipes and devices among the files that transformers may look for.

    Raises:
        DoorwardError: the file.
    """
    for path in folder.iterdir():
        if path.suffix in (".json", ".safetensors", ".jinja", ".txt") and (path.is_symlink() or not path.is_dir()):
            check_file(path, inside=folder)


def _are_names(values: Any) -> bool:
    return all(isinstance(v, str) and v == Path(v).name and v.endswith(".safetensors") for v in values)


def _check_counts(config: Mapping[str, Any], path: Path) -> None:
    for name, value in config.items():
        if isinstance(value, Mapping) and name not in ("id2label", "label2id"):
            _check_counts(value, path)
            continue
        numbers = [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, int | float)]
        most = _MOST_PARTS if any(part in name.lower() for part in _OF_PARTS) else _MOST_NUMBER
        if sum(map(abs, numbers)) > most or len(numbers) > _MOST_PARTS:
            raise DoorwardError(f"{path}: {show(name)} {show(value)}; expected at most {most:,}")
