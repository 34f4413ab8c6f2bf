"""p-values are exact where they claim to be, and find one target, several, and none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from doorward.errors import DoorwardError
from doorward.invert.verdict import OrderTest, combine, gamma_p_value, most_targets, order_test, studentised


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
