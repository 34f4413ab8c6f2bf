"""What runs: the cases of a profile, and every wish of the user checked before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import torch
from pydantic import Field

from doorward.attacks.job import AttackRequest, build_attack
from doorward.core.classifier import pick_device
from doorward.core.errors import DoorwardError
from doorward.core.images import class_number
from doorward.core.methods import Settings, build_settings
from doorward.data.sources import load_images
from doorward.models.train.settings import TrainSettings
from doorward.papers.cluster_impurity.trainers import SIZES, TRAINERS

Scenario = Literal["multiple-source", "single-source", "beyond", "control"]
SCENARIOS = get_args(Scenario)  # in the order of tables
PROFILES = ("cpu", "gpu", "quick", "faithful")


@dataclass(frozen=True)
class Case:
    """One attack, or none, with one seed; ``retrain`` names the methods (CI, SS, AC) after which a net is trained."""

    name: str
    scenario: Scenario
    seed: int
    recipe: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    sources: tuple[int, ...] = ()
    target: int | None = None
    count: int = 0
    size: float | None = None
    retrain: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.name}, seed {self.seed}"

    @property
    def folder(self) -> str:
        """Where its stages lie, below the folder of the runs."""
        return f"{self.name}/seed-{self.seed}"

    def about(self) -> dict[str, Any]:
        """What decides its runs besides the seed and what the whole plan shares."""
        names = ("recipe", "settings", "sources", "target", "count")
        return {n: list(v) if isinstance(v := getattr(self, n), tuple) else v for n in names}

    def request(self, source: str) -> AttackRequest:
        """The attack request; None as target sends every class to the next one."""
        assert self.recipe is not None
        return AttackRequest(
            source=source,
            recipe=self.recipe,
            target="next" if self.target is None else str(self.target),
            sources=tuple(map(str, self.sources)),
            settings=self.settings,
            count=self.count,
            mode="add",
            seed=self.seed,
        )


@dataclass(frozen=True)
class Plan:
    """Everything that decides the results.

    Args:
        source: training and test images (a source with both splits).
        net: architecture.
        trainer: name of the trainer; ``training`` its settings.
        cases: in order of running; controls last.
        clean_share: of the clean training images, known to fine-pruning.
        known_clean: images per class known to be clean, for SCAn's declared form.
        device: ``auto``, ``cpu`` or ``cuda``.
        command: the command line that repeats it.
    """

    source: str
    net: str
    trainer: str
    training: TrainSettings
    cases: tuple[Case, ...]
    clean_share: float = 0.1
    known_clean: int = 100
    device: str = "auto"
    command: str = ""

    def manifest(self) -> dict[str, Any]:
        """What all its runs share."""
        return {
            "source": self.source,
            "net": self.net,
            "trainer": self.trainer,
            "training": self.training.model_dump(mode="json"),
            "clean_share": self.clean_share,
            "known_clean": self.known_clean,
        }


class Wishes(Settings):
    """What the command line may change; None and empty leave it to the profile."""

    trainer: str | None = None
    training: dict[str, Any] = Field(default_factory=dict)
    sizes: tuple[float, ...] = ()
    seed: int = Field(0, ge=0)
    seeds: int | None = Field(None, ge=1)
    source_class: str = "0"
    target: str = "7"
    single_count: int | None = None
    multiple_count: int | None = None
    channels: Literal["all", "one"] = "all"
    beyond: bool | None = None
    retrain: bool | None = None
    device: str = "auto"
    command: str = ""


@dataclass(frozen=True)
class _Profile:
    """The numbers behind a profile's name. ``most_seeds`` holds for the sizes in ``repeated``, one seed elsewhere.

    ``peers_everywhere``: retrain after SS and AC for every seed; otherwise for the first, and after CI for every seed.
    """

    source: str
    net: str
    trainer: str
    multiple: tuple[float, ...]
    single: tuple[float, ...]
    repeated: tuple[float, ...]
    retrained: tuple[float, ...]
    most_seeds: int
    retrain_single: bool
    beyond: tuple[str, ...]
    peers_everywhere: bool = True
    counts: tuple[int, int] = (1000, 900)
    beyond_count: int = 150
    place: dict[str, int] = field(default_factory=dict)


_BEYOND: dict[str, tuple[str, dict[str, Any], bool]] = {  # recipe, settings, whether there is one target
    "pixel": ("pixel", {"size": 0.25}, True),
    "patch": ("patch", {}, True),
    "blend": ("blend", {"alpha": 0.15}, True),
    "sinusoid": ("sinusoid", {}, True),
    "warp": ("warp", {}, True),
    "accessory": ("accessory", {}, True),
    "all-to-all": ("patch", {}, False),
}
_PROFILES = {
    "cpu": _Profile("cifar10", "resnet20", "fast", (0.15, 0.25, 0.40), (0.25,), (0.25,), (0.25,), 3, False, (), False),
    "gpu": _Profile("cifar10", "resnet20", "fast", SIZES, SIZES, SIZES, SIZES, 3, True, tuple(_BEYOND)),
    "faithful": _Profile("cifar10", "resnet20", "faithful", (0.25,), (), (0.25,), (), 1, False, ()),
    # the place has no ink: a pixel that is white already is not changed by adding to it
    "quick": _Profile(
        "mnist-5k", "small-cnn", "quick", (0.40,), (0.40,), (), (0.40,), 1, False, ("patch", "all-to-all"),
        counts=(100, 90), beyond_count=60, place={"row": 4, "column": 4},
    ),
}  # fmt: skip


def make_plan(profile: str, wishes: Wishes | None = None) -> Plan:
    """The plan of a profile, with the user's wishes; see `check` for what is refused then.

    ``cpu``: sizes .15, .25, .40 multiple-source and .25 single-source, three seeds and retraining at .25, hours on two
    cores. ``gpu``: all sizes, three seeds, retraining everywhere, the attacks that the poster does not have.
    ``faithful``: one size with the 200-epoch trainer. ``quick``: digits and a small net, minutes.
    """
    if profile not in _PROFILES:
        raise DoorwardError(f"reproduce: profile {profile!r}; expected one of {', '.join(PROFILES)}")
    if profile == "gpu" and not torch.cuda.is_available():
        raise DoorwardError("reproduce: profile 'gpu' on a machine without CUDA GPU; expected one, or profile 'cpu'")
    wishes, p = wishes or Wishes(), _PROFILES[profile]
    trainer = wishes.trainer or p.trainer
    if trainer not in TRAINERS:
        raise DoorwardError(f"reproduce: trainer {trainer!r}; expected one of {', '.join(TRAINERS)}")
    training = {**TRAINERS[trainer].model_dump(), **wishes.training}
    classes = load_images(p.source).classes
    target, source_class = class_number(wishes.target, classes), class_number(wishes.source_class, classes)
    p = _apply(p, wishes)
    seeds = range(wishes.seed, wishes.seed + p.most_seeds)
    cases: list[Case] = []
    for size in p.multiple:
        cases += _pixel_cases(p, wishes, "multiple-source", size, (), target)
    for size in p.single:
        cases += _pixel_cases(p, wishes, "single-source", size, (source_class,), target)
    for name in p.beyond:
        cases += [_beyond_case(name, p, seed, target) for seed in seeds]
    used = sorted({case.seed for case in cases})
    cases += [Case("control", "control", seed) for seed in used]
    return Plan(
        source=p.source,
        net=p.net,
        trainer=trainer,
        training=build_settings(TrainSettings, f"reproduce: trainer {trainer}", training),
        cases=tuple(cases),
        device="cuda" if profile == "gpu" and wishes.device == "auto" else wishes.device,
        command=wishes.command or f"doorward reproduce cluster-impurity --profile {profile}",
    )


def _apply(p: _Profile, wishes: Wishes) -> _Profile:
    """The profile with the wishes in place of its own numbers."""
    if wishes.sizes:
        chosen = tuple(dict.fromkeys(wishes.sizes))
        p = replace(p, multiple=chosen, single=chosen if p.single else ())
    if wishes.seeds is not None:
        p = replace(p, most_seeds=wishes.seeds, repeated=tuple({*p.multiple, *p.single}))
    if wishes.beyond is not None:
        p = replace(p, beyond=(p.beyond or tuple(_BEYOND)) if wishes.beyond else ())
    if wishes.retrain is not None:
        p = replace(p, retrained=p.multiple if wishes.retrain else ())
    single, multiple = p.counts
    single = single if wishes.single_count is None else wishes.single_count
    multiple = multiple if wishes.multiple_count is None else wishes.multiple_count
    return replace(p, counts=(single, multiple))


def _pixel_cases(
    p: _Profile, wishes: Wishes, scenario: Scenario, size: float, sources: tuple[int, ...], target: int
) -> list[Case]:
    single = scenario == "single-source"
    retrained = size in p.retrained and (p.retrain_single or not single)
    seeds = range(wishes.seed, wishes.seed + (p.most_seeds if size in p.repeated else 1))
    settings = {"size": size, "channels": wishes.channels, **p.place}
    return [
        Case(
            name=f"{scenario}-{size:g}",
            scenario=scenario,
            seed=seed,
            recipe="pixel",
            settings=settings,
            sources=sources,
            target=target,
            count=p.counts[0] if single else p.counts[1],
            size=size,
            retrain=_retrained_after(p, seed == wishes.seed) if retrained else (),
        )
        for seed in seeds
    ]


def _retrained_after(p: _Profile, first_seed: bool) -> tuple[str, ...]:
    return ("CI", "SS", "AC") if first_seed or p.peers_everywhere else ("CI",)


def _beyond_case(name: str, p: _Profile, seed: int, target: int) -> Case:
    recipe, settings, one_target = _BEYOND[name]
    aim = target if one_target else None
    return Case(f"beyond-{name}", "beyond", seed, recipe, settings, (), aim, p.beyond_count)


def check(plan: Plan, picture: str) -> None:
    """Refuse what cannot be run, in one line, before anything is written.

    Args:
        picture: an RGBA PNG that stands in for the accessory's.
    """
    if not plan.cases:
        raise DoorwardError("reproduce: no case is left to run; expected at least one")
    images = load_images(plan.source)
    pick_device(plan.device)
    for case in plan.cases:
        if case.recipe is None:
            continue
        attack = build_attack(with_picture(case, picture).request(plan.source), images)
        (pairing,) = attack.pairings
        held = int(pairing.eligible(images.labels, len(images.classes)).sum())
        if not 0 < case.count <= held:
            told = f"{case.name}: {case.count} images to poison, but the source classes hold {held}"
            raise DoorwardError(f"reproduce {told}; expected 1 to {held}")


def with_picture(case: Case, picture: str) -> Case:
    """The case with the path of the accessory's picture filled in."""
    return replace(case, settings={**case.settings, "picture": picture}) if case.recipe == "accessory" else case


def only(plan: Plan, names: Sequence[str]) -> Plan:
    """The plan with the named cases alone."""
    known = list(dict.fromkeys(case.name for case in plan.cases))
    for name in names:
        if name not in known:
            raise DoorwardError(f"reproduce: no case {name!r}; expected one of {', '.join(known)}")
    return replace(plan, cases=tuple(c for c in plan.cases if c.name in names)) if names else plan
