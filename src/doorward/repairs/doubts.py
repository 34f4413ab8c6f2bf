"""What a table of arms gives reason to doubt, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from doorward.core.stats import Rate

_STILL = 0.1  # success above which, beyond chance, the triggers still work
_COST = 0.02  # accuracy that a repair may cost before it is said

Row = Mapping[str, Any]


def doubts(rows: Sequence[Row]) -> tuple[str, ...]:
    """Warnings about a comparison: triggers that never worked or still do, controls that do as well, lost accuracy.

    Args:
        rows: as `Arm.row` gives them, the classifier as given first.
    """
    given, *others = rows
    controls = [r for r in others if r["role"] == "control"]
    before, found = _success(given), []
    if before is None:
        found.append("without triggers nothing here tells whether a backdoor was there or is gone")
    elif before.interval[0] < 2 * _STILL:
        found.append(
            f"the triggers succeed on {before} % of held-out images before any repair: there is little to take out, "
            "or they are not the attacker's"
        )
    for row in others:
        if row["role"] == "repair":
            found += _of_one(row, given, controls)
        found += [f"{row['name']}: {told}" for told in row["warnings"]]
    return tuple(found)


def _of_one(row: Row, given: Row, controls: Sequence[Row]) -> list[str]:
    name, found = row["name"], []
    accuracy, accuracy_before = _rate(row["accuracy"]), _rate(given["accuracy"])
    if accuracy_before.value - accuracy.value > _COST:
        found.append(f"{name} costs clean accuracy: {accuracy_before} % before, {accuracy} % after")
    before, after = _success(given), _success(row)
    if before is None or after is None:
        return found
    if after.interval[0] > _STILL:
        found.append(f"after {name} the triggers still succeed on {after} % of held-out images")
    as_good = [c["name"] for c in controls if not _clearly_below(after, _success(c))]
    if as_good and _clearly_below(after, before):
        names = " and ".join(as_good)
        found.append(f"{names} alone lowers the triggers' success as far as {name}: the triggers are not shown to help")
    return found


def _rate(value: Mapping[str, Any]) -> Rate:
    return Rate(int(value["hits"]), int(value["trials"]))


def _success(row: Row) -> Rate | None:
    return None if row["asr"] is None else _rate(row["asr"])


def _clearly_below(one: Rate, other: Rate | None) -> bool:
    """Whether the intervals do not meet."""
    return other is None or one.interval[1] < other.interval[0]
