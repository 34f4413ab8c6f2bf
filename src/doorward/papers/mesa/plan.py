"""What runs: the triggers of a profile, and every wish of the user checked before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from doorward.attacks.plan import Attack, Pairing
from doorward.core.classifier import pick_device
from doorward.core.errors import DoorwardError
from doorward.core.images import class_number
from doorward.core.methods import Settings, build_settings
from doorward.core.triggers import Placement, Trigger
from doorward.data.sources import load_images
from doorward.inversion.methods.mask import MaskSettings
from doorward.inversion.methods.mesa import MesaSettings
from doorward.inversion.methods.pixel import PixelSettings
from doorward.models.nets.catalogue import NETS
from doorward.models.train.settings import TrainSettings
from doorward.papers.mesa.patterns import COLOURS, SIDE, black_white, black_white_masks, random_colour, spread_over
from doorward.papers.mesa.profiles import PROFILES, TABLE, Profile
from doorward.repairs.parts.retraining import StampedSettings

Shape = tuple[int, int, int]
Kind = Literal["black-white", "colour"]
SIZES = (5, 7)  # sides of the windows that are searched when the size is unknown
PARTS: dict[str, type[Settings]] = {
    "clean": TrainSettings,
    "attack": TrainSettings,
    "mesa": MesaSettings,
    "pixel": PixelSettings,
    "mask": MaskSettings,
    "repair": StampedSettings,
}


class Case(Settings):
    """One trigger, and the net that has it for a backdoor.

    Args:
        place: of the attacker's stamps and of the evaluation; ``fixed`` is near the bottom right corner.
        beyond: also tried without the crutches: unknown size, unknown target.
        shown: its distribution is sampled for the figures.
    """

    kind: Kind
    number: int
    place: Literal["free", "fixed"] = "free"
    beyond: bool = False
    shown: bool = False

    @property
    def name(self) -> str:
        """Of its folder and its rows."""
        short = "bw" if self.kind == "black-white" else "colour"
        return f"{short}-{self.number:02d}{'-fixed' if self.place == 'fixed' else ''}"

    def about(self) -> dict[str, Any]:
        """What decides its attack besides what the whole plan shares."""
        return self.model_dump(mode="json", include={"kind", "number", "place"})

    def pattern(self, channels: int, seed: int) -> Tensor:
        """Pixels ``[C, 3, 3]``."""
        if self.kind == "black-white":
            return black_white(self.number, channels)
        return random_colour(self.number, channels, seed)

    def attack(self, shape: Shape, target: int, seed: int) -> Attack:
        """The attacker's trigger and target. Ground truth: for the attack, the oracle and scoring alone."""
        channels, height, width = shape
        free = self.place == "free"
        place = Placement("random") if free else Placement("fixed", height - SIDE - 1, width - SIDE - 1)
        trigger = Trigger(self.pattern(channels, seed), torch.ones(1, SIDE, SIDE), place)
        return Attack(self.name, (Pairing(trigger, target),))


class Plan(Settings):
    """Everything that decides the results.

    Args:
        source: training and test images (a source with both splits).
        clean: training of the net before the attack.
        attack: one round of the attacker's fine-tuning; ``rounds`` of it at most, until the attack works.
        probability: of an image in the attacker's batches to be stamped.
        mesa, pixel, mask: settings of the inversions.
        repair: of every arm that trains, the same for all.
        evaluated: share of the test images that no defence sees; the others are all that a defence has.
        skipped: arms that do not run, by name.
    """

    profile: str
    source: str
    net: str
    clean: TrainSettings
    attack: TrainSettings
    probability: float = Field(gt=0, le=1)
    rounds: int = Field(ge=1)
    mesa: MesaSettings
    pixel: PixelSettings
    mask: MaskSettings
    repair: StampedSettings
    target: int
    evaluated: float = Field(gt=0, lt=1)
    seed: int
    cases: tuple[Case, ...]
    skipped: tuple[str, ...] = ()
    device: str = "auto"
    command: str = ""

    def manifest(self) -> dict[str, Any]:
        """What all its runs share."""
        return self.model_dump(mode="json", exclude={"profile", "cases", "skipped", "device", "command"})


class Wishes(Settings):
    """What the command line may change; None and empty leave it to the profile."""

    source: str | None = None
    net: str | None = None
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    black_white: int | None = Field(None, ge=0, le=len(black_white_masks()))
    colour: int | None = Field(None, ge=0, le=COLOURS)
    without_crutches: bool | None = None
    target: str = "0"
    seed: int = Field(0, ge=0)
    device: str = "auto"
    command: str = ""


