"""An audit in few plain values: what ``--json`` prints and ``audit.json`` holds."""

from __future__ import annotations

from typing import Any

from doorward.audits.records import AuditRecord, PowerRecord, TargetRecord, TrialRecord
from doorward.audits.verdict import speaking
from doorward.core.results import FINDINGS
from doorward.core.text import count, percent, quoted

LEARNED = 0.5  # success of a planted trigger below which a model has not learned it


def accused(record: AuditRecord) -> tuple[TargetRecord, ...]:
    """The classes that the verdict speaks against, worst first, each once.

    Of a class that came up in several rounds the worst row is taken, with the suspects of all of them.
    """
    rows: dict[int, TargetRecord] = {}
    if record.judgement.level not in FINDINGS:  # a model that has hardly learned its set is no witness
        return ()
    for row in speaking(record.targets_looked_into):
        known = rows.get(row.label)
        rows[row.label] = row if known is None else _joined(known, row)
    return tuple(rows.values())


def _joined(worst: TargetRecord, other: TargetRecord) -> TargetRecord:
    return worst.model_copy(
        update={
            "suspects": worst.suspects + other.suspects,
            "doubtful": worst.doubtful + other.doubtful,
            "trigger": worst.trigger or other.trigger,
        }
    )


def summary(record: AuditRecord) -> dict[str, Any]:
    """Verdict, accused classes, suspects, stages and what was left out, as JSON holds them.

    Returns: ``verdict``; ``p_value``, of the whole audit; ``targets``, each with ``class``, ``label``, ``p_value``,
        ``suspects`` and ``trigger`` (a file of the run's folder, or None); ``suspects``, how many in all; ``stages``
        with seconds; ``left_out``, in words; where there are any, how many ``doubtful`` images; with ``power``, where
        that was asked for: the trigger that was planted into copies of the set, the ``smallest`` number of images with
        it that was found (None where none was), and all trials.
    """
    more: dict[str, Any] = {"doubtful": record.doubtful} if record.doubtful else {}
    more |= {} if record.power is None else {"power": _power(record.power)}
    return {
        "verdict": record.judgement.level,
        "p_value": record.judgement.p_value,
        "targets": [
            {
                "class": t.class_name,
                "label": t.label,
                "p_value": t.p_value,
                "suspects": t.suspects,
                "trigger": t.trigger or None,
            }
            for t in accused(record)
        ],
        "suspects": record.suspects,
        "stages": [{"name": s.name, "seconds": s.seconds} for s in record.stages],
        "left_out": list(record.left_out),
        **more,
    }


def _power(power: PowerRecord) -> dict[str, Any]:
    smallest = power.smallest
    return {
        "trigger": f"{power.recipe} of {power.size} x {power.size} pixels",
        "class": power.class_name,
        "label": power.label,
        "smallest": None if smallest is None else smallest.images,
        "trials": [trial.model_dump(mode="json") for trial in power.trials],
    }


def power_sentence(power: PowerRecord) -> str:
    """How few poisoned images would have been found, in words."""
    square = f"a square of {power.size} x {power.size} pixels in pictures of {power.side[1]} x {power.side[0]}"
    into, smallest = quoted(power.class_name), power.smallest
    missed = max((t for t in power.trials if not t.seen), key=lambda trial: trial.images, default=None)
    if smallest is None:
        assert missed is not None
        return (
            f"A known trigger ({square}) on {missed.images} images of other classes labelled {into} would not have "
            f"been found{_why(missed)}."
        )
    others = "no other" if not smallest.false else f"{count(smallest.false)} others"
    told = (
        f"A known trigger ({square}) on {smallest.images} images of other classes labelled {into} would have been "
        f"found ({smallest.level}; {smallest.found} of the {smallest.images} and {others})"
    )
    return f"{told}." if missed is None else f"{told}; on {missed.images} it would not{_why(missed)}."


def _why(trial: TrialRecord) -> str:
    """Why a trial was missed, where that is no fault of the audit."""
    if trial.success is not None and trial.success < LEARNED:
        return f": a model does not learn it, it works on {percent(trial.success)} of pictures"
    return ""
