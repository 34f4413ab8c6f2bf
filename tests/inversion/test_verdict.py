"""p-values are exact where they claim to be, and find one target, several, and none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from doorward.core.errors import DoorwardError
from doorward.core.order_test import (
    OrderTest,
    combine,
    control_test,
    gamma_p_value,
    most_targets,
    order_test,
    studentised,
)
from doorward.inversion.inverted import Inverted, spread
from doorward.inversion.search.runner import judge


@pytest.mark.parametrize("classes", [4, 10, 43])
def test_p_values_are_uniform_on_exact_nulls(classes: int) -> None:
    rng = np.random.default_rng(classes)
    values = rng.normal(rng.normal(0, 5, (800, 1)), rng.uniform(0.1, 9, (800, 1)), (800, classes))
    found = [order_test(row).p_value for row in values]
    assert stats.kstest(found, "uniform").pvalue > 0.05


def test_early_dropping_never_makes_small_p_values_commoner() -> None:
    rng = np.random.default_rng(1)
    found = []
    for _ in range(800):
        early = rng.normal(size=64)
        final = early + rng.normal(size=64) * rng.choice([0, 1, 10])  # ranks early and late agree fully, partly, hardly
        kept = np.zeros(64, bool)
        kept[np.argsort(-early)[:16]] = True
        found.append(order_test(final, compared=kept).p_value)
    share = np.mean(np.array(found) <= 0.1)
    assert share <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / 800)


def test_the_clearest_of_the_statistics_is_students_t() -> None:
    # R_1 / sqrt(1 + 1 / (K - 1)) of one class fixed in advance follows t with K - 2 degrees of freedom; here K = 5
    values = np.array([[9.0, 4.0, 3.0, 2.0, 1.0]])
    others = values[0, 1:]
    assert studentised(values, 1)[0, 0] == pytest.approx((9 - others.mean()) / others.std(ddof=1))


def test_the_second_statistic_leaves_the_first_out() -> None:
    values = np.array([[100.0, 50.0, 3.0, 2.0, 1.0, 0.0]])
    below = values[0, 2:]
    assert studentised(values, 2)[0, 1] == pytest.approx((50 - below.mean()) / below.std(ddof=1))


def test_one_target_is_found_and_no_other() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=10)
    values[7] += 12
    tested = order_test(values)
    assert tested.p_value < 0.01 and tested.classes[7] == tested.p_value
    assert (np.delete(tested.classes, 7) > 0.05).all()


def test_two_targets_that_hide_each_other_are_both_found() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=12)
    values[[3, 8]] = 14, 14.2
    alone = (values[8] - np.delete(values, 8).mean()) / np.delete(values, 8).std(ddof=1)
    assert stats.t.sf(alone / np.sqrt(1 + 1 / 11), 10) * 12 > 0.05, "against all others, neither stands out"
    tested = order_test(values)
    assert tested.classes[3] < 0.01 and tested.classes[8] < 0.01
    assert (np.delete(tested.classes, [3, 8]) > 0.05).all()


def test_only_large_statistics_count_and_scale_does_not() -> None:
    values = np.random.default_rng(3).normal(size=10)
    low = values.copy()
    low[0] = -40
    assert order_test(low).p_value > 0.05
    assert order_test(values).p_value == order_test(1000 * values - 77).p_value


def test_classes_rise_from_the_models_p_value() -> None:
    values = np.sort(np.random.default_rng(5).normal(size=20))[::-1]
    tested = order_test(values)
    most = most_targets(20)
    assert tested.p_value == tested.classes[0] and (np.diff(tested.classes[:most]) >= 0).all()
    assert (tested.classes[most:] == 1).all()


def test_too_few_classes() -> None:
    with pytest.raises(DoorwardError, match="3 classes to compare; expected at least 4"):
        order_test(np.array([1.0, 2.0, 3.0]))


def test_published_p_value_by_the_formula() -> None:
    values = np.random.default_rng(0).gamma(4, 2, 30)
    a, _, scale = stats.gamma.fit(np.sort(values)[:-1], floc=0)
    assert gamma_p_value(values) == pytest.approx(1 - stats.gamma.cdf(values.max(), a, scale=scale) ** 30)
    assert gamma_p_value(np.array([1.0, 2.0])) is None


def test_combined_p_values_of_independent_methods_are_uniform() -> None:
    draws = np.random.default_rng(7).uniform(size=(2000, 3))
    combined = [combine([OrderTest(p, np.array([p, 1.0])) for p in row]) for row in draws]
    assert stats.kstest([c.p_value for c in combined], "uniform").pvalue > 0.05
    assert all(c.classes[0] == pytest.approx(c.p_value) and c.classes[1] == 1 for c in combined)
    assert combine([OrderTest(0.01, np.array([0.01]))] * 2).p_value == pytest.approx(1 - 0.99**2)


def test_against_controls_by_hand() -> None:
    # 9 against 3, 1, 2, 4: t = 6.5 / (sqrt(5 / 3) sqrt(5 / 4)) with 3 degrees of freedom, so t / sqrt(3) = 2.6, and
    # Student's distribution has a closed form; the control 4 against 3, 1, 2: t = 2 / sqrt(4 / 3) = sqrt(3), 2 degrees
    tested = control_test(np.array([3, 1, 2, 4, 9, np.nan]), (0, 1, 2, 3), total=10)
    alone = 0.5 - (2.6 / (1 + 2.6**2) + np.arctan(2.6)) / np.pi
    assert tested.classes[4] == pytest.approx(1 - (1 - alone) ** 10)
    assert tested.p_value == tested.classes[4]
    others = 0.5 - np.sqrt(3) / (2 * np.sqrt(5))
    assert tested.classes[3] == pytest.approx(1 - (1 - others) ** 10)
    assert tested.classes[5] == 1, "nobody looked"


def test_a_class_against_controls_is_uniform_and_the_largest_of_many_is_rarely_significant() -> None:
    rng, alone, every = np.random.default_rng(11), [], []
    for _ in range(600):
        values = rng.normal(rng.normal(0, 5), rng.uniform(0.1, 9), 60)
        controls = rng.permutation(60)[:10]
        fixed = np.setdiff1d(np.arange(60), controls)[0]
        only = np.isin(np.arange(60), [*controls, fixed])
        alone.append(control_test(np.where(only, values, np.nan), controls.tolist(), 1).classes[fixed])
        finalists = np.argsort(-values)[:5]  # chosen by the very numbers that are tested
        seen = np.isin(np.arange(60), [*controls, *finalists])
        every.append(control_test(np.where(seen, values, np.nan), controls.tolist(), 60).p_value)
    assert stats.kstest(alone, "uniform").pvalue > 0.05
    for level in (0.05, 0.2):
        share, chance = np.mean(np.array(every) <= level), 3 * np.sqrt(level * (1 - level) / 600)
        assert share <= level + chance, "false alarms"
        assert share >= level / 4, "not by saying nothing"


def test_a_control_is_compared_with_the_others_only() -> None:
    values = np.random.default_rng(2).normal(size=30)
    controls = tuple(range(10, 22))
    values[10] = 40.0
    tested = control_test(values, controls, 30)
    moved = values.copy()
    moved[10] = 80.0
    assert tested.classes[10] < 1e-6, "it does not hide itself"
    further = control_test(moved, controls, 30).classes
    assert further[10] < tested.classes[10]
    values[5] = 40.0  # no control: neither it nor other finalists change what the controls are compared with
    again = control_test(values, controls, 30)
    assert np.delete(again.classes, 5) == pytest.approx(np.delete(tested.classes, 5), rel=1e-12)


def test_scale_does_not_count_and_classes_nobody_looked_at_do() -> None:
    values = np.where(np.arange(30) < 14, np.random.default_rng(4).normal(size=30), np.nan)
    values[13] = 4.0
    tested = control_test(values, range(10), 30)
    assert control_test(1000 * values - 77, range(10), 30).classes == pytest.approx(tested.classes, rel=1e-9)
    assert (tested.classes[14:] == 1).all()
    few = control_test(values, range(10), 14)
    assert (few.classes[:14] < tested.classes[:14])[tested.classes[:14] < 1].all()
    hidden = values.copy()
    hidden[3] = np.nan
    left = control_test(hidden, range(10), 30)
    assert left.classes[3] == 1
    assert left.classes[13] == control_test(values, [k for k in range(10) if k != 3], 30).classes[13]


def test_too_few_controls_are_one_line_and_no_verdict() -> None:
    values = np.array([1.0, 2.0, 3.0, np.nan, 9.0, 5.0, 4.0])
    with pytest.raises(DoorwardError, match="^verdict: 3 control classes to compare with; expected 4 or more$"):
        control_test(values, (0, 1, 2, 3), 7)
    reached = np.isfinite(values)
    found = Inverted(values, "", reached, reached, reached, controls=(0, 1, 2, 3))
    assert judge(found) == (None, "3 control classes came to a result; expected at least 4")
    enough = Inverted(values, "", reached, reached, reached, controls=(0, 1, 2, 6))
    tested, _ = judge(enough)
    assert tested is not None and tested.p_value == control_test(values, (0, 1, 2, 6), 7).p_value
    reference = np.array([0.0, 1.0, 2.5, 0, 8.0, 0, np.nan])
    assert judge(enough, reference)[0] is None, "a control that the references say nothing about"


def test_values_of_no_class_have_the_type_of_what_fills_the_rest() -> None:
    assert spread([], (), 3, False).dtype == bool and spread([True], (1,), 3, False).tolist() == [False, True, False]
    assert spread([2.5], [2], 3)[2] == 2.5 and np.isnan(spread([], (), 3)).all()
