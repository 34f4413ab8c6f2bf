"""Tests of the same classes as one: exact whether their statistics agree or not."""

from __future__ import annotations

import numpy as np
import pytest

from doorward.core.alike import combine_alike
from doorward.core.order_test import OrderTest, combine, order_test

CLASSES, SETS = 10, 100


def p_values(agree: float, methods: int) -> np.ndarray:
    """Of sets without an outlier, whose statistics are correlated so far."""
    rng = np.random.default_rng(round(10 * agree) + methods)
    found = []
    for _ in range(SETS):
        common = rng.normal(size=CLASSES)
        each = [np.sqrt(agree) * common + np.sqrt(1 - agree) * rng.normal(size=CLASSES) for _ in range(methods)]
        found.append(combine_alike([order_test(s) for s in each], each).p_value)
    return np.array(found)


@pytest.mark.parametrize(("agree", "methods"), [(0.0, 2), (0.9, 2), (0.9, 3)])
def test_p_values_are_uniform_however_much_the_methods_agree(agree: float, methods: int) -> None:
    from scipy.stats import kstest

    p = p_values(agree, methods)
    assert kstest(p, "uniform").pvalue > 0.01, np.sort(p)[:10]
    assert np.mean(p <= 0.1) <= 0.17


def test_methods_that_tell_the_same_cost_nothing_and_others_what_sidak_says() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=CLASSES), rng.normal(size=CLASSES)
    one[3] += 4
    alone = order_test(one)
    same = combine_alike([alone, alone, alone], [one, one, one])
    assert same.p_value == pytest.approx(alone.p_value, abs=0.004) and int(np.argmin(same.classes)) == 3
    apart = one - other * (one @ other) / (other @ other)
    tests = [order_test(apart), order_test(other)]
    assert combine_alike(tests, [apart, other]).p_value == pytest.approx(combine(tests).p_value, abs=0.02)


def test_a_class_that_cannot_be_a_target_stays_one_and_nothing_is_more_cautious_than_sidak() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.normal(size=CLASSES), rng.normal(size=CLASSES)
    one[2] += 60
    tests = [order_test(one), order_test(other)]
    tests[1] = OrderTest(tests[1].p_value, np.ones(CLASSES))
    found, plain = combine_alike(tests, [one, other]), combine(tests)
    assert (found.classes <= plain.classes + 1e-12).all() and found.classes[2] < 1e-4
    assert (found.classes[tests[0].classes == 1] == 1).all()


def test_where_a_statistic_is_not_known_of_every_class_it_is_sidaks() -> None:
    rng = np.random.default_rng(2)
    one, other = rng.normal(size=CLASSES), rng.normal(size=CLASSES)
    tests = [order_test(one), order_test(other)]
    gap = np.where(np.arange(CLASSES) == 4, np.nan, other)
    for values in ([one, gap], [one, np.zeros(CLASSES)]):
        assert combine_alike(tests, values).p_value == combine(tests).p_value
    assert combine_alike(tests[:1], [one]).p_value == tests[0].p_value
