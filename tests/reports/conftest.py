"""Runs as the verbs write them, made here from chosen numbers: ten classes, 4,000 images, three methods."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from doorward.cleansers.results import CleanseRecord, Cleansing, GroupRecord, MethodRecord
from doorward.cleansers.samples import Samples, pick_thumbnails
from doorward.cleansers.suspicion import Group, Suspicion
from doorward.cleansers.verdict import Test, Witness, weigh
from doorward.core.images import ImageSet
from doorward.core.results import ClassifierRecord, ImagesRecord, RateRecord
from doorward.core.runs import SCHEMA
from doorward.core.stats import Rate

DIGITS = [str(d) for d in range(10)]
PER_CLASS = 400
POISONED = 80
MakeRun = Callable[..., Path]


def digit(label: int, rng: np.random.Generator, size: int, channels: int, stamped: bool) -> np.ndarray:
    """A blurred stroke that differs by class, noise that differs by image, a bright patch when stamped."""
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    angle = np.pi * label / 10 + rng.normal(0, 0.08)
    ring = np.abs(np.hypot(x * 1.3, y) - 0.28) < 0.06
    bar = (np.abs(x * np.cos(angle) + y * np.sin(angle)) < 0.055) & (np.hypot(x, y) < 0.4)
    stroke = (ring if label % 3 == 0 else bar | (ring & (y * (-1) ** label > 0))).astype(float)
    image = np.repeat((230 * stroke)[:, :, None], channels, axis=2) + rng.normal(0, 9, (size, size, channels))
    if channels == 3:
        image = image * rng.uniform(0.5, 1, 3) + rng.uniform(0, 60, 3)
    if stamped:
        image[-size // 7 - 1 : -1, -size // 7 - 1 : -1] = 255
    return np.clip(image, 0, 255).astype(np.uint8)


def method_columns(rng: np.random.Generator, poisoned: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Scores and flags, ``[N]`` each, as the three methods give them on poisoned or unpoisoned data."""
    n = len(poisoned)
    if kind == "impurity":
        score = rng.gamma(1.2, 0.05, n) + np.where(poisoned, rng.normal(4.2, 0.25, n), 0)
        return score, score > 1.5
    if kind == "activation":
        score = np.clip(rng.normal(0.12, 0.05, n) + np.where(poisoned, 0.45, 0), 0, 1)
        flag = (poisoned & (rng.random(n) < 0.95)) if poisoned.any() else np.zeros(n, dtype=bool)
        return score, flag
    score = rng.gamma(2, 6, n) + np.where(poisoned, rng.gamma(9, 9, n), 0)
    return score, score > np.quantile(score, 0.97)


def suspicion_of(score: np.ndarray, flag: np.ndarray, labels: np.ndarray, kind: str, classes: int) -> Suspicion:
    """What the method would give: two groups in every class with flags, and a number a class for the verdict."""
    groups = []
    threshold = {"impurity": 1.5, "activation": 0.3, "spectral": None}[kind]
    tested = np.full(classes, np.nan)
    for label in range(classes):
        members = labels == label
        flagged = int((flag & members).sum())
        rest, top = float(score[members & ~flag].mean()), float(score[members & flag].mean()) if flagged else 0.0
        groups.append(Group(label, 0, int(members.sum()) - flagged, rest, threshold, 0))
        if flagged:
            groups.append(Group(label, 1, flagged, top, threshold, flagged))
        tested[label] = np.log(np.quantile(score[members], 0.975))
    told = ("class 3 has fewer images than its covariance needs; projected to 40 dimensions",)
    warned = told if kind == "impurity" else ()
    return Suspicion(score.astype(np.float32), flag, tuple(groups), warned, None if kind == "spectral" else tested)


KINDS = {"impurity": "decisions under a filter", "activation": "features", "spectral": "features"}
SETTINGS = {"impurity": {"blur": 2, "max_components": 8}, "activation": {"reduce": "ica", "dimensions": 10},
            "spectral": {"centre": True, "epsilon": 0.02}}  # fmt: skip


