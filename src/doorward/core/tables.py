"""Parquet through DuckDB, NumPy columns in and out; and CSV for people."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doorward.core.errors import DoorwardError, writing_failed
from doorward.core.files import atomic_write

Columns = Mapping[str, NDArray[Any]]


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


def read_parquet(path: Path | str) -> dict[str, NDArray[Any]]:
    """All columns of a Parquet file; NULL becomes NaN in float columns and 0 elsewhere."""
    import duckdb

    try:
        with duckdb.connect() as connection:
            found = connection.execute("SELECT * FROM read_parquet(?)", [str(path)]).fetchnumpy()
    except (duckdb.Error, OSError) as error:
        line = str(error).splitlines()[0]
        raise DoorwardError(f"{path}: {line}; expected a Parquet file written by doorward") from None
    return {name: _plain(values) for name, values in found.items()}


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    if np.ma.isMaskedArray(values):
        return np.ma.filled(values, np.nan if values.dtype.kind == "f" else 0)  # type: ignore[no-any-return]
    return np.asarray(values)
