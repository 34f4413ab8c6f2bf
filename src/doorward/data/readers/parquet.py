"""Parquet tables through DuckDB, which is shut off from everything but the files given."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from doorward.core.errors import DoorwardError, show
from doorward.core.images import ImageSet
from doorward.core.tables import locked, longest
from doorward.data.cache import file_state, fingerprint
from doorward.data.checks import guarded, name_labels, text_labels
from doorward.data.limits import MAX_CLASSES, MAX_ENCODED, MAX_NAME, MAX_PATH, MAX_TOGETHER, most_unpacked
from doorward.data.pictures import Pictures, read_pictures
from doorward.data.readers.decode import Data
from doorward.data.readers.tables import read_rows
from doorward.data.reading import Reading

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_EXPECTED = "Parquet with columns path and label, or image (bytes) and label"
_IMAGES = ("image", "img")
_LABELS = ("label", "fine_label", "labels")
_TOLD = {"FLOAT": "float", "DOUBLE": "float"}
_VECTOR = 2048  # rows that DuckDB hands over at once
_ROWS = 65_536
_KEYS = ("id", "key", "name", "file_name", "filename", "path")


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
    if strange:  # DuckDB may take it for a pattern
        raise DoorwardError(f"{show(strange)}: a name with one of * ? [ ] {{ }}; expected a name without (rename it)")
    with guarded(where, _EXPECTED), locked(files) as connection:
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
            *_labels(connection, names, label, columns[label], where), _class_names(connection, names[0], label), where
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


def _rows(connection: DuckDBPyConnection, expressions: Sequence[str], names: list[str]) -> Iterator[tuple[Any, ...]]:
    """The rows of these columns, so many at a time, for a table of Python's own would take ten times its memory."""
    cursor = _fetch(connection.cursor(), ", ".join(expressions), names)
    while rows := cursor.fetchmany(_ROWS):
        yield from rows


def _check_text(connection: DuckDBPyConnection, expression: str, names: list[str], what: str, most: int) -> None:
    """Refuse long cells before any is copied: a column of one long value takes no room in the file."""
    found, _ = longest(connection, [expression], names)
    if found > most:
        raise DoorwardError(f"{show(names[0])}: a {what} of {found:,} characters; expected at most {most:,}")


def _manifest(connection: DuckDBPyConnection, names: list[str], label: str) -> tuple[list[str], list[str]]:
    columns = ('"path"', _quoted(label))
    _check_text(connection, columns[0], names, "path", MAX_PATH)
    _check_text(connection, columns[1], names, "label", MAX_NAME)
    paths, labels, known = [], [], dict[str, str]()
    for index, row in enumerate(_rows(connection, [f"{c}::VARCHAR" for c in columns], names)):
        if None in row:
            raise DoorwardError(f"{show(names[0])}: row {index} has no path or no label; expected both")
        paths.append(row[0])
        labels.append(known.setdefault(row[1], row[1]))  # every class name once
    return paths, labels


def _labels(
    connection: DuckDBPyConnection, names: list[str], label: str, kind: str, where: Path
) -> tuple[NDArray[Any], int]:
    text = kind == "VARCHAR"
    if not text and not (kind.endswith(("INT", "INTEGER")) or kind == "BOOLEAN"):
        raise DoorwardError(f"{show(where)}: labels of type {_TOLD.get(kind, show(kind))}; expected integers or text")
    if text:
        _check_text(connection, _quoted(label), names, "label", MAX_NAME)
    known: dict[Any, Any] = {}
    values = [known.setdefault(row[0], row[0]) for row in _rows(connection, [_quoted(label)], names)]
    if None in known:
        raise DoorwardError(f"{show(where)}: row {values.index(None)} has no label; expected one per image")
    if text:
        return text_labels(values), len(values)
    if known and not 0 <= min(known) <= max(known) < MAX_CLASSES:
        wrong = min(known) if min(known) < 0 else max(known)
        raise DoorwardError(f"{show(where)}: label {wrong}; expected labels from 0 to {MAX_CLASSES - 1}")
    return np.array(values, dtype=np.int64), len(values)


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
        _check_pictures(connection, image, names)
        cursor = _fetch(connection.cursor(), image, names)
        while rows := cursor.fetchmany(many):
            yield [_some(row[0]) for row in rows]

    def state() -> tuple[str, int]:
        found = file_state(map(Path, names))
        return fingerprint(found), sum(size for _, size, _, _ in found)

    return Pictures(where, labels, classes, _ids(connection, names, columns, image), items, state)


def _check_pictures(connection: DuckDBPyConnection, image: str, names: list[str]) -> None:
    """Refuse pictures that unpack to far more than the files hold: DuckDB copies 2,048 rows at once, however large."""
    most = most_unpacked(sum(Path(name).stat().st_size for name in names))
    found = connection.execute(
        "SELECT max(largest), sum(held), max(held) FROM (SELECT max(octet_length(i)) AS largest, sum(octet_length(i)) "
        f"AS held FROM (SELECT {image} AS i, filename AS f, file_row_number // {_VECTOR} AS part FROM "
        "read_parquet($files, file_row_number = true, filename = true)) GROUP BY f, part)",
        {"files": names},
    )
    largest, held, together = (int(n or 0) for n in found.fetchall()[0])
    if largest > MAX_ENCODED:
        raise DoorwardError(f"{show(names[0])}: a picture of {largest:,} bytes; expected at most {MAX_ENCODED:,}")
    if held > most:
        raise DoorwardError(f"{show(names[0])}: pictures of {held:,} bytes in all; expected at most {most:,}, a bomb")
    if together > MAX_TOGETHER:
        raise DoorwardError(
            f"{show(names[0])}: {_VECTOR} rows with pictures of {together:,} bytes; expected at most {MAX_TOGETHER:,} "
            "(a folder of files, or WebDataset shards, may hold them)"
        )


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
        _check_text(connection, expression, names, "name of an image", MAX_PATH)
        found = [row[0] for row in _rows(connection, [f"{expression}::VARCHAR"], names)]
        if None not in found and "" not in found and len(set(found)) == len(found):
            return found
    return ()


def _some(found: object) -> bytes:
    """The bytes of one image; none where there are none, which no decoder takes for a picture."""
    return bytes(found) if isinstance(found, bytes | bytearray) else b""
