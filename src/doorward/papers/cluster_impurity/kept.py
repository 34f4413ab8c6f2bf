"""Results of several folders of runs in one: cases that lie in the results already and were not run here are kept.

A training takes most of an hour on a CPU, so the cases of one table may come from several machines and days.
"""

from __future__ import annotations

from pathlib import Path

from doorward.papers.cluster_impurity.collect import Found
from doorward.papers.cluster_impurity.plan import Plan
from doorward.papers.rows import read_rows
from doorward.papers.staging import refuse_other
from doorward.runs import read_json, write_json

MANIFEST = "made-with.json"


def check_results(plan: Plan, results: Path) -> list[str]:
    """Refuse a folder whose results were made with other settings; returns the commands that it was made with.

    Raises:
        OutputExistsError: source, net, trainer or its settings differ.
    """
    manifest = results / MANIFEST
    if not manifest.exists():
        return []
    known = read_json(manifest)
    refuse_other(f"{results}: results made with", known, plan.manifest(), "another --results")
    return [str(command) for command in known.get("commands", [])]


def claim_results(plan: Plan, results: Path) -> list[str]:
    """Write down what the results are made with; returns every command that went into them, the oldest first."""
    commands = list(dict.fromkeys([*check_results(plan, results), plan.command]))
    results.mkdir(parents=True, exist_ok=True)
    write_json(results / MANIFEST, {**plan.manifest(), "commands": commands})
    return commands


def with_kept(found: Found, results: Path) -> tuple[Found, int]:
    """The rows of this run, and those of cases and seeds that only the earlier results have.

    Call `check_results` first. Returns: rows in the order of cases, and how many cases were kept.
    """
    if not (results / MANIFEST).exists():
        return found, 0
    here = {(r["case"], r["seed"]) for r in found.detections}
    joined, kept = Found(), set()
    for name, rows in vars(found).items():
        earlier = [r for r in read_rows(results / f"{name}.parquet") if (r["case"], r["seed"]) not in here]
        kept |= {(r["case"], r["seed"]) for r in earlier}
        getattr(joined, name).extend(sorted([*earlier, *rows], key=_place))
    return joined, len(kept)


def _place(row: dict[str, object]) -> tuple[int, str, object]:
    order = ("multiple-source", "single-source", "beyond", "control")
    return order.index(str(row["scenario"])), str(row["case"]), row["seed"]
