from typing import Any

import numpy as np
import pytest

from doorward.cleansers.verdict import AGREEING_IMAGES, findings, verdict
from doorward.reports.run_files import CleanseResults, Samples
from doorward.reports.sections import Finding, Verdict

LABELS = np.repeat([0, 1], 50)


def weigh(flags: dict[str, list[int]], told: tuple[str, ...] = ()) -> tuple[tuple[Finding, ...], Verdict]:
    """Findings and verdict when each method flags the rows given; two classes, 50 images each."""
    methods: dict[str, Any] = {
        m: {"flagged": len(rows), "knowledge": ["poisoning_rate"] if m in told else []} for m, rows in flags.items()
    }
    results = CleanseResults.model_validate(
        {
            "images": {"name": "x", "sha256": "0", "classes": ["a", "b"], "counts": [50, 50], "shape": [1, 8, 8]},
            "methods": methods,
        }
    )
    masks = {m: np.isin(np.arange(100), rows) for m, rows in flags.items()}
    samples = Samples(np.arange(100) + 1000, LABELS, {m: np.arange(100.0) for m in flags}, masks)
    found = findings(results, samples)
    return found, verdict(results, found)


def test_agreement_is_the_jaccard_index_within_a_class() -> None:
    found, said = weigh({"p": list(range(10)), "q": [*range(2, 12), 60]})
    assert {(f.method, f.label): f.agreement for f in found} == {
        ("p", 0): pytest.approx(8 / 12), ("q", 0): pytest.approx(8 / 12), ("q", 1): 0.0,
    }  # fmt: skip
    assert said.level == "evidence"
    assert said.headline == "Evidence of a backdoor in class “a”"
    assert "both flag 67 %" in said.reasons[0]


def test_less_than_half_in_common_is_suspicious_only() -> None:
    _, said = weigh({"p": list(range(10)), "q": list(range(5, 15))})  # 5 of 15
    assert said.level == "suspicious"
    _, exact = weigh({"p": list(range(9)), "q": list(range(3, 12))})  # 6 of 12, exactly half
    assert exact.level == "evidence"


def test_a_handful_in_common_is_no_agreement() -> None:
    few = list(range(AGREEING_IMAGES - 1))
    assert weigh({"p": few, "q": few})[1].level == "suspicious"
    enough = list(range(AGREEING_IMAGES))
    assert weigh({"p": enough, "q": enough})[1].level == "evidence"


def test_one_method_alone_is_suspicious() -> None:
    found, said = weigh({"p": list(range(10)), "q": []})
    assert [f.level for f in found] == ["suspicious"]
    assert said.level == "suspicious"
    assert "p flags 10 images in class “a”, 20.0 % of it" in said.reasons[0]


def test_a_method_told_the_number_does_not_count_alone() -> None:
    found, said = weigh({"p": [], "q": list(range(10))}, told=("q",))
    assert said.level == "nothing"
    assert not found[0].weighs
    assert any("was told the poisoning rate" in reason for reason in said.reasons)


def test_two_methods_told_the_number_show_nothing_by_agreeing() -> None:
    same = list(range(10))
    found, said = weigh({"p": same, "q": same}, told=("p", "q"))
    assert said.level == "nothing"
    assert all(f.agreement == 0 for f in found)


def test_a_told_method_may_support_one_that_was_not() -> None:
    same = list(range(10))
    found, said = weigh({"p": same, "q": same}, told=("q",))
    assert said.level == "evidence"
    assert all(f.weighs for f in found)


def test_nothing_found_never_says_that_nothing_is_there() -> None:
    _, said = weigh({"p": [], "q": []})
    assert (said.level, said.headline) == ("nothing", "Nothing found by these methods")
    assert "not proof" in said.reasons[0]


def test_no_verdict_calls_anything_clean() -> None:
    for flags in ({"p": []}, {"p": [1]}, {"p": list(range(9)), "q": list(range(9))}):
        _, said = weigh(flags)
        assert "clean" not in " ".join((said.headline, *said.reasons)).lower()


def test_scattered_flags_are_called_so() -> None:
    _, said = weigh({"p": [0, 1, 2, 50, 51, 52]})
    assert "in 2 of 2 classes, at most 3" in said.reasons[0]


def test_worst_images_come_first_by_their_index() -> None:
    found, _ = weigh({"p": [3, 40, 7]})
    assert found[0].images == (1040, 1007, 1003)
