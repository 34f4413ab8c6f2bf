"""What the experiment says against its own suspects: it can take back what clusters said of them."""

from __future__ import annotations

import numpy as np
import pytest

from doorward.audits.doubts import at_most_suspicious, no_witness
from doorward.audits.evidence import Evidence, contradicting
from doorward.audits.experiment import Arms
from doorward.audits.parts.contradiction import emptied
from doorward.audits.records import ArmsRecord, TargetRecord
from doorward.audits.rounds import _target
from doorward.audits.verdict import judge, level_of, taken_back, told_otherwise
from doorward.core.order_test import OrderTest
from tests.audits.records import TARGET, made_images

CLUSTERS = {"clusters": 1e-4, "transfer": 1.0, "inversion": 0.4}


def arms(as_labelled: float, *, stops: bool = False) -> ArmsRecord:
    unseen = {"unseen_without": (as_labelled,) * 3, "unseen_control": (0.97,) * 3}
    return ArmsRecord(size=80, **unseen, p_value=0.5, stops=stops, plain=stops)


def judged(kinds: dict[str, float], p: float, made: ArmsRecord | None, *, unopposed: bool = False) -> str:
    """What a class comes to, with that p-value of all kinds together."""
    back = taken_back(made, unopposed=unopposed)
    return level_of(kinds, told_otherwise(kinds, p, back), made, 0.05, back)


def test_a_natural_kind_that_shows_what_its_label_says_is_no_finding() -> None:
    assert judged(CLUSTERS, 3e-4, arms(0.9)) == "nothing found"
    assert level_of(CLUSTERS, 3e-4, arms(0.3), 0.05) == "suspicious"
    assert level_of(CLUSTERS, 3e-4, None, 0.05) == "suspicious"


def test_what_a_natural_kind_has_in_common_goes_with_it_unless_it_plainly_works() -> None:
    kinds = {"clusters": 1.0, "transfer": 6e-4}
    natural = arms(0.9)
    assert judged(kinds, 1e-3, natural) == "nothing found"
    plain = natural.model_copy(update={"plain": True})
    assert told_otherwise(kinds, 1e-3, taken_back(plain)) == pytest.approx(1.2e-3, rel=1e-3)
    assert judged(kinds, 1e-3, plain) == "suspicious"


def test_a_cluster_that_lies_apart_and_contradicts_nobody_is_no_finding() -> None:
    assert judged(CLUSTERS, 3e-4, None, unopposed=True) == "nothing found"
    assert judged({**CLUSTERS, "transfer": 6e-4}, 3e-4, None, unopposed=True) == "suspicious", "a trigger was seen"
    assert judged(CLUSTERS, 3e-4, arms(0.3), unopposed=True) == "suspicious", "there were suspects to try"


@pytest.mark.parametrize(
    ("as_labelled", "others", "refutes"),
    [
        (0.38, 0.55, True),  # nets that are right on half of what they never saw are so on these, too
        (0.2, 0.55, False),
        (0.55, 0.97, False),  # half of them show something else
        (0.65, 0.97, True),
        (0.2, 0.2, False),  # nets that know nothing refute nothing
        (0.85, 0.2, True),
    ],
)
def test_suspects_are_held_against_other_images_that_the_nets_never_saw(
    as_labelled: float, others: float, *, refutes: bool
) -> None:
    assert arms(as_labelled).model_copy(update={"others": (others, None, others)}).refutes is refutes


def test_an_experiment_is_one_test_more_so_that_verdict_and_p_value_agree() -> None:
    kinds = {"clusters": 1.0, "transfer": 0.0137}
    assert level_of(kinds, 0.0273, None, 0.05) == "suspicious"
    assert level_of(kinds, 0.0273, arms(0.5), 0.05) == "nothing found"
    assert level_of(kinds, 0.02, arms(0.5), 0.05) == "suspicious"


def test_what_was_seen_of_triggers_stays() -> None:
    kinds = {**CLUSTERS, "inversion": 1e-3}
    p = told_otherwise(kinds, 3e-4, taken_back(arms(0.9)))
    assert p == pytest.approx(1 - (1 - 1e-3) ** 3) and judged(kinds, 3e-4, arms(0.9)) == "suspicious"
    assert level_of(CLUSTERS, 3e-4, arms(0.9, stops=True), 0.05) == "planted"  # it stopped: nothing is taken back


