"""Repairs side by side: the chosen methods, the control arms, the oracle; all measured on the same unseen images."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from doorward.core import methods as registry
from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.stats import Paired, Rate
from doorward.repairs.apply import apply_repair
from doorward.repairs.methods.controls import FineTuneSettings
from doorward.repairs.parts.stamping import Triggers, checked, success_by_target, total
from doorward.repairs.parts.tuning import HeldOutSettings, divide
from doorward.repairs.repaired import Repaired

Role = Literal["given", "repair", "control", "oracle"]
CONTROLS = ("fine-tune", "refresh")
ORACLE, AS_GIVEN = "oracle", "as given"


@dataclass(frozen=True, eq=False)
class Planned:
    """An arm before it is run. ``settings`` are what the method is configured with."""

    name: str
    role: Role
    method: str
    settings: dict[str, Any]
    triggers: Triggers | None


@dataclass(frozen=True, eq=False)
class Arm:
    """An arm that was run.

    Args:
        planned: what was run; its role is ``given`` for the classifier as it was.
        repaired: the classifier and what the method says of it.
        accuracy: on the held-out clean images.
        cost: accuracy of the classifier as given minus that of this one, on the same images.
        success: per target, of the inverted triggers on the same images, never of the attacker's own; empty without.
    """

    planned: Planned
    repaired: Repaired
    accuracy: Rate
    cost: Paired
    success: dict[int, Rate]
    seconds: float

    def __repr__(self) -> str:
        success = f", triggers succeed {total(self.success)} %" if self.success else ""
        return f"Arm {self.planned.name} ({self.planned.role}): accuracy {self.accuracy} %{success}"


@dataclass(frozen=True, eq=False)
class Bench:
    """What all arms of one comparison share: the classifier, images to repair with, images to measure on.

    Args:
        triggers: target class to inverted triggers; empty without.
        knowledge: declared beside the clean images.
        prove: whether the arms are proved (`doorward.repairs.proof`).
    """

    classifier: Classifier
    fitted: ImageSet
    held: ImageSet
    triggers: Triggers
    seed: int
    knowledge: dict[str, Any] = field(default_factory=dict)
    prove: bool = True

    @cached_property
    def knew(self) -> NDArray[np.bool_]:
        """Which held-out images the classifier decides rightly before any repair, ``[N]``."""
        return self._right(self.classifier)

    def as_given(self) -> Arm:
        """The classifier before any repair."""
        plain = Planned(AS_GIVEN, "given", "", {}, None)
        return self._measured(plain, Repaired(self.classifier, (), {}), 0.0)

    def run(self, planned: Planned) -> Arm:
        """Run one arm and measure it."""
        method = registry.get("repair", planned.method)
        known = {**self.knowledge, "clean_images": self.fitted}
        started = time.monotonic()
        repaired = apply_repair(
            self.classifier,
            planned.method,
            triggers=planned.triggers,
            settings=planned.settings,
            knowledge={k: v for k, v in known.items() if k in method.given | method.accepts},
            seed=self.seed,
        )
        return self._measured(planned, repaired, time.monotonic() - started)

    def _measured(self, planned: Planned, repaired: Repaired, seconds: float) -> Arm:
        targets = checked(planned.name, self.triggers, self.classifier) if self.triggers else ()
        success = success_by_target(repaired.classifier, self.held, targets, self.seed)
        knows = self._right(repaired.classifier)
        cost = Paired(int((self.knew & ~knows).sum()), int((knows & ~self.knew).sum()), len(knows))
        return Arm(planned, repaired, Rate(int(knows.sum()), len(knows)), cost, success, seconds)

    def _right(self, classifier: Classifier) -> NDArray[np.bool_]:
        return np.asarray(classifier.predict(self.held.pixels) == self.held.labels)


def make_bench(
    classifier: Classifier,
    clean_images: ImageSet,
    triggers: Triggers | None,
    *,
    held_out: float,
    seed: int,
    knowledge: dict[str, Any] | None = None,
    prove: bool = True,
) -> Bench:
    """Split the clean images: no arm sees the held-out ones, on which all are measured."""
    if not 0 < held_out < 1:
        raise DoorwardError(f"repair: held_out {held_out:g}; expected a share above 0 and below 1")
    fitted, held = divide("arms", classifier, clean_images, held_out, seed)
    assert held is not None
    if triggers:
        checked("arms", triggers, classifier)
    return Bench(classifier, fitted, held, triggers or {}, seed, knowledge or {}, prove)


def default_methods(triggers: bool) -> tuple[str, ...]:
    """What runs when no method is asked for."""
    return ("hold",) if triggers else ("ibau",)


def wants_all(methods: Sequence[str], settings: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a method draws around its triggers, and so wants those of all inversions and not of one."""
    configured = [registry.get("repair", name).configure(dict(settings.get(name, {}))) for name in methods]
    return "hold" in methods or any(getattr(s, "around", False) for s in configured)


