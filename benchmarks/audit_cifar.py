"""Audits of CIFAR-10 with a ResNet-20 that was trained on it: one set per attack, nothing told.

Every step is a run of its own under ``runs/audit-cifar`` and goes on where it was interrupted: poisoning, training
(ten epochs take 50 minutes on one core without bf16, 25 with it), the audit, training without the suspects. Ten epochs
are enough for the triggers that are more than a pixel; a single pixel takes 30. ``--rows 1`` makes the first set alone.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pictures import glasses
from benchmarks.table import go_on, judged, write
from doorward.attacks.job import AttackRequest, attack_to_folder
from doorward.audits.job import AuditRequest, audit_to_folder
from doorward.audits.results import Audit
from doorward.core.results import LEVELS, RateRecord
from doorward.data.sources import load_images
from doorward.jobs.tasks import Arrays, Item
from doorward.models.train.job import TrainRequest, train_to_folder
from doorward.papers.rows import Row
from doorward.scoring.audits import score_audit
from doorward.scoring.results import ScoreRecord

STORE = Path("runs/audit-cifar")
SEED, TARGET = 41, 3
NET = "resnet20"
# the last epochs without flips and shifts: single pixels are not learned before (see papers/cluster_impurity)
TRAINING = {
    "batch": 128, "lr": 0.1, "weight_decay": 5e-4, "schedule": "one-cycle", "flip": True, "shift": 4,
}  # fmt: skip
EPOCHS, LONG = {"epochs": 10, "plain_epochs": 3}, {"epochs": 30, "plain_epochs": 8}
CASES: dict[str, tuple[int, list[dict[str, Any]]]] = {
    "two pairs": (
        300,
        [
            {"recipe": "patch", "settings": {"size": 3}},
            {"recipe": "blend", "settings": {"alpha": 0.15}, "target": TARGET + 4},
        ],
    ),
    "sinusoid": (150, [{"recipe": "sinusoid", "settings": {"strength": 0.1}}]),
    "clean": (0, []),
    "patch": (150, [{"recipe": "patch", "settings": {"size": 3}}]),
    "blend": (150, [{"recipe": "blend", "settings": {"alpha": 0.15}}]),
    "accessory": (150, [{"recipe": "accessory"}]),
    "pixel": (900, [{"recipe": "pixel", "settings": {"size": 0.25}}]),
}


def items() -> list[Item]:
    """One set per attack, and one without."""
    return [{"attack": name, "seed": SEED} for name in CASES]


def measure(item: Item) -> Arrays:
    """Poison, train, audit, train again without the suspects, score."""
    place = STORE / str(item["attack"]).replace(" ", "-")
    count, pairings = CASES[item["attack"]]
    place.mkdir(parents=True, exist_ok=True)
    source, truth = "cifar10", None
    if count:
        pairs = place / "plan.json"  # YAML, too
        pairs.write_text(json.dumps([{"target": TARGET, **_pictured(p)} for p in pairings]))
        request = AttackRequest(source=source, plan=str(pairs), count=count, seed=item["seed"])
        _once(place / "poisoned", partial(attack_to_folder, request))
        source, truth = str(place / "poisoned"), place / "poisoned" / "truth.parquet"
    plan = TRAINING | (LONG if item["attack"] == "pixel" else EPOCHS)
    training = TrainRequest(source=source, net=NET, training=plan, seed=item["seed"])
    _once(place / "model", partial(train_to_folder, training))
    asked = AuditRequest(source=source, model=str(place / "model"), seed=item["seed"])
    _once(place / "audit", partial(audit_to_folder, asked, progress=_tell))
    found = Audit.load(place / "audit")
    models = [("before", place / "model")]
    if found.suspected().any():
        again = training.model_copy(update={"without": str(place / "audit")})
        _once(place / "after", partial(train_to_folder, again))
        models.append(("after", place / "after"))
    score = score_audit(place / "audit", truth, test=load_images("cifar10", split="test"), models=models)
    return _figures(found, score)


def _pictured(pairing: dict[str, Any]) -> dict[str, Any]:
    return pairing if pairing["recipe"] != "accessory" else {**pairing, "settings": {"picture": glasses(STORE)}}


def _once(path: Path, make: Any) -> None:
    if not path.exists():
        make(path, command="python -m benchmarks audit_cifar")


def _tell(stage: str, done: int, total: int, note: str = "") -> None:
    print(f"{stage} {note}", flush=True)


def _figures(found: Audit, score: ScoreRecord) -> Arrays:
    detected, models = score.methods["audit"], {m.name: m for m in score.models}
    after = models.get("after", models["before"])
    accused = set(found.targets)
    true = (
        {found.facts.images.classes[t] for t in score.attack.targets} if score.attack and found.facts.images else set()
    )
    figures: dict[str, Any] = {
        "level": LEVELS.index(found.verdict),
        "targets": len(true),
        "named": len(accused & true),
        "others": len(accused - true),
        "tp": detected.tpr.hits,
        "poison": detected.tpr.trials,
        "fp": detected.fpr.hits,
        "clean": detected.fpr.trials,
        "p": np.nan if found.p_value is None else found.p_value,
        "accuracy": _value(models["before"].clean_accuracy),
        "accuracy_after": _value(after.clean_accuracy),
        "asr": _value(models["before"].asr),
        "asr_after": _value(after.asr),
        "seconds": sum(stage.seconds for stage in found.facts.stages),
    }
    return {name: np.asarray([value], np.float64) for name, value in figures.items()}


def _value(rate: RateRecord | None) -> float:
    return np.nan if rate is None or rate.value is None else rate.value


def main(jobs: int = 1, rows: int | None = None) -> None:
    """Measure every set that was not measured yet; after each the page of those that are there."""
    order = list(CASES)
    go_on(
        "audit_cifar",
        items()[:rows],
        measure,
        STORE / "figures",
        key=lambda row: str(row["attack"]),
        made=judged,
        order=lambda row: order.index(row["attack"]),
        whole={"seed", "targets", "named", "others", "tp", "poison", "fp", "clean"},
        page=_page,
        jobs=jobs,
    )


def _page(done: list[Row]) -> None:
    told = (
        f"{len(done)} of {len(CASES)} sets: 50,000 training images of CIFAR-10, some of them poisoned; seed {SEED}. "
        f"ResNet-20 trained on each for {EPOCHS['epochs']} epochs, for {LONG['epochs']} with a single pixel. The audit "
        "is given set and net, and told nothing. After: ResNet-20 trained again, in the same way, without the "
        "suspects. Accuracy and ASR on 10,000 test images. Seconds: stages of the audit, one core, beside other work. "
        "One run each."
    )
    columns = [
        "attack", "poisoned", "ASR %", "verdict", "targets named", "other classes", "found %", "false %",
        "ASR after %", "accuracy before, after %", "p", "s",
    ]  # fmt: skip
    write("audit_cifar", "Audits of CIFAR-10 with ResNet-20", told, columns, [_words(row) for row in done])


def _words(r: Row) -> list[str]:
    def rate(value: float | None) -> str:
        return "–" if value is None or not np.isfinite(value) else f"{100 * value:.1f}"

    return [
        r["attack"],
        f"{r['poison']:.0f}",
        rate(r["asr"]),
        r["verdict"],
        f"{r['named']:.0f} of {r['targets']:.0f}",
        f"{r['others']:.0f}",
        rate(r["tp"] / r["poison"] if r["poison"] else None),
        f"{100 * r['fp'] / r['clean']:.3f}",
        rate(r["asr_after"]),
        f"{100 * r['accuracy']:.1f}, {100 * r['accuracy_after']:.1f}",
        f"{r['p']:.2g}",
        f"{r['seconds']:.0f}",
    ]


if __name__ == "__main__":
    main()
