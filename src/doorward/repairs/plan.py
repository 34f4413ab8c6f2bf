"""What a repair would do, and how long: every arm is tried on some of the images, with one epoch or round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from doorward.core import methods as registry
from doorward.core.images import ImageSet
from doorward.core.plan import Plan, about, timed
from doorward.inversion.plan import plan_inversion
from doorward.repairs.arms import Bench, Planned
from doorward.repairs.methods.hold import HoldSettings
from doorward.repairs.parts.standing import INVERSIONS, enough

_TRIED = 256  # images
_REPEATED = ("epochs", "rounds")  # settings that say how often the same is done


def plan_repair(bench: Bench, arms: Sequence[Planned], images: ImageSet) -> Plan:
    """A plan of these arms on a bench."""
    lines, total = [*about(bench.classifier, images)], 0.0
    share = min(1.0, _TRIED / len(bench.fitted))
    small = replace(bench, prove=False, fitted=bench.fitted.portion(share, 0), held=bench.held.portion(share, 0))
    search = _search_seconds(bench, arms)
    for arm in arms:
        name, count = _repeats(arm)
        lines.append(f"{arm.name} ({arm.role}){f': {count} {name}' if name else ''}")
        if arm.method == "hold":  # a round is a training and an inversion
            training = replace(arm, method="retrain", settings={"epochs": 1, "held_out": 0.0})
            epochs = HoldSettings(**arm.settings).epochs
            total += count * (timed(lambda training=training: small.run(training)) / share * epochs + search)  # type: ignore[misc]
            continue
        shorter = replace(arm, settings={**arm.settings, name: 1}) if name else arm
        total += timed(lambda shorter=shorter: small.run(shorter)) / share * max(count, 1)  # type: ignore[misc]
    if bench.prove and bench.triggers:
        proved = 1 + sum(arm.role == "repair" for arm in arms)
        lines.append(f"proof: {proved} inversions afresh")
        total += proved * search
    return Plan(tuple(lines), total, at_most=search > 0)


def _search_seconds(bench: Bench, arms: Sequence[Planned]) -> float:
    """What a fresh inversion takes at most; 0 where there is none to make."""
    if not (bench.prove and bench.triggers) and not any(arm.method == "hold" for arm in arms):
        return 0.0
    if not enough(bench.classifier, bench.fitted):
        return 0.0
    return plan_inversion(bench.classifier, bench.fitted, INVERSIONS, settings={}).seconds or 0.0


def _repeats(arm: Planned) -> tuple[str, int]:
    configured = registry.get("repair", arm.method).configure(arm.settings)
    for name in _REPEATED:
        count = getattr(configured, name, None)
        if isinstance(count, int) and count:
            return name, count
    return "", 1
