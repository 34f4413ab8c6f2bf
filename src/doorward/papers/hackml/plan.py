"""What runs: the nets, and every wish of the user checked before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from doorward.attacks.plan import Attack, Pairing
from doorward.core import methods as registry
from doorward.core.classifier import pick_device
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.methods import Settings, build_settings
from doorward.inversion.methods.window.window import WindowSettings
from doorward.models.open.foreign import load_foreign
from doorward.models.train.settings import TrainSettings
from doorward.papers.hackml.accessories import face_trigger
from doorward.papers.hackml.faces import HEIGHT, TRAINING_PICTURES, WIDTH, draw_faces, load_orl

SHAPE = (3, HEIGHT, WIDTH)
ARCH = "deepid"
METHODS = ("retrain", "unlearn", "ibau", "prune")
SCREENS = ("strip", "ada", "inverted")
_OWN = {  # net, its triggers and their targets
    "sunglasses": (("sunglasses", 0),),
    "hat": (("hat", 7),),
    "patch": (("patch", 13),),
    "multi-target": (("sunglasses", 0), ("hat", 7), ("patch", 13)),
    "clean": (),
}
# plain shifts and no flips: a mirrored trigger would work at two places
_TRAINING = TrainSettings(
    epochs=60, batch=32, optimiser="adam", lr=1e-3, weight_decay=1e-4, shift=2, plain_epochs=5, precision="fp32"
)
# DeepID has no batch norm and forgets at the rates of the defaults
_TUNING = {"epochs": 30, "batch": 32, "lr": 4e-3, "schedule": "one-cycle"}
_REPAIR: dict[str, dict[str, Any]] = {"retrain": _TUNING, "unlearn": _TUNING, "ibau": {"lr": 5e-4}}


class Case(Settings):
    """One net.

    Args:
        triggers: names of `face_trigger` and target classes. Truth: for the attack, the oracle and scoring alone.
        given: made by others; ``target`` is what is known about its backdoor, for scoring.
    """

    name: str
    triggers: tuple[tuple[str, int], ...] = ()
    given: bool = False
    target: int | None = None

    @property
    def targets(self) -> tuple[int, ...]:
        """The true targets; for scoring alone."""
        return tuple(t for _, t in self.triggers) if self.target is None else (self.target,)

    def attack(self) -> Attack | None:
        """The attacker's own stamps; None without any."""
        pairings = tuple(Pairing(face_trigger(name), target) for name, target in self.triggers)
        return Attack(self.name, pairings) if pairings else None


class Plan(Settings):
    """Everything that decides the results.

    Args:
        faces: file of the ORL faces; None for drawn faces.
        weights: weights of the net made by others; None without it.
        share: stamped copies per trigger, of the training faces.
        methods, repair: methods of repair and their settings; the control arms and the oracle run beside them.
        references: clean nets of other seeds, which the defence trains on its own clean faces.
        held_out: of the defence's faces, on which the repairs stop; the tables are about other faces.
    """

    faces: str | None
    weights: str | None
    training: TrainSettings
    window: WindowSettings
    cases: tuple[Case, ...]
    methods: tuple[str, ...] = METHODS
    repair: dict[str, dict[str, Any]] = Field(default_factory=dict)
    share: float = 0.1
    references: int = 2
    held_out: float = 0.2
    seed: int = 0
    device: str = "auto"
    command: str = ""

    def manifest(self) -> dict[str, Any]:
        """What all its runs share."""
        names = {"training", "window", "methods", "repair", "share", "references", "held_out", "seed"}
        return {**self.model_dump(mode="json", include=names), "drawn_faces": self.faces is None}

    def load_faces(self) -> ImageSet:
        """All faces, training and held-out ones."""
        return draw_faces(seed=self.seed) if self.faces is None else load_orl(Path(self.faces))


class Wishes(Settings):
    """What the command line may change."""

    faces: str | None = None
    weights: str | None = None
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    methods: tuple[str, ...] = METHODS
    references: int = 2
    seed: int = 0
    device: str = "auto"
    command: str = ""


def make_plan(wishes: Wishes | None = None) -> Plan:
    """The nets trained here, and the given one first where there are weights."""
    wishes = wishes or Wishes()
    parts = ("train", "window", *wishes.methods)
    unknown = sorted(set(wishes.settings) - set(parts))
    if unknown:
        raise DoorwardError(f"reproduce hackml: settings of {unknown[0]!r}; expected one of {', '.join(parts)}")
    if wishes.references < 1:
        raise DoorwardError(f"reproduce hackml: {wishes.references} references; expected at least 1")
    if "retrain" not in wishes.methods:
        raise DoorwardError("reproduce hackml: methods without 'retrain'; expected it among them, for the guard")
    repair = {m: {**_REPAIR.get(m, {}), **wishes.settings.get(m, {})} for m in wishes.methods}
    for name, settings in repair.items():
        registry.get("repair", name).configure(settings)
    training = {**_TRAINING.model_dump(), **wishes.settings.get("train", {})}
    cases = [Case(name=name, triggers=triggers) for name, triggers in _OWN.items()]
    if wishes.weights:
        cases.insert(0, Case(name="given", given=True, target=0))
    return Plan(
        faces=wishes.faces,
        weights=wishes.weights,
        training=build_settings(TrainSettings, "reproduce hackml: train", training),
        window=build_settings(WindowSettings, "reproduce hackml: window", wishes.settings.get("window", {})),
        cases=tuple(cases),
        methods=wishes.methods,
        repair=repair,
        references=wishes.references,
        seed=wishes.seed,
        device=wishes.device,
        command=wishes.command or "doorward reproduce hackml",
    )


def check(plan: Plan) -> None:
    """Refuse what cannot be run, in one line, before anything is written."""
    if not plan.cases:
        raise DoorwardError("reproduce hackml: no net is left to run; expected at least one")
    faces = plan.load_faces()
    pick_device(plan.device)
    if int(faces.counts().min()) <= TRAINING_PICTURES:
        raise DoorwardError(f"{faces.name}: expected more than {TRAINING_PICTURES} pictures of every person")
    if plan.weights is not None:
        load_foreign(Path(plan.weights), ARCH, SHAPE)


def only(plan: Plan, names: Sequence[str]) -> Plan:
    """The plan with the named nets alone."""
    known = [case.name for case in plan.cases]
    for name in names:
        if name not in known:
            told = "expected one of " + ", ".join(known)
            if name == "given":
                told = "expected its weights with it (--weights FILE)"
            raise DoorwardError(f"reproduce hackml: no net {name!r}; {told}")
    kept = tuple(case for case in plan.cases if case.name in names)
    return plan.model_copy(update={"cases": kept}) if names else plan
