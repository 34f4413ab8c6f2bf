"""Results of several folders of runs in one: cases that lie in the results already and were not run here are kept.

A training takes most of an hour on a CPU, so the cases of one table may come from several machines and days.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from doorward.core.files import write_json
from doorward.core.opening import read_json
from doorward.jobs.stages import refuse_other
from doorward.papers.rows import Row, read_rows

MANIFEST = "made-with.json"

Rows = Mapping[str, list[Row]]


class Reproduced(Protocol):
    """A plan: what all its runs share, and the command that repeats it."""

    @property
    def command(self) -> str:
        """For people."""
        ...

    def manifest(self) -> dict[str, Any]:
        """What all its runs share."""
        ...


def check_results(plan: Reproduced, results: Path) -> list[str]:
    """Refuse a folder whose results were made with other settings; returns the commands that it was made with.

    Raises:
        OutputExistsError: what all runs share differs.
    """
    manifest = results / MANIFEST
    if not manifest.exists():
        return []
    known = read_json(manifest)
    refuse_other(f"{results}: results made with", known, plan.manifest(), "another --results")
    return [str(command) for command in known.get("commands", [])]


def with_kept(
    plan: Reproduced, tables: Rows, results: Path, key: Sequence[str], order: Callable[[Row], Any]
) -> tuple[dict[str, list[Row]], int, list[str]]:
    """The rows of this run and those of cases that only the earlier results have; the folder is claimed for the plan.

    Args:
        tables: rows by the name of their file.
        key: columns that name a case in every table; a case's rows all come from one folder of runs.
        order: of rows; those that are equal stay in the order they had.

    Returns: rows by name, how many cases were kept, and every command that went into them, the oldest first.

    Raises:
        OutputExistsError: see `check_results`.
    """

    def case(row: Row) -> tuple[Any, ...]:
        return tuple(row[column] for column in key)

    joined, kept = dict(tables), set[tuple[Any, ...]]()
    commands = check_results(plan, results)
    if commands:
        here = {case(row) for rows in tables.values() for row in rows}
        for name, rows in tables.items():
            earlier = [row for row in read_rows(results / f"{name}.parquet") if case(row) not in here]
            joined[name] = sorted([*earlier, *rows], key=order)
            kept |= {case(row) for row in earlier}
    commands = list(dict.fromkeys([*commands, plan.command]))
    results.mkdir(parents=True, exist_ok=True)
    write_json(results / MANIFEST, {**plan.manifest(), "commands": commands})
    return joined, len(kept), commands