def make_plan(profile: str, wishes: Wishes | None = None) -> Plan:
    """The plan of a profile, with the user's wishes; see `check` for what is refused then.

    ``gpu``: ResNet-18, all 51 + 10 triggers, the authors' settings. ``cpu``: ResNet-20, 6 + 3 triggers, hours on two
    cores. ``quick``: digits and a small net, minutes.
    """
    if profile not in TABLE:
        raise DoorwardError(f"reproduce: profile {profile!r}; expected one of {', '.join(PROFILES)}")
    if profile == "gpu" and not torch.cuda.is_available():
        raise DoorwardError("reproduce: profile 'gpu' on a machine without CUDA GPU; expected one, or profile 'cpu'")
    wishes, p = wishes or Wishes(), TABLE[profile]
    source = wishes.source or p.source
    for part in wishes.settings:
        if part not in PARTS:
            raise DoorwardError(f"reproduce: --set {part}.NAME; expected one of {', '.join(PARTS)} before the dot")
    parts: dict[str, Any] = {
        name: build_settings(
            kind, f"reproduce: {name}", {**getattr(p, name).model_dump(), **wishes.settings.get(name, {})}
        )
        for name, kind in PARTS.items()
    }
    return Plan(
        profile=profile,
        source=source,
        net=wishes.net or p.net,
        probability=p.probability,
        rounds=p.rounds,
        target=class_number(wishes.target, load_images(source, split="test").classes),
        evaluated=p.evaluated,
        seed=wishes.seed,
        cases=_cases(p, wishes),
        device="cuda" if profile == "gpu" and wishes.device == "auto" else wishes.device,
        command=wishes.command or f"doorward reproduce mesa --profile {profile}",
        **parts,
    )


def _cases(p: Profile, wishes: Wishes) -> tuple[Case, ...]:
    """Both kinds side by side, so that a plan that was stopped has some of each; fixed places last.

    Those that are tried without the crutches are spread over their list, and the middle of the list is shown.
    """
    black = _numbers(p.black_white, wishes.black_white, len(black_white_masks()))
    colour = _numbers(p.colour, wishes.colour, COLOURS)
    beyond = p.beyond
    if wishes.without_crutches is not None:
        beyond = (max(1, p.beyond[0]), max(1, p.beyond[1])) if wishes.without_crutches else (0, 0)
    found: list[tuple[float, Case]] = []
    kinds: tuple[tuple[Kind, tuple[int, ...], int, bool], ...] = (
        ("black-white", black, beyond[0], True),
        ("colour", colour, beyond[1], not black),
    )
    for kind, numbers, count, pictured in kinds:
        chosen, middle = _spread(len(numbers), count), _spread(len(numbers), 1) if pictured else ()
        for i, n in enumerate(numbers):
            found.append((i / len(numbers), Case(kind=kind, number=n, beyond=i in chosen, shown=i in middle)))
    cases = [case for _, case in sorted(found, key=lambda pair: pair[0])]
    fixed = [case.model_copy(update={"place": "fixed", "shown": False}) for case in cases if case.beyond]
    return (*cases, *fixed)


def _spread(total: int, count: int) -> tuple[int, ...]:
    return spread_over(total, min(count, total)) if total and count else ()


def _numbers(own: tuple[int, ...], wanted: int | None, total: int) -> tuple[int, ...]:
    """The profile's own numbers, or the first so many of them and then of all."""
    if wanted is None:
        return own
    return (*own, *(n for n in range(total) if n not in own))[:wanted]


def check(plan: Plan) -> None:
    """Refuse what cannot be run, in one line, before anything is written.

    Raises:
        DoorwardError: no case; a net, a device or images that do not fit; searched triggers larger than the images.
    """
    if not plan.cases:
        raise DoorwardError("reproduce: no trigger is left to run; expected at least one")
    if plan.net not in NETS:
        raise DoorwardError(f"reproduce: net {plan.net!r}; expected one of {', '.join(NETS)}")
    pick_device(plan.device)
    train, test = load_images(plan.source), load_images(plan.source, split="test")
    if (train.shape, train.classes) != (test.shape, test.classes):
        raise DoorwardError(f"{plan.source}: training and test images of other sizes or classes; expected the same")
    side = max(plan.mesa.size, plan.pixel.size, *(SIZES if any(c.beyond for c in plan.cases) else ()))
    if side > min(test.shape[1:]) or min(test.shape[1:]) <= SIDE:
        told = f"triggers of {side} x {side} on images of {test.shape[1]} x {test.shape[2]}"
        raise DoorwardError(f"reproduce: {told}; expected larger images or smaller triggers")
    if round(plan.evaluated * int(test.counts().min())) < 1:
        raise DoorwardError(f"{plan.source}: a class of too few test images to divide; expected more")


def only(plan: Plan, names: Sequence[str]) -> Plan:
    """The plan with the named cases alone; without the one whose distribution is shown, the middle one is."""
    known = [case.name for case in plan.cases]
    for name in names:
        if name not in known:
            raise DoorwardError(f"reproduce: no case {name!r}; expected one of {', '.join(known)}")
    if not names:
        return plan
    cases = [case for case in plan.cases if case.name in names]
    free = [i for i, case in enumerate(cases) if case.place == "free"]
    if free and not any(case.shown for case in cases):
        middle = free[(len(free) - 1) // 2]
        cases[middle] = cases[middle].model_copy(update={"shown": True})
    return plan.model_copy(update={"cases": tuple(cases)})
