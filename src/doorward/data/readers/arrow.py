"""Hugging Face `datasets` as ``save_to_disk`` writes them: Arrow files, read without that library."""

from __future__ import annotations

import importlib.util
import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from doorward.core.errors import DoorwardError, NoSplitError, show
from doorward.core.images import ImageSet
from doorward.core.opening import read_json
from doorward.data.checks import guarded, name_labels, text_labels
from doorward.data.limits import MAX_ENCODED, MAX_IMAGES, MAX_NAME
from doorward.data.pictures import Pictures, files_state, read_pictures
from doorward.data.readers.decode import Data
from doorward.data.reading import Reading

_EXPECTED = "a folder of datasets.save_to_disk with columns image and label"
_IMAGES = ("image", "img")
_LABELS = ("label", "fine_label", "labels")
_MAX_NAMES = 2**20
_DICTIONARY, _BATCH, _COMPRESSION = 2, 3, 3  # of Arrow's Message.fbs: kinds of header; the field of a RecordBatch


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
    state, info = (read_json(folder / name, inside=folder) for name in ("state.json", "dataset_info.json"))
    if state.get("_indices_files"):
        raise DoorwardError(f"{show(folder)}: a selection by indices; expected it written out (flatten_indices())")
    entries = state.get("_data_files")
    if not isinstance(entries, list) or not entries:
        raise DoorwardError(f"{show(folder)}: no data files in state.json; expected {_EXPECTED}")
    files = [_inside(folder, entry) for entry in entries]
    columns = _schema(files[0])
    image, label = _column(_IMAGES, columns, folder), _column(_LABELS, columns, folder)
    values: list[Any] = []
    paths: list[Any] = []
    seen: dict[Any, Any] = {}
    for batch in _batches(files):
        if len(values) + batch.num_rows > MAX_IMAGES:
            raise DoorwardError(f"{show(folder)}: more than {MAX_IMAGES:,} rows; expected fewer")
        _check_label(batch.column(label).type, folder)
        values += [seen.setdefault(value, value) for value in batch.column(label).to_pylist()]
        pictures = batch.column(image)
        paths += _field(pictures, "path", folder) or [None] * len(pictures)
    if any(not isinstance(value, int | str) for value in seen):
        raise DoorwardError(f"{show(folder)}: labels that are neither numbers nor text; expected one per image")
    if long := next((value for value in seen if isinstance(value, str) and len(value) > MAX_NAME), None):
        raise DoorwardError(f"{show(folder)}: a label of {len(long):,} characters; expected at most {MAX_NAME}")
    numbers = all(isinstance(value, int) for value in values)
    labels = np.array(values, np.int64) if numbers else text_labels([str(value) for value in values])
    targets, classes = name_labels(labels, len(values), _class_names(info, label), folder)

    def items(many: int) -> Iterator[Sequence[Data]]:
        for batch in _batches(files):
            for start in range(0, batch.num_rows, many):
                found = _field(batch.column(image).slice(start, many), "bytes", folder) or []
                yield [(data or b"") if len(data or b"") <= MAX_ENCODED else b"" for data in found]

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
    """Record batches of all files in order, checked; the bytes stay in the files until they are used.

    `datasets` writes them plain. Packed ones tell how much memory they want: such files are refused.
    """
    import pyarrow as pa

    for file in files:
        with pa.memory_map(str(file)) as source:
            for message in pa.ipc.MessageReader.open_stream(source):
                if is_packed(message.metadata.to_pybytes()):
                    raise DoorwardError(
                        f"{show(file)}: compressed batches; expected plain ones, as datasets writes them"
                    )
        with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
            for batch in stream:
                batch.validate(full=True)  # lengths and offsets in a file of anyone's
                yield batch


def is_packed(metadata: bytes) -> bool:
    """Whether the metadata of an Arrow message (a FlatBuffer) tell of a batch whose buffers are compressed.

    Raises:
        ValueError: no such metadata.
    """

    def number(kind: str, at: int) -> int:
        if not 0 <= at <= len(metadata) - struct.calcsize(kind):
            raise ValueError("broken metadata")
        return int(struct.unpack_from(kind, metadata, at)[0])

    def field(table: int, which: int) -> int:
        """Where a field of a table stands; 0 where it has none."""
        known = table - number("<i", table)
        offset = number("<H", known + 4 + 2 * which) if 6 + 2 * which <= number("<H", known) else 0
        return table + offset if offset else 0

    message = number("<I", 0)
    kind, header = field(message, 1), field(message, 2)
    if not kind or not header:
        raise ValueError("metadata without a header")
    batch = header + number("<I", header)
    if metadata[kind] == _DICTIONARY:
        data = field(batch, 1)
        batch = data + number("<I", data) if data else 0
    return metadata[kind] in (_DICTIONARY, _BATCH) and bool(batch) and bool(field(batch, _COMPRESSION))


def _check_label(kind: Any, folder: Path) -> None:
    """Types of which every value takes room in the file: others have billions of rows in a few bytes."""
    import pyarrow as pa

    types = pa.types
    if not (types.is_integer(kind) or types.is_boolean(kind) or types.is_string(kind) or types.is_large_string(kind)):
        told = f"labels that are neither numbers nor text but {show(kind)}"
        raise DoorwardError(f"{show(folder)}: {told}; expected one per image")


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
        if kind.get_field_index(name) < 0:
            return None
        found = column.field(name)
        if found.type not in (pa.binary(), pa.large_binary(), pa.string(), pa.large_string(), pa.null()):
            raise DoorwardError(f"{show(folder)}: {name} of images of type {show(found.type)}; expected bytes or text")
        return found.to_pylist()
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
