"""Parquet tables through DuckDB, which is shut off from everything but the files given."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from doorward.core.errors import DoorwardError, show
from doorward.core.images import ImageSet
from doorward.data.cache import file_state, fingerprint
from doorward.data.checks import guarded, name_labels, text_labels
from doorward.data.pictures import Pictures, read_pictures
from doorward.data.readers.decode import Data
from doorward.data.readers.tables import read_rows
from doorward.data.reading import Reading

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_EXPECTED = "Parquet with columns path and label, or image (bytes) and label"
_IMAGES = ("image", "img")
_LABELS = ("label", "fine_label", "labels")
_KEYS = ("id", "key", "name", "file_name", "filename", "path")


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


def read_parquet(files: Sequence[Path], where: Path, reading: Reading) -> ImageSet:
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
            return read_rows(files[0], paths, labels, reading, _class_names(connection, names[0], label))
        image = _image_bytes(columns, where)
        targets, classes = name_labels(
            *_labels(connection, names, label, where), _class_names(connection, names[0], label), where
        )
        return read_pictures(_pictures(connection, names, columns, image, targets, classes, where), reading)


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


def _pictures(
    connection: DuckDBPyConnection,
    names: list[str],
    columns: dict[str, str],
    image: str,
    labels: NDArray[np.int64],
    classes: Sequence[str],
    where: Path,
) -> Pictures:
    def items(many: int) -> Iterator[Sequence[Data]]:
        cursor = _fetch(connection.cursor(), image, names)
        while rows := cursor.fetchmany(many):
            yield [_some(row[0]) for row in rows]

    def state() -> tuple[str, int]:
        found = file_state(map(Path, names))
        return fingerprint(found), sum(size for _, size, _, _ in found)

    return Pictures(where, labels, classes, _ids(connection, names, columns, image), items, state)


def _ids(connection: DuckDBPyConnection, names: list[str], columns: dict[str, str], image: str) -> Sequence[str]:
    """The column with the rows' names, or the file names beside the image bytes; empty where neither is there."""
    known = [_quoted(name) for name in _KEYS if columns.get(name) in ("VARCHAR", "BIGINT", "INTEGER")]
    if image.endswith('."bytes"') and "path VARCHAR" in columns[_column(_IMAGES, columns, Path(names[0]))].replace(
        '"', ""
    ):
        known.append(image.removesuffix('"bytes"') + '"path"')
    elif columns.get("image.path") == "VARCHAR":
        known.append('"image.path"')
    for expression in known:
        found = [row[0] for row in _fetch(connection, f"{expression}::VARCHAR", names).fetchall()]
        if None not in found and "" not in found and len(set(found)) == len(found):
            return found
    return ()


def _some(found: object) -> bytes:
    """The bytes of one image; none where there are none, which no decoder takes for a picture."""
    return bytes(found) if isinstance(found, bytes | bytearray) else b""