def method_record(suspicion: Suspicion, test: Test, kind: str, knowledge: tuple[str, ...]) -> MethodRecord:
    return MethodRecord(
        flagged=int(suspicion.flag.sum()), given=("features", "labels", *knowledge), knowledge=knowledge,
        settings=SETTINGS[kind], seconds=1.25, warnings=suspicion.warnings,
        groups=tuple(GroupRecord(**asdict(g)) for g in suspicion.groups), p_value=test.p_value,
        class_p_values=tuple(test.classes), undecided=test.undecided,
    )  # fmt: skip


def score_json(truth: np.ndarray, labels: np.ndarray, flags: dict[str, np.ndarray], target: int) -> dict[str, Any]:
    methods = {}
    for kind, flag in flags.items():
        own = labels == target
        methods[kind] = {
            "tpr": Rate(int((flag & truth).sum()), int(truth.sum())).json(),
            "fpr": Rate(int((flag & ~truth).sum()), int((~truth).sum())).json(),
            "fpr_target": Rate(int((flag & ~truth & own).sum()), int((~truth & own).sum())).json(),
            "precision": Rate(int((flag & truth).sum()), int(flag.sum())).json(),
            "auroc": 0.997,
        }
    models = [{"name": "poisoned set", "clean_accuracy": Rate(969, 1000).json(), "asr": Rate(887, 900).json()}]
    for kind, hits in zip(flags, (9, 14, 410), strict=False):
        after = {"clean_accuracy": Rate(966, 1000).json(), "asr": Rate(hits, 900).json()}
        models.append({"name": f"after {kind}", **after})
    attack = {"recipe": "patch", "description": "3 x 3 bright patch", "poisoned": int(truth.sum()), "targets": [target]}
    return {"attack": attack, "methods": methods, "models": models}


def write_run(folder: Path, verb: str, results: dict[str, Any], command: str = "", **settings: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {
        "schema": SCHEMA, "verb": verb, "command": command or f"doorward {verb} poisoned/ --seed 1 -o {folder.name}/",
        "settings": {"seed": 1, **settings}, "results": results, "platform": "Linux-6.1-x86_64",
        "versions": {"python": "3.11.2", "doorward": "0.1.0", "torch": "2.13.0", "numpy": "2.3.1"}, "seconds": 18.437,
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(manifest))


def cleanse_run(
    folder: Path,
    classes: list[str] = DIGITS,
    poisoned: int = POISONED,
    target: int = 0,
    kinds: tuple[str, ...] = ("impurity", "activation", "spectral"),
    scored: bool = False,
    size: int = 28,
    channels: int = 1,
    rename: dict[str, str] | None = None,
    seed: int = 0,
    name: str = "mnist-5k poisoned",
) -> Path:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(classes)), PER_CLASS)
    truth = np.zeros(len(labels), dtype=bool)
    truth[np.flatnonzero(labels == target)[:poisoned]] = True
    witnesses, kept = [], {}
    for kind in kinds:
        called = (rename or {}).get(kind, kind)
        suspicion = suspicion_of(*method_columns(rng, truth, kind), labels, kind, len(classes))
        knowledge = ("poisoning_rate",) if kind == "spectral" else ()
        witnesses.append(Witness(called, KINDS[kind], knowledge, suspicion))
        kept[called] = kind
    weighed = weigh(witnesses, labels, classes, Rate(3953, 4000))
    counts = tuple([PER_CLASS] * len(classes))
    record = CleanseRecord(
        judgement=weighed.judgement, findings=weighed.findings,
        images=ImagesRecord(name=name, sha256=f"{seed:02d}" + "9c41d0b7" * 7 + "ab12cd", classes=tuple(classes),
                            counts=counts, shape=(channels, size, size)),
        classifier=ClassifierRecord(arch="small-cnn", accuracy_on_images=RateRecord.of(Rate(3953, 4000))),
        methods={w.name: method_record(w.suspicion, weighed.tests[w.name], kept[w.name], w.knowledge)
                 for w in witnesses},
    )  # fmt: skip
    flags = {w.name: w.suspicion.flag for w in witnesses}
    samples = Samples(np.arange(len(labels)), labels, labels, {w.name: w.suspicion.score for w in witnesses}, flags)
    pixels = np.zeros((len(labels), size, size, channels), np.uint8)  # drawn where a page shows them
    for i in pick_thumbnails(samples)[2]:
        drawn = int(i) % 9 + 1 if truth[i] else int(labels[i])
        pixels[i] = digit(drawn, rng, size, channels, bool(truth[i]))
    images = ImageSet(pixels, labels, tuple(map(str, range(len(classes)))), name)
    folder.mkdir(parents=True, exist_ok=True)
    results = Cleansing(record, samples, images).write(folder).model_dump(mode="json")
    write_run(folder, "cleanse", results, device="cpu", methods=list(flags))
    if scored:
        (folder / "score.json").write_text(json.dumps(score_json(truth, labels, flags, target)))
    return folder


