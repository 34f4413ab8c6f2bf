"""The verdict: silent on outliers that any class has, loud where two kinds of method accuse one class."""

from __future__ import annotations

import numpy as np
import pytest

from doorward.cleansers.suspicion import Suspicion
from doorward.cleansers.verdict import FEWEST_IMAGES, POOR_ACCURACY, Weighed, Witness, weigh
from doorward.core.stats import Rate

CLASSES = tuple("abcdefghij")
EACH = 40
LABELS = np.repeat(np.arange(10), EACH)
ORDINARY = np.array([0.1, 0.3, -0.2, 0.0, 0.25, -0.1, 0.15, -0.3, 0.05, 0.2])


def witness(
    name: str, rows: list[int], *, kind: str = "", peak: float | None = 9.0, told: bool = False, at: int = 0
) -> Witness:
    """A method that flags the rows given; its number for class ``at`` is ``peak``, None: it gives no numbers."""
    flag = np.isin(np.arange(len(LABELS)), rows)
    tested = None
    if peak is not None:
        tested = ORDINARY.copy()
        tested[at] = peak
    suspicion = Suspicion(np.arange(len(LABELS), dtype=np.float32), flag, (), (), tested)
    return Witness(name, kind or name, ("poisoning_rate",) if told else (), suspicion)


def said(*witnesses: Witness, accuracy: float = 1.0) -> Weighed:
    return weigh(witnesses, LABELS, CLASSES, Rate(round(accuracy * 400), 400))


def test_two_kinds_that_accuse_the_same_images_are_evidence() -> None:
    found = said(witness("p", list(range(10))), witness("q", list(range(2, 12))))
    assert found.judgement.level == "evidence" and found.judgement.targets == ("a",)
    assert found.judgement.headline == "Evidence of a backdoor in class “a”"
    assert found.judgement.p_value is not None and found.judgement.p_value < 0.01
    assert [f.agreement for f in found.findings] == [pytest.approx(8 / 12)] * 2
    assert "both flag 67 %" in found.judgement.reasons[0]


def test_two_methods_of_one_kind_are_one_witness() -> None:
    same = list(range(10))
    found = said(witness("p", same, kind="features"), witness("q", same, kind="features"))
    assert found.judgement.level == "suspicious" and all(f.agreement == 0 for f in found.findings)


def test_less_than_half_in_common_is_suspicious_only() -> None:
    assert said(witness("p", list(range(10))), witness("q", list(range(5, 15)))).judgement.level == "suspicious"
    assert said(witness("p", list(range(9))), witness("q", list(range(3, 12)))).judgement.level == "evidence"


def test_both_must_stand_out_from_the_other_classes() -> None:
    same = list(range(10))
    assert said(witness("p", same), witness("q", same, peak=0.3)).judgement.level == "suspicious"
    assert said(witness("p", same, peak=0.3), witness("q", same, peak=0.3)).judgement.level == "nothing found"


def test_a_handful_of_outliers_is_no_finding() -> None:
    few, enough = list(range(FEWEST_IMAGES - 1)), list(range(FEWEST_IMAGES))
    found = said(witness("p", few), witness("q", few))
    assert found.judgement.level == "nothing found" and found.judgement.p_value == 1
    assert [f.level for f in found.findings] == ["nothing found"] * 2, "they stand in the table alone"
    assert any("table alone" in reason for reason in found.judgement.reasons)
    assert said(witness("p", enough), witness("q", enough)).judgement.level == "evidence"


def test_flags_in_another_class_than_the_one_that_stands_out_do_not_count() -> None:
    assert said(witness("p", list(range(EACH, EACH + 20)))).judgement.level == "nothing found"


def test_the_level_is_that_of_the_whole_verdict() -> None:
    """Five methods on sets without poison: numbers normal, all images flagged; at most one set in twenty is accused."""
    rng, accused = np.random.default_rng(3), 0
    for _ in range(300):
        own = [
            Witness(f"m{i}", f"k{i}", (), Suspicion(np.zeros(400, np.float32), np.ones(400, bool), (), (), numbers))
            for i, numbers in enumerate(rng.normal(size=(5, 10)))
        ]
        accused += weigh(own, LABELS, CLASSES, Rate(400, 400)).judgement.level != "nothing found"
    assert accused <= 25  # 15 expected; binomial, probability of more 0.5 %


