"""Rows of results: picked, pooled, written as Markdown and Parquet; what every reproduced paper does with them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from doorward.core.results import RateRecord
from doorward.core.stats import Rate
from doorward.core.tables import read_parquet, write_parquet
from doorward.inversion.results import InvertRecord

Row = dict[str, Any]


def pick(rows: Sequence[Row], **wanted: object) -> list[Row]:
    """The rows that have these values."""
    return [r for r in rows if all(r[k] == v for k, v in wanted.items())]


def rate_row(name: str, rate: RateRecord | None) -> Row:
    """A rate as two columns."""
    return {f"{name}_hits": rate.hits if rate else 0, f"{name}_trials": rate.trials if rate else 0}


def in_tables(record: InvertRecord) -> str:
    """The verdict of an inversion in one word for both kinds of finding, as the published tables have it."""
    return "backdoor" if record.targets else record.judgement.level


def pooled(rows: Sequence[Row], name: str) -> Rate:
    """The rate ``name`` over several rows: hits and trials added up."""
    return Rate(sum(r[f"{name}_hits"] for r in rows), sum(r[f"{name}_trials"] for r in rows))


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table, and an empty one."""
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows), ""]


def write_rows(path: Path, rows: Sequence[Row], whole: Collection[str]) -> None:
    """Write rows as Parquet: text where all is text, whole numbers for ``whole``, *_hits and *_trials, else floats."""
    columns = {}
    for name in dict.fromkeys(key for row in rows for key in row):
        values = [row.get(name) for row in rows]
        if all(isinstance(v, str) for v in values):
            columns[name] = np.array(values)
        elif name in whole or name.endswith(("_hits", "_trials")):
            columns[name] = np.array(values, np.int64)
        else:
            columns[name] = np.array([np.nan if v is None else v for v in values], np.float64)
    write_parquet(path, columns)


def read_rows(path: Path) -> list[Row]:
    """Rows as `write_rows` wrote them, None for what was not there; no rows when there is no such file."""
    if not path.exists():
        return []
    columns = {name: [_value(v) for v in values.tolist()] for name, values in read_parquet(path).items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _value(value: object) -> object:
    return None if isinstance(value, float) and np.isnan(value) else value
