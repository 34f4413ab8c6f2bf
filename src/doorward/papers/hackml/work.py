"""What the stages do: each writes one run, and goes on in it when it was killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doorward.attacks.files import load_attack, save_attack
from doorward.attacks.plan import Attack
from doorward.attacks.poison import poison
from doorward.attacks.rate import asr
from doorward.core import methods as registry
from doorward.core.classifier import Classifier, measure_accuracy, pick_device
from doorward.core.images import ImageSet
from doorward.core.pixels import to_float, to_uint8
from doorward.core.progress import telling
from doorward.core.results import RateRecord, read_record
from doorward.core.runs import Run
from doorward.core.triggers import Trigger
from doorward.inversion.files import load_stamps
from doorward.inversion.job import InvertRequest, invert_to_folder
from doorward.inversion.judge.evidence import Evidence, rank_targets
from doorward.inversion.results import InvertRecord
from doorward.jobs.processes import Told
from doorward.models.files import load_classifier, save_classifier
from doorward.models.open.foreign import load_foreign
from doorward.models.train.loop import train
from doorward.papers.hackml.faces import split_faces
from doorward.papers.hackml.plan import ARCH, SCREENS, SHAPE, Case, Plan
from doorward.papers.hackml.results import (
    ArmScore,
    EvidenceRecord,
    FaceRepairRecord,
    FacesRecord,
    NetRecord,
    ScreenScore,
    ScreensRecord,
    TargetEvidence,
)
from doorward.repairs.repair import repair
from doorward.scoring.repairs import score_arms
from doorward.screens.base import roc
from doorward.screens.screen import fit

WORKS = 0.5  # success from which a trigger counts as found, and is repaired
_FALSE_REJECTION = 0.05


def divide_faces(plan: Plan, folder: Path) -> None:
    """Training faces, which are the defence's clean faces too, and held-out faces."""
    faces = plan.load_faces()
    with Run(folder / "faces", "faces", {**plan.manifest(), "sha256": faces.hash}, command=plan.command) as run:
        for name, part in zip(("train", "held-out"), split_faces(faces, plan.seed), strict=True):
            (run.work / name).mkdir(exist_ok=True)
            part.save(run.work / name)
        run.keep(FacesRecord(source=faces.name, people=len(faces.classes), images=len(faces)))


def faces_of(folder: Path, name: str) -> ImageSet:
    """``train`` or ``held-out`` faces of the runs."""
    return ImageSet.load(folder / "faces" / name)


def train_reference(plan: Plan, number: int, folder: Path, told: Told) -> None:
    """A clean net of another seed, trained by the defence on its own clean faces."""
    path = folder / f"reference-{number}"
    _train(plan, path, faces_of(folder, "train"), None, plan.seed + 100 + number, folder)


def train_net(plan: Plan, case: Case, folder: Path, told: Told) -> None:
    """Train a net as the attacker does: copies of faces with the trigger and the target's label are added."""
    faces, attack = faces_of(folder, "train"), case.attack()
    seed = plan.seed + 10
    if attack is not None:
        share = plan.share * len(attack.pairings)
        faces = poison(faces, attack, rate=share, mode="add", seed=seed).images
    _train(plan, folder / case.name / "net", faces, attack, seed, folder)


def _train(plan: Plan, path: Path, faces: ImageSet, attack: Attack | None, seed: int, folder: Path) -> None:
    with Run(path, "train-faces", {**plan.manifest(), "of": path.name, "net_seed": seed}, command=plan.command) as run:
        classifier = train(faces, ARCH, plan.training, seed=seed, device=plan.device)
        save_classifier(classifier, run.work)
        if attack is not None:
            save_attack(attack, run.work / "attack")
        held = faces_of(folder, "held-out")
        accuracy = RateRecord.of(measure_accuracy(classifier, held))
        run.keep(NetRecord(accuracy=accuracy, images=len(faces), asr=_each(plan, classifier, held, attack)))


def _each(plan: Plan, classifier: Classifier, held: ImageSet, attack: Attack | None) -> tuple[RateRecord, ...]:
    """Success of every trigger of an attack by itself."""
    single = [Attack("one", (p,)) for p in attack.pairings] if attack else []
    return tuple(RateRecord.of(asr(classifier, held, one, seed=plan.seed)) for one in single)


def search(plan: Plan, case: Case, folder: Path, told: Told) -> None:
    """The three steps of the slides. Nothing about the attack is told."""
    own = {"references": [str(folder / f"reference-{n}") for n in range(1, plan.references + 1)]}
    others: dict[str, Any] = {"arch": ARCH, "labelled": False}
    asked: dict[str, Any] = {
        "model": plan.weights if case.given else str(folder / case.name / "net"),
        "source": str(folder / "faces" / "train"),
        "methods": ("window",),
        "settings": {"window": plan.window.model_dump()},
        "held_out": 0,
        "seed": plan.seed,
        "device": plan.device,
        **(others if case.given else own),
    }
    progress = telling(told, f"{case.name}: ")
    path = folder / case.name / "invert"
    invert_to_folder(InvertRequest(**asked), path, command=plan.command, progress=progress)


def open_net(plan: Plan, case: Case, folder: Path) -> Classifier:
    """The net under suspicion."""
    if case.given:
        assert plan.weights is not None
        return load_foreign(Path(plan.weights), ARCH, SHAPE, device=pick_device(plan.device))
    return load_classifier(folder / case.name / "net", pick_device(plan.device))


