"""The proof of a repair, and the verdict that rests on it."""

from __future__ import annotations

from typing import Any

import pytest

from doorward.core.results import RateRecord
from doorward.core.stats import Paired, Rate
from doorward.repairs.arms import Role
from doorward.repairs.results import ArmRecord, CostRecord, ProofRecord, StandingRecord, VariationRecord
from doorward.repairs.verdict import judge

CLASSES = "abcd"


def proof(
    p: float | None = 1.0, varied: int = 1, natural: float = 0.0, size: float = 50.0, mask_p: float = 1.0,
    beside: dict[int, float] | None = None, fresh: int = 98,
) -> ProofRecord:  # fmt: skip
    standing = StandingRecord(
        method="mask", label=0, size=size, others=48, smallest=40, p_value=mask_p,
        undecided="" if p is not None else "the search had not come to rest", success=RateRecord.of(Rate(fresh, 100)),
    )  # fmt: skip
    variation = VariationRecord(label=0, success=RateRecord.of(Rate(varied, 100)), natural=natural)
    return ProofRecord(
        seed=1, images=500, p_values={0: p}, standings=(standing,), variations=(variation,), beside=beside or {}
    )


def arm(name: str, role: Role, shown: ProofRecord | None, hits: int = 1) -> ArmRecord:
    rate = RateRecord.of(Rate(hits, 100))
    return ArmRecord(
        name=name, role=role, method=name, accuracy=RateRecord.of(Rate(97, 100)), asr=rate, targets={0: rate},
        given=("triggers",), proof=shown,
    )  # fmt: skip


GIVEN = arm("as given", "given", proof(p=0.001, varied=60, size=4.0, mask_p=0.001), hits=90)
SILENT = arm("as given", "given", proof(p=0.6, varied=60, size=45.0, mask_p=0.6), hits=90)
TABLE: list[tuple[str, dict[str, Any], str, str]] = [
    ("the target stands out no more", {}, "repaired", "stands out no more (p = 1)"),
    ("it stands out", {"p": 0.04}, "not repaired", "stands out in a fresh inversion: p = 0.04"),
    ("variations work", {"varied": 40}, "not repaired", "Variations of the triggers into “a” succeed on 40.0 %"),
    ("they work as on any class", {"varied": 40, "natural": 0.35}, "repaired", "stands out no more"),
    ("within chance", {"varied": 14}, "repaired", "stands out no more"),
    ("a fresh one as small works", {"size": 5.0}, "not repaired", "as small as before (5; 4), succeeds on 98.0 %"),
    ("as small, and fails", {"size": 5.0, "fresh": 8}, "repaired", "stands out no more"),
    ("no p-value", {"p": None}, "undecided", "allows no verdict"),
    ("no p-value, and variations work", {"p": None, "varied": 40}, "not repaired", "Variations"),
]


@pytest.mark.parametrize(("case", "shown", "level", "words"), TABLE, ids=[row[0] for row in TABLE])
def test_the_proof_decides(case: str, shown: dict[str, Any], level: str, words: str) -> None:
    judgement, findings = judge((GIVEN, arm("hold", "repair", proof(**shown))), CLASSES)
    assert judgement.level == level and words in " ".join((judgement.headline, *judgement.reasons))
    assert judgement.targets == (("a",) if level == "not repaired" else ())
    assert [f.class_name for f in findings] == list(judgement.targets)
    assert "trained against these very ones" in judgement.reasons[-1], "told last, and called what it is"


def test_success_of_the_triggers_trained_against_alone_proves_nothing() -> None:
    for shown in (None, proof(p=0.02)):
        assert judge((GIVEN, arm("retrain", "repair", shown, hits=0)), CLASSES)[0].level != "repaired"
    judgement, _ = judge((GIVEN, arm("retrain", "repair", proof(), hits=50)), CLASSES)
    assert judgement.level == "not repaired" and "themselves still succeed on 50.0 %" in judgement.reasons[0]
    assert judge((GIVEN, arm("retrain", "repair", None, hits=0)), CLASSES)[0].level == "undecided"


def test_nothing_to_repair_is_said_where_nobody_accused_a_class() -> None:
    after = arm("hold", "repair", proof())
    judgement, _ = judge((SILENT, after), CLASSES, accused=False)
    assert judgement.level == "undecided" and judgement.headline.startswith("Nothing to repair was shown")
    assert judge((SILENT, after), CLASSES, accused=True)[0].level == "repaired", "an inversion's verdict came with it"
    assert judge((GIVEN, after), CLASSES, accused=False)[0].level == "repaired", "it does stand out"


def test_a_measure_that_never_saw_the_backdoor_cannot_say_that_it_is_gone() -> None:
    """A net after a repair that did nothing looks as it did before: silence on both sides shows nothing."""
    quiet = proof(p=0.7, varied=6, size=9.0, mask_p=0.7)
    blind, after = arm("as given", "given", quiet, hits=0), arm("fine-tune", "control", quiet, hits=0)
    judgement, findings = judge((blind, after), CLASSES)
    assert judgement.level == "undecided" and not findings and "cannot tell" in judgement.reasons[0]
    for seen in (
        arm("as given", "given", quiet, hits=90),
        arm("as given", "given", proof(p=0.7, varied=60, mask_p=0.7), hits=0),
        arm("as given", "given", proof(p=0.001, varied=6, size=4.0, mask_p=0.001), hits=0),
    ):
        assert judge((seen, arm("hold", "repair", proof())), CLASSES)[0].level == "repaired"


def test_what_a_repair_without_need_costs_is_told_with_its_interval() -> None:
    cost = CostRecord.of(Paired(lost=6, gained=2, trials=200))
    after = arm("hold", "repair", proof()).model_copy(update={"cost": cost})
    reason = judge((SILENT, after), CLASSES, accused=False)[0].reasons[1]
    assert reason == (
        f"hold was run because it was asked for, and costs 2.0 points of clean accuracy ({100 * cost.low:.1f} to "
        f"{100 * cost.high:.1f}, paired, on the same 200 held-out images); the model as given may be kept."
    )
    assert not any("may be kept" in told for told in judge((GIVEN, after), CLASSES, accused=True)[0].reasons)


def test_another_class_that_stands_out_is_told() -> None:
    judgement, _ = judge((GIVEN, arm("hold", "repair", proof(beside={2: 0.01}))), CLASSES)
    assert "“c”, which was no target, stands out after it: p = 0.01." in judgement.reasons


def test_without_triggers_nothing_is_measured() -> None:
    bare = GIVEN.model_copy(update={"asr": None, "targets": {}, "proof": None})
    judgement, findings = judge((bare, bare.model_copy(update={"name": "ibau", "role": "repair"})), CLASSES)
    assert judgement.level == "undecided" and not findings
