"""What a repair would do, and how long: every arm is tried on some of the images, with one epoch or round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from doorward.core import methods as registry
from doorward.core.images import ImageSet
from doorward.core.plan import Plan, about, timed
from doorward.repairs.arms import Bench, Planned

_TRIED = 256  # images
_REPEATED = ("epochs", "rounds")  # settings that say how often the same is done


def plan_repair(bench: Bench, arms: Sequence[Planned], images: ImageSet) -> Plan:
    """A plan of these arms on a bench."""
    lines, total = [*about(bench.classifier, images)], 0.0
    share = min(1.0, _TRIED / len(bench.fitted))
    small = replace(bench, fitted=bench.fitted.portion(share, 0), held=bench.held.portion(share, 0))
    for arm in arms:
        name, count = _repeats(arm)
        lines.append(f"{arm.name} ({arm.role}){f': {count} {name}' if name else ''}")
        shorter = replace(arm, settings={**arm.settings, name: 1}) if name else arm
        total += timed(lambda shorter=shorter: small.run(shorter)) / share * max(count, 1)  # type: ignore[misc]
    return Plan(tuple(lines), total)


def _repeats(arm: Planned) -> tuple[str, int]:
    configured = registry.get("repair", arm.method).configure(arm.settings)
    for name in _REPEATED:
        count = getattr(configured, name, None)
        if isinstance(count, int) and count:
            return name, count
    return "", 1
