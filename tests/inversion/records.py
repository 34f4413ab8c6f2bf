"""Runs of an inversion made from chosen numbers, for what reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from doorward.core.results import RateRecord
from doorward.core.runs import Run
from doorward.core.stats import Rate
from doorward.core.triggers import Trigger
from doorward.inversion.results import (
    ClassRow,
    ClassVerdict,
    InvertRecord,
    MethodRecord,
    RoundRecord,
    SuspectRecord,
    Target,
)
from doorward.inversion.verdict import judge


def method_record(classes: Sequence[str], method: str, asr: Mapping[int, float]) -> MethodRecord:
    """A method that keeps one working trigger for each class with a success rate."""
    rates = {k: RateRecord.of(Rate(round(100 * value), 100)) for k, value in asr.items()}
    rows = [ClassRow(label=k, asr=rates.get(k), converged=True, works=True, ran_out=True) for k in range(len(classes))]
    return MethodRecord(classes=tuple(rows), triggers={k: (f"{method}_{k}_0.safetensors",) for k in asr})


def target(classes: Sequence[str], label: int, method: str = "mask") -> Target:
    file = f"triggers/{method}_{label}_0.safetensors"
    return Target(class_name=classes[label], label=label, p_value=0.001, method=method, file=file)


def write_inversion(
    folder: Path,
    classes: Sequence[str],
    success: Mapping[str, Mapping[int, float]],
    targets: Sequence[Target],
    triggers: Sequence[Mapping[str, Trigger]],
    rounds: Sequence[Sequence[Target]] = (),
    decided: bool = True,
) -> Path:
    """A run as ``doorward invert`` writes it.

    Args:
        success: of the triggers, by method and class.
        triggers: by the names of their files, a mapping a round.
        rounds: targets of each, where there are several.
        decided: False for one that allows no p-value.
    """
    methods = {name: method_record(classes, name, asr) for name, asr in success.items()}
    p_value = (0.001 if targets else 0.5) if decided else None
    judgement, findings = judge(p_value, targets, {})
    places = ["", *(f"round-{number}" for number in range(2, len(triggers) + 1))]
    told = tuple(
        RoundRecord(verdict="evidence", targets=tuple(found), folder=place, methods=methods if place else {})
        for found, place in zip(rounds, places, strict=True)
    ) if rounds else ()  # fmt: skip
    verdicts = tuple(ClassVerdict(class_name=name, label=k, p_value=p_value) for k, name in enumerate(classes))
    suspect = SuspectRecord(arch="small-cnn", classes=len(classes), shape=(1, 8, 8), mean=(0.0,), std=(1.0,))
    record = InvertRecord(
        judgement=judgement, findings=findings, level=0.05, targets=tuple(targets), classes=verdicts,
        classifier=suspect, methods=methods, rounds=told,
    )  # fmt: skip
    with Run(folder, "invert", {}) as run:
        for place, kept in zip(places, triggers, strict=True):
            (run.work / place / "triggers").mkdir(parents=True)
            for name, trigger in kept.items():
                trigger.save(run.work / place / "triggers" / name)
        run.keep(record)
    return folder
