"""What every benchmark does with its figures: print them, and write them with the machine they come from."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from doorward.core.results import LEVELS
from doorward.jobs.tasks import Arrays, Item, Task, run_tasks
from doorward.papers.rows import Row, read_rows, write_rows

RESULTS = Path(__file__).resolve().parent.parent / "results"


def machine() -> str:
    """Processor and versions, without the name of the machine."""
    import torch

    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}"


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Median with minimum and maximum."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def write(name: str, title: str, told: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write ``results/bench-NAME.md`` and print it."""
    lines = [f"# {title}", "", told, "", f"    python -m benchmarks {name}", "", machine(), ""]
    lines += [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}", *(f"| {' | '.join(r)} |" for r in rows), ""]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"bench-{name.replace('_', '-')}.md").write_text("\n".join(lines))
    print("\n".join(lines), flush=True)


def plain(arrays: Arrays) -> dict[str, float]:
    """What a task measured, each figure a number."""
    return {name: float(value.reshape(-1)[0]) for name, value in arrays.items()}


def judged(item: Item, arrays: Arrays) -> list[Row]:
    """The row of an item whose task measured a verdict, as its place in `LEVELS`, and other figures."""
    figures = plain(arrays)
    return [{**item, "verdict": LEVELS[int(figures.pop("level"))], **figures}]


def go_on(
    name: str,
    items: Sequence[Item],
    measure: Task,
    store: Path,
    *,
    key: Callable[[Mapping[str, Any]], Hashable],
    made: Callable[[Item, Arrays], list[Row]],
    order: Callable[[Row], Any],
    whole: Collection[str],
    page: Callable[[list[Row]], None],
    jobs: int = 1,
    shared: Item | None = None,
) -> None:
    """Measure every item whose rows ``results/bench-NAME.parquet`` lacks; after each write the rows and the page.

    A page may then be of some items alone, and should say so; remove the file to begin anew.

    Args:
        key: of an item, and of every row that comes of it.
        made: rows of one item, from what was measured.
        order: of the rows.
        whole: columns of whole numbers.
        page: writes the page of the rows that are there.
    """
    file = RESULTS / f"bench-{name.replace('_', '-')}.parquet"
    done = read_rows(file)
    known = {key(row) for row in done}
    todo = [item for item in items if key(item) not in known]
    for position, arrays in run_tasks(measure, todo, store, shared=shared, workers=jobs):
        done = sorted([*done, *made(todo[position], arrays)], key=order)
        write_rows(file, done, whole)
        page(done)
    if not todo and done:
        page(done)