def test_the_p_value_of_the_audit_follows() -> None:
    together = OrderTest(3e-4, np.array([3e-4, 0.6, 0.9, 1.0]))

    def row(p: float, made: ArmsRecord) -> TargetRecord:
        return TargetRecord(label=0, class_name="cup", level="nothing found", p_value=p, experiment=made)

    assert judge([row(0.8, arms(0.9))], together, suspects=0).p_value == pytest.approx(1 - 0.4**2)
    assert judge([row(3e-4, arms(0.9))], together, suspects=0).p_value == pytest.approx(1 - (1 - 3e-4) ** 2)
    stopped = arms(0.4, stops=True).model_copy(update={"p_value": 1e-5})
    assert judge([row(0.4, stopped)], together, suspects=0).p_value == pytest.approx(2e-5, rel=1e-3)
    for told in (row(0.8, stopped), row(0.4, stopped.model_copy(update={"plain": False}))):
        p = judge([told], together, suspects=0).p_value
        assert p is not None and p > 0.5, "an experiment that convicts nobody is no evidence in the p-value either"


def test_a_model_that_has_hardly_learned_the_set_accuses_nobody_by_its_features_alone() -> None:
    together = OrderTest(3e-4, np.array([3e-4, 0.6, 0.9, 1.0]))

    def row(level: str) -> TargetRecord:
        return TargetRecord(label=0, class_name="cup", level=level, p_value=3e-4, sentence="“cup”: 3 suspects.")

    assert judge([row("suspicious")], together, suspects=0, doubted=no_witness(0.6)).level == "suspicious"
    told = judge([row("suspicious")], together, suspects=0, doubted=no_witness(0.23))
    assert told.level == "undecided" and not told.targets and "right on 23 % of the set" in told.reasons[0]
    for level in ("planted", "evidence"):  # the experiment is made with other nets
        assert judge([row(level)], together, suspects=9, doubted=no_witness(0.23)).level == level
    assert judge([], together, suspects=0, doubted=no_witness(0.23)).level == "nothing found"


@pytest.mark.parametrize(
    ("control", "as_labelled", "works", "brings"),
    [
        (0.35, 0.1, 0.95, False),  # a copy hardly takes it up again
        (0.6, 0.1, 0.95, True),
        (0.35, 0.1, 0.0, True),  # nets made anew: whether a trigger of the model's works on them is not known
        (0.6, 0.9, 0.95, False),  # the suspects are what their label says
    ],
)
def test_the_trigger_has_to_come_with_the_suspects(
    control: float, as_labelled: float, works: float, *, brings: bool
) -> None:
    rates = np.full(3, control)
    known = np.full(3, 0.97)
    made = Arms(0, 80, 0, np.full(3, 0.01), rates, 300, known, np.full(3, as_labelled), known, 1e-4, 1.0)
    assert made.suspects_bring_it(works) is brings


def test_in_a_class_of_ten_one_hard_image_is_no_finding_and_in_a_large_one_a_tenth_is() -> None:
    labels = np.repeat(np.arange(5), (10, 10, 400, 400, 400))
    suspects = np.zeros(len(labels), bool)
    suspects[0] = suspects[20] = suspects[420] = True
    one, none, large, *_ = contradicting(suspects, labels, 5)
    assert one - none < 0.7 and abs(large) < 0.1
    suspects[20:60] = True
    ratios = contradicting(suspects, labels, 6)
    assert ratios[2] - ratios[3] > 2 and np.isnan(ratios[5])


def test_a_class_that_would_be_emptied_is_left_alone() -> None:
    labels = np.repeat(np.arange(3), (7, 40, 100))
    out = np.zeros(len(labels), bool)
    out[:3] = out[7:40] = out[47:120] = True  # 4, 7 and 27 stay
    found = emptied(out, labels)
    assert found[:7].all() and not found[7:].any()
    out[40:46] = True  # 1 of 40
    assert emptied(out, labels)[:47].all()


def test_nets_that_have_hardly_learned_the_set_show_nothing() -> None:
    assert [at_most_suspicious(level) for level in ("planted", "evidence")] == ["suspicious", "suspicious"]
    assert [at_most_suspicious(level) for level in ("undecided", "nothing found")] == ["undecided", "nothing found"]


@pytest.mark.parametrize(("hardly", "level"), [(False, "planted"), (True, "suspicious")])
def test_what_they_show_of_a_class_is_no_more_than_suspicious(hardly: bool, level: str) -> None:
    shown = ArmsRecord(size=80, p_value=1e-6, stops=True, plain=True, teaches=True)
    tests = {"clusters": OrderTest(1e-6, np.full(10, 1e-6))}
    found = _target(
        TARGET, 1, made_images(), Evidence(tests, {}, {}), ("", None, None), shown, 0.05, unopposed=False, hardly=hardly
    )
    assert found.level == level
