"""Parquet through DuckDB, NumPy columns in and out; and CSV for people."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from doorward.core.errors import DoorwardError, show, writing_failed
from doorward.core.files import atomic_write
from doorward.core.opening import check_file

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Columns = Mapping[str, NDArray[Any]]

MAX_ROWS = 10_000_000
MAX_CELL = 4096  # characters, as long as a path can be
_FEW_ROWS = 1_000_000  # that a table may have whatever its size
_ROWS_PER_BYTE = 8  # beyond that: columns of one value take next to nothing, and a table of images has others
_MAX_CELLS = 2**28  # of a table that is read whole
_MAX_TEXT = 2**30  # characters of all its cells
_MEMORY = "4GiB"  # that DuckDB may hold
_PLAIN = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|FLOAT|DOUBLE|BOOLEAN|VARCHAR|DECIMAL\([\d,]+\)")


def write_parquet(path: Path | str, columns: Columns) -> None:
    """Write columns of equal length; the file is whole or absent."""
    import duckdb

    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) != 1:
        raise DoorwardError(f"{path}: columns of lengths {lengths}; expected one length")

    def save(temporary: Path) -> None:
        quoted = str(temporary).replace("'", "''")  # COPY takes no parameters
        try:
            with duckdb.connect() as connection:
                connection.register("columns", dict(columns))
                connection.execute(f"COPY columns TO '{quoted}' (FORMAT parquet, COMPRESSION zstd)")
        except duckdb.IOException as error:
            raise writing_failed(error, path) from None

    atomic_write(path, save)


def write_csv(path: Path | str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table with one line per row, whatever stands in its cells; the file is whole or absent."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(head)
    table.writerows(rows)
    atomic_write(path, text.getvalue())


@contextmanager
def locked(files: Sequence[Path]) -> Iterator[DuckDBPyConnection]:
    """A connection that can open these files and nothing else: no network, no other path, no extension.

    A name that could be a pattern is taken for a name, since the file is there.

    Raises:
        DoorwardError: something that is no regular file, or with too many rows for its size.
    """
    import duckdb

    size = sum(check_file(file) for file in files)
    allowed = ", ".join("'" + str(file).replace("'", "''") + "'" for file in files)
    with duckdb.connect(
        ":memory:", config={"autoinstall_known_extensions": False, "autoload_known_extensions": False}
    ) as connection:
        connection.execute("SET enable_progress_bar = false")
        connection.execute(f"SET memory_limit = '{_MEMORY}'")
        connection.execute(f"SET allowed_paths = [{allowed}]")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        _check_rows(connection, files, size)
        yield connection


def _check_rows(connection: DuckDBPyConnection, files: Sequence[Path], size: int) -> None:
    """What the metadata tell of the number of rows; columns of one value have millions in a few bytes."""
    names = {"files": [str(file) for file in files]}
    told = connection.execute("SELECT sum(num_rows), min(num_rows) FROM parquet_file_metadata($files)", names)
    rows, least = told.fetchall()[0]
    told = connection.execute(
        "SELECT sum(n), min(n) FROM (SELECT max(row_group_num_rows) AS n FROM parquet_metadata($files) "
        "GROUP BY file_name, row_group_id)", names,
    )  # fmt: skip
    in_groups, least_in_group = told.fetchall()[0]
    if min(least or 0, least_in_group or 0) < 0:
        raise DoorwardError(f"{show(files[0])}: a negative number of rows; expected a whole Parquet file")
    found, most = max(rows or 0, in_groups or 0), min(MAX_ROWS, max(_FEW_ROWS, _ROWS_PER_BYTE * size))
    if found > most:
        raise DoorwardError(f"{show(files[0])}: {found:,} rows in {size:,} bytes; expected at most {most:,}")


def longest(connection: DuckDBPyConnection, expressions: Sequence[str], files: Sequence[str]) -> tuple[int, int]:
    """Characters of the longest cell of these columns of text, and of all; nothing is copied to find out."""
    if not expressions:
        return 0, 0
    most = ", ".join(f"max(strlen({e}::VARCHAR)), sum(strlen({e}::VARCHAR))" for e in expressions)
    found = connection.execute(f"SELECT {most} FROM read_parquet($files)", {"files": list(files)}).fetchall()[0]
    return max(n or 0 for n in found[::2]), int(sum(n or 0 for n in found[1::2]))


def read_parquet(path: Path | str) -> dict[str, NDArray[Any]]:
    """All columns of a Parquet file; NULL becomes NaN in float columns and 0 elsewhere.

    Raises:
        DoorwardError: no Parquet file, columns of other values than numbers and text, more than a table of a run has.
    """
    import duckdb

    file = Path(path).absolute()
    try:
        with locked([file]) as connection:
            names = {"files": [str(file)]}
            described = connection.execute("DESCRIBE SELECT * FROM read_parquet($files)", names).fetchall()
            kinds = {str(row[0]): str(row[1]) for row in described}
            _check_table(connection, file, kinds)
            found = connection.execute("SELECT * FROM read_parquet($files)", names).fetchnumpy()
    except (duckdb.Error, OSError, RuntimeError, ValueError) as error:
        line = show(str(error).split("\n")[0])
        raise DoorwardError(f"{show(path)}: {line}; expected a Parquet file written by doorward") from None
    return {name: _plain(values) for name, values in found.items()}


def _check_table(connection: DuckDBPyConnection, file: Path, kinds: dict[str, str]) -> None:
    strange = next((name for name, kind in kinds.items() if not _PLAIN.fullmatch(kind)), None)
    if strange is not None:
        raise DoorwardError(f"{show(file)}: column {show(strange)} of {show(kinds[strange])}; expected numbers or text")
    rows = connection.execute("SELECT count(*) FROM read_parquet($files)", {"files": [str(file)]}).fetchall()[0][0]
    if rows * len(kinds) > _MAX_CELLS:
        raise DoorwardError(
            f"{show(file)}: {rows:,} rows of {len(kinds)} columns; expected {_MAX_CELLS:,} cells or less"
        )
    text = ['"' + name.replace('"', '""') + '"' for name, kind in kinds.items() if kind == "VARCHAR"]
    cell, all_cells = longest(connection, text, [str(file)])
    if cell > MAX_CELL or all_cells > _MAX_TEXT:
        raise DoorwardError(
            f"{show(file)}: text of {cell:,} characters in one cell, {all_cells:,} in all; expected at most "
            f"{MAX_CELL:,} and {_MAX_TEXT:,}"
        )


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    if np.ma.isMaskedArray(values):
        return np.ma.filled(values, np.nan if values.dtype.kind == "f" else 0)  # type: ignore[no-any-return]
    return np.asarray(values)