def plan_arms(
    methods: str | Sequence[str],
    *,
    triggers: Triggers | None = None,
    settings: dict[str, dict[str, Any]] | None = None,
    oracle: Triggers | None = None,
    controls: bool = True,
) -> tuple[Planned, ...]:
    """The arms of a comparison: methods as chosen, then fine-tuning with their budgets, refresh, oracle.

    Raises:
        DoorwardError: no method, an unknown one, wrong settings, or one that needs triggers where there are none.
    """
    asked = dict(settings or {})
    chosen = registry.as_names(methods)
    if not chosen:
        raise DoorwardError("repair: no method; expected at least one of " + ", ".join(registry.names("repair")))
    used = {*chosen, *(CONTROLS if controls else ()), *(("retrain",) if oracle else ())}
    for name in sorted(set(asked) - used):
        told = f"expected one of {', '.join(sorted(used))}"
        raise DoorwardError(f"repair: settings for {name!r}, which is not run; {told}")
    arms = []
    for name in chosen:
        role: Role = "control" if name in CONTROLS else "repair"
        arms.append(_planned(name, role, name, asked.get(name, {}), triggers))
    if controls:
        arms += _controls(arms, asked)
    if oracle:
        exact = {"around": False, **asked.get("retrain", {})}  # it is told the trigger itself
        arms.append(_planned(ORACLE, "oracle", "retrain", exact, oracle))
    return tuple(arms)


def _planned(name: str, role: Role, method: str, settings: dict[str, Any], triggers: Triggers | None) -> Planned:
    """An arm, checked. All its images are for working on, since the comparison holds out its own."""
    found = registry.get("repair", method)
    configured = found.configure(settings)
    if "triggers" in found.given and not triggers:
        raise DoorwardError(f"repair {method}: needs triggers, which were not given; expected those of an inversion")
    if isinstance(configured, HeldOutSettings):
        settings = {"held_out": 0.0, **settings}
    return Planned(name, role, method, settings, triggers if "triggers" in found.given else None)


def _controls(arms: Sequence[Planned], asked: dict[str, dict[str, Any]]) -> list[Planned]:
    """Fine-tuning once per budget, and refresh; not again where they were chosen by name."""
    found: list[Planned] = []
    budgets: list[dict[str, Any]] = []
    for arm in arms:
        budget = _budget(arm)
        if arm.role == "repair" and budget not in budgets and "fine-tune" not in {a.name for a in arms}:
            name = f"fine-tune-{arm.name}" if budgets else "fine-tune"
            budgets.append(budget)
            found.append(_planned(name, "control", "fine-tune", {**budget, **asked.get("fine-tune", {})}, None))
    if "refresh" not in {a.name for a in arms}:
        found.append(_planned("refresh", "control", "refresh", asked.get("refresh", {}), None))
    return found


def _budget(arm: Planned) -> dict[str, Any]:
    """Epochs, batch, learning rate ... of a method that trains by SGD; nothing, so the defaults, for the others.

    Not ``keep``: without triggers the net's own answers would hold the backdoor fast, which makes no fair control.
    """
    configured = registry.get("repair", arm.method).configure(arm.settings)
    if not getattr(configured, "epochs", 0):
        return {}
    shared = set(FineTuneSettings.model_fields) & set(type(configured).model_fields) - {"held_out", "keep"}
    return {name: getattr(configured, name) for name in sorted(shared)}
