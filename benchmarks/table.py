"""What every benchmark does with its figures: print them, and write them with the machine they come from."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path

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
