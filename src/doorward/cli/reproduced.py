"""What the commands of reproduced papers share: run the plan, write the results, show the page."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from doorward.cli import common


def carry_out(paper: ModuleType, plan: Any, output: Path, results: Path | None, *, jobs: int, as_json: bool) -> None:
    """Run what is not finished of a checked plan, write its results and print their page.

    Args:
        paper: the paper's package, with ``reproduce`` and ``write_results``.
        output: folder of the runs.
        results: folder of the results, refused before anything runs when it was made with other settings; None for
            one in ``output``.
        jobs: processes; 0: as many as pay.
    """
    from doorward.papers.drawing import open_pyplot
    from doorward.papers.kept import check_results

    open_pyplot()  # what is missing is told before the work
    if results is not None:
        check_results(plan, results)
    with common.display("reproduce") as progress:
        paper.reproduce(plan, output, jobs=jobs, progress=progress)
    page = paper.write_results(plan, output, results or output / "results")
    if as_json:
        common.print_json({"page": str(page), "text": page.read_text()})
    else:
        common.out.print(common.escape(page.read_text()), soft_wrap=True)
