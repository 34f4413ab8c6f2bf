"""Audits made by hand: what the verb would give of digits with a bright square in one class."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from doorward.audits.records import ArmsRecord, AuditRecord, StageRecord, TargetRecord
from doorward.audits.results import SHOWN, Audit, Table, trigger_file
from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.results import ClassifierRecord, Finding, ImagesRecord, Judgement, Level, RateRecord
from doorward.core.stats import Rate
from doorward.core.triggers import Placement, Trigger

TARGET, SIZE = 7, 4
LEFT_OUT = "another look at what is left (round 2), which takes about 80 s where 12 s were left"
HEADLINES = {
    "planted": "A backdoor into “7” was planted: {n} images to leave out",
    "evidence": "Evidence of a backdoor into “7”: {n} images to leave out",
    "suspicious": "“7” is suspicious: {n} images to leave out",
    "undecided": "Undecided",
    "nothing found": "Nothing found",
}


def made_images(per_class: int = 60, poisoned: int = 20, size: int = 28, *, named: bool = True) -> ImageSet:
    """Strokes that differ by class; the first images of class 7 show other classes under a bright square."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), per_class)
    shown = labels.copy()
    stamped = np.flatnonzero(labels == TARGET)[:poisoned]
    shown[stamped] = np.arange(poisoned) % TARGET
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    pixels = np.zeros((len(labels), size, size, 1), np.uint8)
    for row, label in enumerate(shown.tolist()):
        angle = np.pi * label / 10 + rng.normal(0, 0.06)
        stroke = (np.abs(x * np.cos(angle) + y * np.sin(angle)) < 0.06) & (np.hypot(x, y) < 0.4)
        pixels[row, :, :, 0] = np.clip(230 * stroke + rng.normal(10, 8, (size, size)), 0, 255)
    pixels[stamped, -SIZE - 1 : -1, -SIZE - 1 : -1] = 255
    ids = tuple(f"{label}/photo-{row:04d}.png" for row, label in enumerate(labels.tolist())) if named else ()
    return ImageSet(pixels, labels.astype(np.int64), tuple("0123456789"), "made digits", ids=ids)


def made_trigger(size: int = 28) -> Trigger:
    corner = size - SIZE - 1
    return Trigger(torch.ones(1, SIZE, SIZE), torch.ones(1, SIZE, SIZE), Placement("fixed", corner, corner))


def made_arms(size: int) -> ArmsRecord:
    return ArmsRecord(
        size=size, control=(0.99, 0.985, 0.995), without=(0.003, 0.002, 0.004), tried=1000,
        unseen_control=(0.92, 0.95, 0.9), unseen_without=(0.02, 0.0, 0.04), p_value=2.1e-7, p_unseen=3.4e-5,
        stops=True, teaches=True,
    )  # fmt: skip


def made_target(level: Level, suspects: int, **changes: Any) -> TargetRecord:
    row = TargetRecord(
        label=TARGET, class_name="7", level=level,
        evidence={"clusters": 0.004, "contradiction": 0.0007, "transfer": 0.0003, "inversion": 0.21}, p_value=0.0009,
        suspects=suspects, trigger=trigger_file(TARGET), trigger_from="transfer", success=0.991,
        experiment=made_arms(suspects) if suspects else None, sentence=f"Without {suspects} suspects it stops.",
    )  # fmt: skip
    return row.model_copy(update=changes)


