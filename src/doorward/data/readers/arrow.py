"""Hugging Face `datasets` as ``save_to_disk`` writes them: Arrow files, read without that library."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from doorward.core.errors import DoorwardError, NoSplitError, show
from doorward.core.images import ImageSet
from doorward.core.opening import read_json
from doorward.data.checks import guarded, name_labels, text_labels
from doorward.data.pictures import Pictures, files_state, read_pictures
from doorward.data.readers.decode import Data
from doorward.data.reading import Reading

_EXPECTED = "a folder of datasets.save_to_disk with columns image and label"
_IMAGES = ("image", "img")
_LABELS = ("label", "fine_label", "labels")
_MAX_NAMES = 2**20


def is_saved_dataset(names: Sequence[str]) -> bool:
    """True for the names in a folder that ``save_to_disk`` wrote."""
    return "dataset_dict.json" in names or {"state.json", "dataset_info.json"} <= set(names)


def read_saved_dataset(path: Path, names: Sequence[str], reading: Reading) -> ImageSet:
    """Read a `Dataset`, or the split of a `DatasetDict`; needs pyarrow.

    Raises:
        DoorwardError: no pyarrow, other columns, images that are only paths to elsewhere, a selection that was not
            written out.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise DoorwardError(f"{show(path)}: Arrow files need pyarrow; expected it (pip install 'doorward[arrow]')")
    if "dataset_dict.json" in names:
        folder = path / reading.split
        if not (folder / "state.json").is_file():
            raise NoSplitError(f"{show(path)}: holds no split {reading.split!r}; expected a folder of that name")
    elif reading.split == "test":
        raise NoSplitError(f"{show(path)}: holds one set; expected split 'train', which is all of it")
    else:
        folder = path
    with guarded(folder, _EXPECTED):
        return _read(folder, reading)


def _read(folder: Path, reading: Reading) -> ImageSet:
    state, info = read_json(folder / "state.json"), read_json(folder / "dataset_info.json")
    if state.get("_indices_files"):
        raise DoorwardError(f"{show(folder)}: a selection by indices; expected it written out (flatten_indices())")
    files = [_inside(folder, entry) for entry in state["_data_files"]]
    columns = _schema(files[0])
    image, label = _column(_IMAGES, columns, folder), _column(_LABELS, columns, folder)
    values: list[Any] = []
    paths: list[Any] = []
    for batch in _batches(files):
        values += batch.column(label).to_pylist()
        pictures = batch.column(image)
        paths += _field(pictures, "path", folder) or [None] * len(pictures)
    if any(not isinstance(value, int | str) for value in values):
        raise DoorwardError(f"{show(folder)}: labels that are neither numbers nor text; expected one per image")
    numbers = all(isinstance(value, int) for value in values)
    labels = np.array(values, np.int64) if numbers else text_labels([str(value) for value in values])
    targets, classes = name_labels(labels, len(values), _class_names(info, label), folder)

    def items(many: int) -> Iterator[Sequence[Data]]:
        for batch in _batches(files):
            for start in range(0, batch.num_rows, many):
                found = _field(batch.column(image).slice(start, many), "bytes", folder) or []
                yield [data or b"" for data in found]

    known = all(isinstance(p, str) and p for p in paths) and len(set(paths)) == len(paths)
    ids = paths if known else ()
    pictures_of = Pictures(
        folder, targets, classes, ids, items, lambda: files_state(folder, [f.name for f in files]), {}
    )
    return read_pictures(pictures_of, reading)


def _inside(folder: Path, entry: dict[str, str]) -> Path:
    name = entry["filename"]
    file = folder / name
    if Path(name).name != name or file.is_symlink() or not file.is_file():
        raise DoorwardError(f"{show(folder)}: data file {show(name)!r}; expected a file in this folder")
    return file


def _batches(files: Sequence[Path]) -> Iterator[Any]:
    """Record batches of all files in order, checked; the bytes stay in the files until they are used."""
    import pyarrow as pa

    for file in files:
        with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
            for batch in stream:
                batch.validate(full=True)  # lengths and offsets in a file of anyone's
                yield batch


def _schema(file: Path) -> list[str]:
    import pyarrow as pa

    with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
        return [str(name) for name in stream.schema.names]


def _column(wanted: Sequence[str], columns: Sequence[str], folder: Path) -> str:
    found = next((name for name in wanted if name in columns), None)
    if found is None:
        raise DoorwardError(f"{show(folder)}: columns {show(', '.join(columns))}; expected {_EXPECTED}")
    return found


def _field(column: Any, name: str, folder: Path) -> list[Any] | None:
    """A field of the image column as Python values; None where it has no such field."""
    import pyarrow as pa

    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    kind = column.type
    if pa.types.is_struct(kind):
        return column.field(name).to_pylist() if kind.get_field_index(name) >= 0 else None
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return column.to_pylist() if name == "bytes" else None
    raise DoorwardError(f"{show(folder)}: images of type {show(kind)}; expected bytes, or a struct with bytes")


def _class_names(info: dict[str, Any], label: str) -> list[str] | None:
    features = info.get("features")
    found = features.get(label) if isinstance(features, dict) else None
    names = found.get("names") if isinstance(found, dict) else None
    if isinstance(names, list) and all(isinstance(n, str) for n in names) and len(json.dumps(names)) < _MAX_NAMES:
        return names
    return None
