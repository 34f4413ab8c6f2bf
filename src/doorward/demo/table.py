"""The table of the demo over seeds: mean and range of every rate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from doorward.core.errors import DoorwardError
from doorward.demo.audits import RUN
from doorward.demo.run import SCENARIOS
from doorward.scoring.audits import METHOD
from doorward.scoring.results import MethodScore, ModelScore, ScoreRecord

COLUMNS = ("attack", "method", "ASR %", "accuracy %", "TPR %", "FPR %", "flagged", "ASR after %", "accuracy after %")
NARROW = ("attack", "method", "ASR %", "acc. %", "TPR %", "FPR %", "flags", "then ASR", "acc.")


def rows(folders: Sequence[Path]) -> list[list[str]]:
    """One row per scenario and method, over the demo folders of several seeds."""
    table = []
    for scenario in SCENARIOS:
        cleansed, audited = ([_score(f / scenario.name / run) for f in folders] for run in ("cleanse", RUN))
        before = [s.models[0] for s in cleansed]
        for method in (METHOD, *cleansed[0].methods):
            scores = audited if method == METHOD else cleansed
            after = [_after(s, method, model) for s, model in zip(scores, before, strict=True)]
            found = [s.methods[method] for s in scores]
            table.append(
                [
                    scenario.name,
                    method,
                    _range([m.asr.value for m in before]),
                    _range([m.clean_accuracy.value for m in before]),
                    _range([f.tpr.value for f in found]),
                    _range([f.fpr.value for f in found]),
                    _range([float(_flagged(f)) for f in found], scale=1, digits=0),
                    _range([m.asr.value for m in after]),
                    _range([m.clean_accuracy.value for m in after]),
                ]
            )
    return table


def markdown(folders: Sequence[Path], seeds: Sequence[int]) -> str:
    """The table as Markdown, with the command that makes it again."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows(folders)]
    told = (
        f"Mean and range over seeds {seeds[0]} to {seeds[-1]} ({len(seeds)} trainings per row before, as many after); "
        "4,000 training and 1,000 test digits, 80 poisoned images (2 %), target class 0. `audit` has its own methods "
        "and an experiment. Nothing is told. Where a method flags nothing, the model after is the model before."
    )
    command = f"doorward demo --seed {seeds[0]} --seeds {len(seeds)} -o runs/demo --table results/demo.md"
    return "\n".join(["# The demo's table", "", told, "", f"    {command}", "", *lines, ""])


def _score(run: Path) -> ScoreRecord:
    found = ScoreRecord.read(run)
    if found is None:
        raise DoorwardError(f"{run}: has no score.json; expected a finished demo")
    return found


def _after(score: ScoreRecord, method: str, before: ModelScore) -> ModelScore:
    """The model after a method's flags were left out: the one before where it flagged nothing."""
    name = method if method == METHOD else f"after {method}"
    return {m.name: m for m in score.models}.get(name, before)


def _flagged(found: MethodScore) -> int:
    return found.tpr.hits + found.fpr.hits


def _range(values: Sequence[float | None], scale: float = 100, digits: int = 1) -> str:
    known = [scale * v for v in values if v is not None]
    if not known:
        return "-"
    mean = sum(known) / len(known)
    if len(known) == 1 or max(known) - min(known) < 10**-digits / 2:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ({min(known):.{digits}f} to {max(known):.{digits}f})"