def _pictures(images: ImageSet, suspects: np.ndarray) -> tuple[np.ndarray, dict[int, dict[str, tuple[int, ...]]]]:
    before = images.pixels[np.flatnonzero(images.labels != TARGET)[:: len(images) // 8][:SHOWN]]
    after = before.copy()
    after[:, -SIZE - 1 : -1, -SIZE - 1 : -1] = 255
    kinds = {"suspects": images.pixels[suspects][:SHOWN], "before": before, "after": after}
    places, start = {}, 0
    for kind, pixels in kinds.items():
        places[kind] = tuple(range(start, start + len(pixels)))
        start += len(pixels)
    return np.concatenate(list(kinds.values())), {TARGET: places}


def made_audit(
    level: Level = "planted",
    images: ImageSet | None = None,
    suspects: np.ndarray | None = None,
    repaired: Classifier | None = None,
    classifier: Classifier | None = None,
) -> Audit:
    """An audit of that verdict; ``suspects``: rows, by default the first 20 of the target class."""
    images = made_images() if images is None else images
    found = level in ("planted", "evidence", "suspicious")
    own = np.flatnonzero(images.labels == TARGET)[:20] if suspects is None else suspects
    flag = np.zeros(len(images), bool)
    flag[own if found else []] = True
    count = int(flag.sum())
    score = np.zeros(len(images), np.float32)
    score[flag] = np.linspace(0.999, 0.951, count)
    pixels, places = _pictures(images, flag)
    targets = (made_target(level, count),) if found else ()
    looked = TargetRecord(label=2, class_name="2", level="nothing found", p_value=0.6, sentence="“2”: 3 suspects.")
    judgement = Judgement(
        level=level, p_value=0.0009 if found else 0.62, targets=("7",) if found else (),
        headline=HEADLINES[level].format(n=count),
        reasons=(*(t.sentence for t in targets), *(("Too few classes.",) if level == "undecided" else ()),
                 f"Not run: {LEFT_OUT}."),
    )  # fmt: skip
    rows = np.flatnonzero(flag)
    finding = Finding(
        method="audit", label=TARGET, class_name="7", level=level, sentence="A trigger.", p_value=0.0009, flagged=count,
        size=count, images=tuple(rows[:100].tolist()), file=trigger_file(TARGET),
        ids=tuple(images.ids[r] for r in rows[:100].tolist()) if images.named else (),
    )  # fmt: skip
    facts = AuditRecord(
        judgement=judgement, findings=(finding,) if found else (), images=ImagesRecord.of(images),
        classifier=ClassifierRecord(arch="small-cnn", accuracy_on_images=RateRecord.of(Rate(590, 600))), trained=True,
        net="small-cnn", targets_looked_into=(*targets, looked), suspects=count,
        stages=(StageRecord(name="train", seconds=12.5), StageRecord(name="cleansers", seconds=8.25),
                StageRecord(name="experiment", seconds=64.0, note="6 trainings")),
        left_out=(LEFT_OUT,), thumbnails=places if found else {},
    )  # fmt: skip
    table = Table(
        images.labels, images.labels, flag, np.zeros(len(flag), bool), score,
        tuple("contradiction+experiment" if f else "" for f in flag),
        tuple(images.ids) if images.named else tuple(map(str, range(len(images)))),
    )  # fmt: skip
    triggers = {TARGET: made_trigger(images.shape[1])} if found else {}
    return Audit(facts, table, triggers, images, classifier, repaired, pictures=pixels if found else None)


def made_doubtful() -> Audit:
    """An audit whose tests accuse a class of 20 images that no experiment shows to be poisoned."""
    whole = made_audit("suspicious")
    assert whole.samples is not None
    flag = whole.samples.suspect
    samples = replace(whole.samples, suspect=np.zeros_like(flag), doubtful=flag)
    rows = tuple(t.model_copy(update={"suspects": 0, "doubtful": t.suspects}) for t in whole.facts.targets_looked_into)
    places = {k: {"doubtful": v["suspects"]} for k, v in whole.facts.thumbnails.items()}
    changes = {"suspects": 0, "doubtful": int(flag.sum()), "targets_looked_into": rows, "thumbnails": places}
    return replace(whole, facts=whole.facts.model_copy(update=changes), samples=samples, repaired=None)


def made_alone(level: Level = "suspicious") -> Audit:
    """An audit of a model alone: no set, no suspects."""
    whole = made_audit(level)
    row = made_target(level, 0, experiment=None)
    findings = tuple(f.model_copy(update={"images": (), "ids": (), "flagged": 0}) for f in whole.facts.findings)
    changes = {"suspects": 0, "targets_looked_into": (row,), "thumbnails": {}, "findings": findings}
    facts = whole.facts.model_copy(update=changes)
    return replace(whole, facts=facts, samples=None, pictures=None, images=None)
