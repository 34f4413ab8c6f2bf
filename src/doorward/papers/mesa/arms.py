"""The arms of a case: what each repair is told, and whose triggers it uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from doorward.attacks.files import load_attack
from doorward.core.errors import DoorwardError
from doorward.core.results import read_record
from doorward.core.triggers import Stamp
from doorward.inversion.distribution.triggers import TriggerDistribution
from doorward.inversion.files import load_stamps
from doorward.inversion.results import InvertRecord
from doorward.papers.mesa.plan import SIZES, Case, Plan
from doorward.papers.mesa.profiles import AUTHORS_SEARCH

Told = Literal["target class", "size", "true trigger"]
BEFORE = "before"  # the backdoored net as it is
PEERS = ("unlearn", "ibau", "prune")  # other repairs, with their default settings


@dataclass(frozen=True)
class Inversion:
    """A search for triggers; ``knows_target``: of the target class alone, else of all classes with a verdict."""

    name: str
    method: Literal["mesa", "pixel", "mask"]
    settings: dict[str, Any]
    knows_target: bool = True


@dataclass(frozen=True)
class Arm:
    """A repair.

    Args:
        name: of its folder and its rows; several ``rank`` of one name are runs of one arm.
        told: what the defence knows besides clean images and the net.
        inversion: whose triggers it retrains with.
        level: of the distribution's generators, this one alone.
        rank: of an inversion's triggers, this one alone; the best is 0.
        by_verdict: for the class that the mask's verdict names, told no target.
        by_default: with the share and rate that `retrain` has by default in place of the profile's.
    """

    name: str
    told: tuple[Told, ...]
    method: Literal["retrain", "fine-tune", "refresh", "unlearn", "ibau", "prune"] = "retrain"
    inversion: str = ""
    level: int | None = None
    rank: int | None = None
    by_verdict: bool = False
    by_default: bool = False

    @property
    def folder(self) -> str:
        """Below the case's."""
        return f"after-{self.name}" + ("" if self.rank is None else f"-{self.rank}")


def inversions(plan: Plan, case: Case) -> list[Inversion]:
    """The searches that the arms and the figures of a case need, in order."""
    repairs = arms(plan, case)
    needed = {arm.inversion for arm in repairs}
    if any(arm.by_verdict for arm in repairs):
        needed |= {"mask", "mesa"}  # the verdict; and where it names the target, that class is searched already
    if case.shown:
        needed |= {"mesa", "pixel"}
    return [inversion for inversion in _every_inversion(plan, case) if inversion.name in needed]


def _every_inversion(plan: Plan, case: Case) -> list[Inversion]:
    mesa, pixel = plan.mesa.model_dump(), plan.pixel.model_dump()
    found = [Inversion("mesa", "mesa", mesa), Inversion("pixel", "pixel", pixel)]
    if case.place == "free":
        found.append(Inversion("pixel-short", "pixel", {**pixel, **AUTHORS_SEARCH}))
    if case.beyond and case.place == "free":
        found += [Inversion(f"mesa-{side}", "mesa", {**mesa, "size": side}) for side in SIZES]
        for side in SIZES:
            clear = {"size": side, "transparency": True}
            found.append(Inversion(f"mesa-alpha-{side}", "mesa", {**mesa, **clear}))
            found.append(Inversion(f"pixel-alpha-{side}", "pixel", {**pixel, **clear}))
    if case.beyond:
        found += [
            Inversion("mask", "mask", plan.mask.model_dump(), knows_target=False),
            Inversion("mesa-unknown", "mesa", mesa, knows_target=False),
        ]
    return found


def arms(plan: Plan, case: Case) -> list[Arm]:
    """The repairs of a case, in order, without those that the plan skips."""
    return [arm for arm in _every_arm(plan, case) if arm.name not in plan.skipped]


def skip(plan: Plan, names: Sequence[str]) -> Plan:
    """The plan without the named arms, and without the searches that only they need.

    Raises:
        DoorwardError: no case of the plan has such an arm.
    """
    known = dict.fromkeys(arm.name for case in plan.cases for arm in _every_arm(plan, case))
    for name in names:
        if name not in known:
            raise DoorwardError(f"reproduce: no arm {name!r}; expected one of {', '.join(known)}")
    return plan.model_copy(update={"skipped": tuple(names)})


def _every_arm(plan: Plan, case: Case) -> list[Arm]:
    """The fixed place has fewer: no levels, and the baseline's best run alone."""
    known: tuple[Told, ...] = ("target class", "size")
    found = [Arm("oracle", ("true trigger",))]
    if case.place == "free":
        found += [Arm(mesa_name(b), known, inversion="mesa", level=i) for i, b in enumerate(plan.mesa.betas())]
    found.append(Arm("mesa-ensemble", known, inversion="mesa"))
    runs = plan.pixel.runs if case.place == "free" else 1
    found += [Arm("pixel", known, inversion="pixel", rank=rank) for rank in range(runs)]
    if case.place == "free":
        found += [Arm("pixel-short", known, inversion="pixel-short", rank=rank) for rank in range(runs)]
    found += [Arm("fine-tune", (), "fine-tune"), Arm("refresh", (), "refresh")]
    if case.place == "free":
        found.append(Arm("mesa-default", known, inversion="mesa", by_default=True))
        found.append(Arm("pixel-default", known, inversion="pixel", rank=0, by_default=True))
        found += [Arm("unlearn", known, "unlearn", "pixel", rank=0), Arm("ibau", (), "ibau"), Arm("prune", (), "prune")]
    if case.beyond and case.place == "free":
        for name in (f"mesa-{form}{side}" for side in SIZES for form in ("", "alpha-")):
            found.append(Arm(name, ("target class",), inversion=name))
        found += [Arm(n, ("target class",), inversion=n, rank=0) for n in (f"pixel-alpha-{side}" for side in SIZES)]
    if case.beyond:
        found.append(Arm("mesa-unknown", ("size",), inversion="mesa-unknown", by_verdict=True))
        found.append(Arm("mask", (), inversion="mask", rank=0, by_verdict=True))
        found.append(Arm("mask-default", (), inversion="mask", rank=0, by_verdict=True, by_default=True))
    return found


def mesa_name(beta: float) -> str:
    """The arm of one level of the staircase."""
    return f"mesa-beta-{beta:g}"


def verdict(here: Path) -> int | None:
    """The class that stands out most in the case's mask inversion; None when nothing was found."""
    targets = read_record(InvertRecord, here / "invert-mask", "invert").targets
    return targets[0].label if targets else None


def stamps(plan: Plan, arm: Arm, here: Path) -> Mapping[int, Sequence[Stamp]]:
    """Target class to triggers of an arm; ``here`` is the case's folder. Empty when the verdict found nothing."""
    if arm.name == "oracle":
        (pairing,) = load_attack(here / "attack" / "attack").pairings
        return {plan.target: [pairing.stamp]}
    label = verdict(here) if arm.by_verdict else plan.target
    if label is None:
        return {}
    name = "mesa" if arm.name == "mesa-unknown" and label == plan.target else arm.inversion  # searched already
    found = load_stamps(here / f"invert-{name}", arm.inversion.split("-")[0], label)
    if arm.rank is not None:
        found = found[arm.rank : arm.rank + 1]
    if not found:
        raise DoorwardError(f"{here / f'invert-{name}'}: holds no trigger for {arm.folder}; delete that run")
    if arm.level is not None and isinstance(found[0], TriggerDistribution):
        found = [found[0].only(arm.level)]
    return {label: found}
