"""Parquet tables through DuckDB, which is shut off from everything but the files given."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.data.assemble import assemble
from doorward.data.cache import file_state
from doorward.data.checks import guarded, name_labels, show, text_labels
from doorward.data.readers.decode import decode_into, probe
from doorward.data.readers.tables import read_rows

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_EXPECTED = "Parquet with columns path and label, or image (bytes) and label"
_IMAGES = ("image", "img")
_LABELS = ("label", "fine_label", "labels")
_BATCH = 1024


@contextmanager
def _locked(files: Sequence[Path]) -> Iterator[DuckDBPyConnection]:
    """A connection that can open these files and nothing else: no network, no other path, no extension."""
    import duckdb

    allowed = ", ".join("'" + str(file).replace("'", "''") + "'" for file in files)
    with duckdb.connect(
        ":memory:", config={"autoinstall_known_extensions": False, "autoload_known_extensions": False}
    ) as connection:
        connection.execute("SET enable_progress_bar = false")
        connection.execute(f"SET allowed_paths = [{allowed}]")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        yield connection


def read_parquet(files: Sequence[Path], where: Path) -> ImageSet:
    """Read one Parquet file, or the parts of one table in order.

    Two layouts: a manifest (``path``, ``label``), or images inside the table as the Hugging Face Hub has them
    (``image`` or ``img``: a struct with ``bytes``, or the bytes themselves; ``label`` or ``fine_label``: integer or
    text; class names from the Hub's own metadata where they are there).

    Raises:
        DoorwardError: other columns, missing values, images that cannot be decoded or differ in size or mode.
    """
    files = [file.absolute() for file in files]
    strange = next((file for file in files if any(c in str(file) for c in "*?[]{}")), None)
    if strange:
        raise DoorwardError(f"{show(strange)}: a name with one of * ? [ ] {{ }}; expected a name without (rename it)")
    with guarded(where, _EXPECTED), _locked(files) as connection:
        names = [str(file) for file in files]
        columns = {
            str(row[0]): str(row[1])
            for row in connection.execute("DESCRIBE SELECT * FROM read_parquet($files)", {"files": names}).fetchall()
        }
        label = _column(_LABELS, columns, where)
        if "path" in columns and not any(name in columns for name in (*_IMAGES, "image.bytes")):
            if len(files) > 1:
                raise DoorwardError(f"{show(where)}: {len(files)} manifests; expected one Parquet file")
            paths, labels = _manifest(connection, names, label)
            return read_rows(files[0], paths, labels, _class_names(connection, names[0], label))
        image = _image_bytes(columns, where)
        targets, classes = name_labels(
            *_labels(connection, names, label, where), _class_names(connection, names[0], label), where
        )
        return _images(connection, names, image, targets, classes, where)


def _quoted(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def _column(wanted: Sequence[str], columns: dict[str, str], where: Path) -> str:
    for name in wanted:
        if name in columns:
            return name
    raise DoorwardError(f"{show(where)}: columns {show(', '.join(columns))}; expected {_EXPECTED}")


def _image_bytes(columns: dict[str, str], where: Path) -> str:
    """The SQL expression of the image bytes."""
    if columns.get("image.bytes") == "BLOB":
        return '"image.bytes"'
    name = _column(_IMAGES, columns, where)
    kind = columns[name]
    if kind == "BLOB":
        return _quoted(name)
    if kind.startswith("STRUCT(") and "bytes BLOB" in kind.replace('"', ""):
        return f'{_quoted(name)}."bytes"'
    raise DoorwardError(f"{show(where)}: column {name} of type {show(kind)}; expected bytes, or a struct with bytes")


def _fetch(connection: DuckDBPyConnection, expression: str, names: list[str], more: str = "") -> DuckDBPyConnection:
    return connection.execute(f"SELECT {expression} FROM read_parquet($files) {more}", {"files": names})


def _manifest(connection: DuckDBPyConnection, names: list[str], label: str) -> tuple[list[str], list[str]]:
    rows = _fetch(connection, f'"path"::VARCHAR, {_quoted(label)}::VARCHAR', names).fetchall()
    for index, row in enumerate(rows):
        if None in row:
            raise DoorwardError(f"{show(names[0])}: row {index} has no path or no label; expected both")
    return [row[0] for row in rows], [row[1] for row in rows]


def _labels(connection: DuckDBPyConnection, names: list[str], label: str, where: Path) -> tuple[NDArray[Any], int]:
    values = [row[0] for row in _fetch(connection, _quoted(label), names).fetchall()]
    if None in values:
        raise DoorwardError(f"{show(where)}: row {values.index(None)} has no label; expected one per image")
    if values and all(isinstance(value, str) for value in values):
        return text_labels(values), len(values)
    if not all(isinstance(value, int) for value in values):
        raise DoorwardError(f"{show(where)}: labels of type {type(values[0]).__name__}; expected integers or text")
    return np.array(values or [], dtype=np.int64), len(values)


def _class_names(connection: DuckDBPyConnection, file: str, label: str) -> list[str] | None:
    """Class names from the metadata that the `datasets` library writes, when they are there."""
    found = connection.execute("SELECT value FROM parquet_kv_metadata($file) WHERE key = 'huggingface'", {"file": file})
    with suppress(ValueError, LookupError, TypeError, RecursionError):
        names = json.loads(found.fetchall()[0][0])["info"]["features"][label]["names"]
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return names
    return None


def _images(
    connection: DuckDBPyConnection,
    names: list[str],
    image: str,
    labels: NDArray[np.int64],
    classes: Sequence[str],
    where: Path,
) -> ImageSet:
    def called(row: int) -> str:
        return f"{show(where)}: row {row}"

    first = (_fetch(connection, image, names, "LIMIT 1").fetchone() or (None,))[0]
    look = probe(called(0), _some(first, called(0)))

    def fill(target: NDArray[np.uint8]) -> None:
        cursor, done = _fetch(connection, image, names), 0
        while rows := cursor.fetchmany(_BATCH):
            if done + len(rows) > len(target):
                raise DoorwardError(f"{show(where)}: changed while it was read; expected a file that stays as it is")
            items = [(called(done + i), _some(row[0], called(done + i))) for i, row in enumerate(rows)]
            decode_into(target[done : done + len(rows)], items, look, called(0))
            done += len(rows)
        if done != len(target):
            raise DoorwardError(f"{show(where)}: changed while it was read; expected a file that stays as it is")

    return assemble(
        where, (len(labels), look.height, look.width, look.channels), labels, classes, fill,
        key=lambda: file_state(map(Path, names)), notes=[look.note] if look.note else [],
    )  # fmt: skip


def _some(found: object, where: str) -> bytes:
    if not isinstance(found, bytes | bytearray) or not found:
        raise DoorwardError(f"{where}: holds no image bytes; expected the bytes of an image file")
    return bytes(found)
