"""What a table of arms gives reason to doubt, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from doorward.core.stats import Rate
from doorward.repairs.results import ArmRecord
from doorward.repairs.verdict import STILL


def doubts(rows: Sequence[ArmRecord]) -> tuple[str, ...]:
    """Warnings about a comparison: triggers that never worked or still do, controls that do as well, lost accuracy.

    Args:
        rows: the classifier as given first.
    """
    given, *others = rows
    controls = [r for r in others if r.role == "control"]
    before, found = _success(given), []
    if before is None:
        found.append("without triggers nothing here tells whether a backdoor was there or is gone")
    elif before.interval[0] < 2 * STILL:
        found.append(
            f"the triggers succeed on {before} % of held-out images before any repair: there is little to take out, "
            "or they are not the attacker's"
        )
    for row in others:
        if row.role == "repair":
            found += _of_one(row, given, controls)
        found += [f"{row.name}: {told}" for told in row.warnings]
    return tuple(found)


def _of_one(row: ArmRecord, given: ArmRecord, controls: Sequence[ArmRecord]) -> list[str]:
    name, found = row.name, []
    if row.cost is not None and row.cost.low > 0:  # beyond what so few images show by chance
        found.append(
            f"{name} costs clean accuracy: {row.cost} points on the same {row.cost.trials} held-out images "
            f"({given.accuracy.rate()} % before, {row.accuracy.rate()} % after)"
        )
    before, after = _success(given), _success(row)
    if before is None or after is None:
        return found
    if after.interval[0] > STILL:
        found.append(f"after {name} the triggers still succeed on {after} % of held-out images")
    as_good = [c.name for c in controls if not _clearly_below(after, _success(c))]
    if as_good and _clearly_below(after, before):
        names = " and ".join(as_good)
        found.append(f"{names} alone lowers the triggers' success as far as {name}: the triggers are not shown to help")
    return found


def _success(row: ArmRecord) -> Rate | None:
    return None if row.asr is None else row.asr.rate()


def _clearly_below(one: Rate, other: Rate | None) -> bool:
    """Whether the intervals do not meet."""
    return other is None or one.interval[1] < other.interval[0]