def test_a_method_told_the_number_does_not_count_alone() -> None:
    found = said(witness("p", []), witness("q", list(range(10)), told=True))
    assert found.judgement.level == "nothing found" and not found.findings[0].weighs
    assert any("was told the poisoning rate" in reason for reason in found.judgement.reasons)
    same = list(range(10))
    assert said(witness("p", same, told=True), witness("q", same, told=True)).judgement.level == "undecided"
    supported = said(witness("p", same), witness("q", same, told=True))
    assert supported.judgement.level == "evidence" and all(f.weighs for f in supported.findings)


def test_a_net_that_has_not_learned_its_images_is_no_witness() -> None:
    same = list(range(10))
    found = said(witness("p", same), accuracy=POOR_ACCURACY - 0.01)
    assert found.judgement.level == "undecided" and "has not learned them" in found.judgement.reasons[0]
    assert said(witness("p", same), witness("q", same), accuracy=0.5).judgement.level == "evidence"


def test_few_classes_have_no_p_value_but_two_kinds_may_agree() -> None:
    labels = np.repeat([0, 1], 50)

    def few(rows: list[int], name: str) -> Witness:
        flag = np.isin(np.arange(100), rows)
        return Witness(name, name, (), Suspicion(np.zeros(100, np.float32), flag, (), (), np.array([5.0, 0.0])))

    alone = weigh([few(list(range(10)), "p"), few([], "q")], labels, ("a", "b"), Rate(100, 100)).judgement
    assert (alone.level, alone.p_value) == ("undecided", None) and "2 classes to compare" in alone.reasons[0]
    both = [few(list(range(10)), "p"), few(list(range(10)), "q")]
    assert weigh(both, labels, ("a", "b"), Rate(100, 100)).judgement.level == "suspicious"


def test_what_classes_showed_in_other_sets_speaks_where_there_is_nothing_to_compare() -> None:
    labels = np.repeat(np.arange(2), EACH)
    flag = np.arange(len(labels)) < 10

    def two(alone: float) -> Weighed:
        own = Suspicion(flag.astype(np.float32), flag, (), (), np.array([5.0, -3.0]), 0.7, np.array([alone, 1.0]))
        return weigh([Witness("t", "triggers", (), own)], labels, ("a", "b"), Rate(80, 80))

    assert two(0.001).judgement.level == "suspicious"
    assert two(0.001).judgement.p_value == pytest.approx(0.001999), "for the number of classes"
    assert two(0.2).judgement.level == "nothing found"


def test_of_two_comparisons_the_smaller_p_value_counts_doubled() -> None:
    flag = np.arange(len(LABELS)) < 10

    def ten(peak: float, alone: float) -> float:
        numbers, chances = ORDINARY.copy(), np.ones(10)
        numbers[0], chances[0] = peak, alone
        own = Suspicion(flag.astype(np.float32), flag, (), (), numbers, 0.0, chances)
        p = said(Witness("t", "triggers", (), own)).judgement.p_value
        assert p is not None
        return p

    assert ten(0.1, 1e-4) == pytest.approx(2 * (1 - (1 - 1e-4) ** 10))
    assert ten(9.0, 1.0) == pytest.approx(2 * said(witness("p", list(range(10)))).tests["p"].classes[0])
    assert ten(0.1, 1.0) == pytest.approx(1.0)


def test_nothing_found_never_says_that_nothing_is_there() -> None:
    found = said(witness("p", []), witness("q", [])).judgement
    assert (found.level, found.headline) == ("nothing found", "Nothing found by these methods")
    assert "not proof" in found.reasons[0]
    for one in (found, said(witness("p", [1])).judgement, said(witness("p", list(range(9)))).judgement):
        assert "clean" not in " ".join((one.headline, *one.reasons)).lower()


def test_worst_images_come_first_and_at_most_a_hundred() -> None:
    assert said(witness("p", [3, 39, 7, 8, 9])).findings[0].images == (39, 9, 8, 7, 3)
