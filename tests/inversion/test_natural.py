"""Planted or natural: what a trigger does on clean nets."""

from __future__ import annotations

import numpy as np
import pytest

from doorward.core.stats import Rate
from doorward.inversion.invert import invert
from doorward.inversion.judge.natural import natural_test
from tests.inversion.worlds import TARGET, row_classifier, row_images

WORKING = {k: Rate(95, 100) for k in range(10)}


def carried(target: int, *others: int) -> dict[int, Rate]:
    """Hits of a hundred: of the target, class 0, and of the others."""
    return {0: Rate(target, 100)} | {k: Rate(hits, 100) for k, hits in enumerate(others, 1)}


def test_a_trigger_that_works_nowhere_else_is_planted_where_natural_ones_do() -> None:
    natural = (30, 12, 55, 40, 22, 61, 35, 18, 44)
    planted, usual, easy = (natural_test(0, WORKING, carried(hits, *natural)) for hits in (0, 33, 90))
    assert planted is not None and planted < 0.001
    assert usual is not None and 0.2 < usual < 0.8 and easy is not None and easy > 0.95


def test_where_no_trigger_works_on_the_clean_nets_nothing_is_said() -> None:
    p = natural_test(0, WORKING, carried(0, *[0] * 9))
    assert p == pytest.approx(0.5)


def test_triggers_that_do_not_work_on_the_suspect_are_not_compared() -> None:
    hits = carried(0, 40, 50, 30, 45, 0, 0, 0, 0, 0)
    own = {k: Rate(95 if k < 5 else 10, 100) for k in range(10)}
    assert natural_test(0, own, hits) < natural_test(0, WORKING, hits)  # type: ignore[operator]
    assert natural_test(0, {k: own[k] for k in range(4)}, hits) is None  # three others
    assert natural_test(7, own, hits) is None


def test_p_values_of_natural_classes_are_uniform() -> None:
    rng = np.random.default_rng(3)
    found = []
    for _ in range(400):
        odds = rng.normal(-1, 1.2, 10)
        hits = rng.binomial(1000, 1 / (1 + np.exp(-odds)))
        found.append(natural_test(0, WORKING, {k: Rate(int(n), 1000) for k, n in enumerate(hits)}))
    shares = [np.mean(np.array(found) <= level) for level in (0.05, 0.2, 0.5)]
    assert np.allclose(shares, (0.05, 0.2, 0.5), atol=0.06)


def test_the_verdict_tells_it_of_a_target_when_there_are_references() -> None:
    suspect, reference, images = row_classifier(), row_classifier(planted=False), row_images()
    alone, referred = (invert(suspect, images, ["mask"], references=nets) for nets in ([], [reference]))
    assert alone.record.targets[0].natural is None and alone.record.targets[0].carried is None
    target = referred.record.targets[0]
    assert target.label == TARGET and target.carried is not None and target.natural is not None
    assert ("planted rather than natural" in " ".join(referred.record.judgement.reasons)) == (target.natural <= 0.05)