def found_triggers(folder: Path, case: Case) -> dict[int, Trigger]:
    """The complete triggers of the suspects, most suspicious first."""
    about = read_record(InvertRecord, folder / case.name / "invert").methods["window"].details["complete"]
    triggers = {}
    for label in map(int, about):
        (trigger,) = load_stamps(folder / case.name / "invert", "window", label)
        assert isinstance(trigger, Trigger)
        triggers[label] = trigger
    return triggers


def weigh(plan: Plan, case: Case, folder: Path, told: Told) -> None:
    """Rank true and natural backdoors together, on faces that the search did not see."""
    classes = read_record(InvertRecord, folder / case.name / "invert").classes
    p_values = {row.label: row.p_value for row in classes if row.p_value is not None}
    classifier, held = open_net(plan, case, folder), faces_of(folder, "held-out")
    reference = None if case.given else load_classifier(folder / "reference-1", pick_device(plan.device))
    with Run(folder / case.name / "evidence", "evidence", plan.manifest(), command=plan.command) as run:
        ranked = rank_targets(
            classifier,
            found_triggers(folder, case),
            held,
            p_values=p_values,
            labelled=not case.given,
            reference=reference,
            seed=plan.seed,
        )
        run.keep(EvidenceRecord(targets=tuple(_evidence(e) for e in ranked)))


def _evidence(found: Evidence) -> TargetEvidence:
    rates = {"strength": RateRecord.of(found.strength), "transfer": found.transfer and RateRecord.of(found.transfer)}
    return TargetEvidence(**{**vars(found), **rates})


def repair_net(plan: Plan, case: Case, folder: Path, told: Told) -> None:
    """Repair true and natural backdoors together, beside control arms; then the guard of the contest."""
    classifier, held = open_net(plan, case, folder), faces_of(folder, "held-out")
    evidence = read_record(EvidenceRecord, folder / case.name / "evidence").targets
    working = {e.label for e in evidence if (e.strength.value or 0) >= WORKS}
    triggers = {label: (t,) for label, t in found_triggers(folder, case).items() if label in working}
    methods = tuple(m for m in plan.methods if triggers or "triggers" not in registry.get("repair", m).given)
    attack = case.attack()
    with Run(folder / case.name / "repair", "repair-faces", plan.manifest(), command=plan.command) as run:
        arms = repair(
            classifier,
            faces_of(folder, "train"),
            triggers or None,
            methods,
            oracle={p.target: (p.stamp,) for p in attack.pairings if p.target is not None} if attack else None,
            settings={m: {**plan.repair[m], **({"around": False} if m == "retrain" else {})} for m in methods},
            held_out=plan.held_out,
            proof=False,
            seed=plan.seed,
            progress=telling(told, f"{case.name}: repair "),
        ).arms
        rows = []
        for arm in arms:
            mended = arm.repaired.classifier
            (row,) = score_arms({arm.planned.name: mended}, held, attack, seed=plan.seed)
            each = _each(plan, mended, held, attack)
            rows.append(ArmScore(**dict(row), role=arm.planned.role, each=each, seconds=arm.seconds))
        rates = None
        if triggers:
            guard = next(a.repaired.guard for a in arms if a.planned.name == "retrain")
            measured = (
                guard.measure(held, stamped_faces(held, attack)) if attack else {"clean_accuracy": guard.accuracy(held)}
            )
            rates = {name: RateRecord.of(rate) for name, rate in measured.items()}
            guard.save(run.work)
        run.keep(FaceRepairRecord(arms=tuple(rows), targets=tuple(sorted(triggers)), guard=rates))


def stamped_faces(faces: ImageSet, attack: Attack) -> NDArray[np.uint8]:
    """Faces of other people under every trigger of the attack."""
    parts = []
    for pairing in attack.pairings:
        rows = pairing.eligible(faces.labels, len(faces.classes))
        parts.append(to_uint8(pairing.stamp.apply(to_float(faces.pixels[rows]))))
    return np.concatenate(parts)


def screen_images(plan: Plan, case: Case, folder: Path, told: Told) -> None:
    """Screens made from the defence's clean faces, on held-out faces as they are and stamped."""
    classifier, held = open_net(plan, case, folder), faces_of(folder, "held-out")
    path = folder / case.name / "net" / "attack"
    attack = load_attack(path) if path.exists() else None
    triggers = found_triggers(folder, case)
    with Run(folder / case.name / "screens", "screens", plan.manifest(), command=plan.command) as run:
        rows = []
        for name in SCREENS:
            if name == "inverted" and not triggers:
                continue
            told(f"{case.name}: screen {name}")
            known = faces_of(folder, "train")
            screen = fit(classifier, known, name, triggers=triggers, false_rejection=_FALSE_REJECTION, seed=plan.seed)
            clean = screen(held.pixels)
            row = ScreenScore(screen=name, refused=int(clean.flags.sum()), clean=len(held))
            if attack is not None:
                stamped = screen(stamped_faces(held, attack))
                false, true, area = roc(clean.scores, stamped.scores)
                curve = {"false": tuple(false.tolist()), "true": tuple(true.tolist()), "auroc": area}
                caught = {"caught": int(stamped.flags.sum()), "stamped": len(stamped.flags)}
                row = row.model_copy(update={**caught, **curve})
            rows.append(row)
        run.keep(ScreensRecord(screens=tuple(rows)))
