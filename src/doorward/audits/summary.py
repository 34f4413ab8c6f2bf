"""An audit in few plain values: what ``--json`` prints and ``audit.json`` holds."""

from __future__ import annotations

from typing import Any

from doorward.audits.results import AuditRecord, TargetRecord
from doorward.audits.verdict import speaking


def accused(record: AuditRecord) -> tuple[TargetRecord, ...]:
    """The classes that the verdict speaks against, worst first, each once.

    Of a class that came up in several rounds the worst row is taken, with the suspects of all of them.
    """
    rows: dict[int, TargetRecord] = {}
    for row in speaking(record.targets_looked_into):
        known = rows.get(row.label)
        rows[row.label] = row if known is None else _joined(known, row)
    return tuple(rows.values())


def _joined(worst: TargetRecord, other: TargetRecord) -> TargetRecord:
    return worst.model_copy(
        update={"suspects": worst.suspects + other.suspects, "trigger": worst.trigger or other.trigger}
    )


def summary(record: AuditRecord) -> dict[str, Any]:
    """Verdict, accused classes, suspects, stages and what was left out, as JSON holds them.

    Returns: ``verdict``; ``p_value``, of the whole audit; ``targets``, each with ``class``, ``label``, ``p_value``,
        ``suspects`` and ``trigger`` (a file of the run's folder, or None); ``suspects``, how many in all; ``stages``
        with seconds; ``left_out``, in words.
    """
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
    }