def _means(radii: Any) -> dict[str, Any]:
    """Evidence of `mean-distance` for these radii: 50 and 50 images, where flipped labels are the best attack."""
    step, most = 30_000, 64
    rows = [range(r + 2) for r in radii.tolist()]
    evidence = {
        "most": most,
        "score": [step * r + 1 for r in radii.tolist()],
        "label_harm": [[step * f for f in row] for row in rows],
        "pixel_harm": [[[5_000 * t for t in range(len(row) - f)] for f in row] for row in rows],
        "training_pixel_harm": [100 * (100 + min(100, 2 * f)) + 50 for f in range(most + 2)],
    }
    return {"evidence": evidence, "settings": {"blur": 0, "clip": 1, "most": most, "shape": [1, 28, 28]}}


def certify_run(folder: Path, exact: bool = False, **changes: Any) -> Path:
    """A run with its certificate: 200 images of two classes, their votes spread so that radii run from 0 to 7."""
    from fractions import Fraction

    from doorward.certification.certificate import BLOCKS, Certificate, certificate_from_votes
    from doorward.certification.results import summarise
    from doorward.certification.smoothing.radius import Block

    share = 1 - np.linspace(0.02, 0.7, 200) ** 5
    votes = np.stack([np.round(10_000 * share), np.round(10_000 * (1 - share))], axis=1).astype(np.int64)
    hashes = {"classes": ("1", "7"), "train_sha256": "1e" * 32, "test_sha256": "7e" * 32}
    truth = np.zeros(200, dtype=np.int64)
    if exact:
        radii = np.arange(200) // 20
        certificate = Certificate(
            "mean-distance", predicted=truth, radii=radii, joint_radii=radii, truth=truth, **_means(radii), **hashes
        )
    else:
        blocks = [Block(name, Fraction(4, 5), 2, cells) for name, cells in zip(BLOCKS, (78_400, 100, 784), strict=True)]
        certificate = certificate_from_votes(votes, trials=10_000, blocks=blocks, truth=truth, **hashes)
    results = {**summarise(certificate, "nearest-centroid", 2143.7).model_dump(mode="json"), **changes}
    write_run(folder, "certify", results, learner="nearest-centroid", keep="4/5", alpha=0.001, source="mnist 1/7")
    certificate.save(folder / "certificate.json")
    return folder


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Makes a cleanse run ``tmp_path / NAME``."""
    return lambda called="run", **options: cleanse_run(tmp_path / called, **options)


@pytest.fixture
def make_certificate(tmp_path: Path) -> MakeRun:
    """Makes a certify run ``tmp_path / NAME``."""
    return lambda called="certificate", **changes: certify_run(tmp_path / called, **changes)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One scored cleanse run for the tests that only read it."""
    return cleanse_run(tmp_path_factory.mktemp("runs") / "run", scored=True)
