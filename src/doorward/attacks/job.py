"""From a request in plain values to a poisoned set in a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from doorward.attacks.files import save_attack, save_truth
from doorward.attacks.plan import Attack, Pairing
from doorward.attacks.poison import poison
from doorward.attacks.results import AttackRecord
from doorward.attacks.stamps import make_stamp
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet, class_number
from doorward.core.methods import Settings, build_settings
from doorward.core.opening import read_text
from doorward.core.runs import Run
from doorward.core.yaml_text import parse_yaml
from doorward.data.reading import Reading
from doorward.data.sources import load_as

_MOST_PLAN = 2**20  # bytes


class PairingRequest(Settings):
    """One trigger and its label rule; classes by number or name."""

    recipe: str = "patch"
    target: str | int = "0"
    sources: tuple[str | int, ...] = ()
    settings: dict[str, Any] = Field(default_factory=dict)


class AttackRequest(PairingRequest, Reading):
    """What ``doorward attack`` was asked for. ``plan`` names a YAML list of pairings instead of one."""

    source: str
    plan: str | None = None
    rate: float | None = None
    count: int | None = None
    mode: Literal["replace", "add"] = "replace"
    seed: int = 0


def build_attack(request: AttackRequest, images: ImageSet) -> Attack:
    """The attack that a request describes, for these images."""
    pairings = [request] if request.plan is None else _read_plan(Path(request.plan))
    built = []
    for number, entry in enumerate(pairings):
        target = None if entry.target == "next" else class_number(str(entry.target), images.classes)
        sources = tuple(class_number(str(s), images.classes) for s in entry.sources) or None
        stamp = make_stamp(entry.recipe, images.shape, request.seed + 1000 * number, **entry.settings)
        built.append(Pairing(stamp, target, sources))
    attack = Attack("+".join(dict.fromkeys(p.recipe for p in pairings)), tuple(built))
    attack.check(len(images.classes))
    return attack


def _read_plan(path: Path) -> list[PairingRequest]:
    entries = parse_yaml(read_text(path, most=_MOST_PLAN), path, "a YAML list of pairings")
    if not isinstance(entries, list) or not entries or not all(isinstance(e, dict) for e in entries):
        raise DoorwardError(f"{path}: expected a YAML list of pairings, each with recipe, target, sources, settings")
    return [build_settings(PairingRequest, str(path), entry) for entry in entries]


def attack_to_folder(
    request: AttackRequest, output: Path | str, *, overwrite: bool = False, command: str = ""
) -> AttackRecord:
    """Poison a source and write the set, the truth and the attack as one run."""
    images = load_as(request.source, request)
    attack = build_attack(request, images)
    settings = {**request.model_dump(mode="json"), "source_sha256": images.hash}
    with Run(Path(output), "attack", settings, overwrite, command) as run:
        poisoned = poison(
            images,
            attack,
            rate=request.rate,
            count=request.count,
            mode=request.mode,
            seed=request.seed,
            pixels_file=run.work / "images.npy",
        )
        poisoned.images.save(run.work)
        save_truth(poisoned.truth, run.work / "truth.parquet")
        save_attack(attack, run.work / "attack")
        record = AttackRecord(
            images=len(poisoned.images),
            poisoned=int(poisoned.truth.poisoned.sum()),
            recipe=attack.recipe,
            description=attack.describe(images.classes),
            sha256=poisoned.images.hash,
        )
        run.keep(record)
    return record
