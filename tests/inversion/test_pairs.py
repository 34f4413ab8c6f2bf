"""Pairs of classes: a target of several sources, a target for every class, and nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from doorward.inversion.invert import invert
from doorward.inversion.judge.pairs import nearest, shift_test, target_statistic
from tests.inversion.worlds import TARGET, Shifted, row_classifier, row_images

CLASSES = 10


def noise(seed: int) -> np.ndarray:
    """How near pairs are on a clean net: every source and every target has a level of its own."""
    rng = np.random.default_rng(seed)
    made = rng.normal(size=(CLASSES, CLASSES)) + 3 * rng.normal(size=(CLASSES, 1)) + rng.normal(size=CLASSES)
    np.fill_diagonal(made, np.nan)
    return made


def test_on_clean_nets_p_values_of_a_shift_are_uniform() -> None:
    from scipy.stats import kstest

    found = [shift_test(noise(seed)) for seed in range(70)]
    p = np.array([f.p_value for f in found if f is not None])
    assert len(p) == 70 and kstest(p, "uniform", alternative="greater").pvalue > 0.05, np.sort(p)[:10]
    assert np.mean(p <= 0.05) <= 0.1


def test_a_shift_of_every_class_is_seen_and_its_targets_are_named() -> None:
    made = noise(1)
    made[np.arange(CLASSES), (np.arange(CLASSES) + 1) % CLASSES] += 4
    found = shift_test(made)
    assert found is not None and found.p_value < 0.001
    assert nearest(made) == {k: (k + 1) % CLASSES for k in range(CLASSES)}
    assert (found.classes == found.p_value).all()


def test_two_natural_twins_are_no_shift_and_one_target_is_none_either() -> None:
    twins = noise(2)
    twins[4, 9] += 8
    twins[9, 4] += 8
    assert (found := shift_test(twins)) is not None and found.p_value > 0.05
    one = noise(3)
    one[:, 5] += 6
    assert (found := shift_test(one)) is not None and found.p_value > 0.05
    assert int(np.nanargmax(target_statistic(one))) == 5


def test_classes_that_look_alike_in_pairs_are_no_shift_but_an_exchange_is_one_beside_references() -> None:
    order = np.arange(CLASSES)
    exchanged, shifted = noise(5), noise(5)
    exchanged[order, order ^ 1] += 6
    shifted[order, (order + 3) % CLASSES] += 6
    alike, planted, beside = shift_test(exchanged), shift_test(shifted), shift_test(exchanged, natural=False)
    assert alike is not None and alike.p_value > 0.05
    assert planted is not None and planted.p_value < 0.001 and beside is not None and beside.p_value < 0.001


def test_a_target_that_few_sources_reach_has_the_largest_statistic() -> None:
    made = noise(4)
    made[[1, 2, 6], 8] += 8
    assert int(np.nanargmax(target_statistic(made))) == 8
    assert np.allclose(target_statistic(made + 5 * np.arange(CLASSES)[:, None]), target_statistic(made)), "of its row"


def test_too_few_rows_are_no_test() -> None:
    made = noise(5)
    made[3:] = np.nan
    assert shift_test(made) is None and len(nearest(made)) == 3
    assert np.isnan(target_statistic(np.full((4, 4), np.nan))).all()


@pytest.mark.parametrize("planted", [True, False])
def test_a_race_of_pairs_names_the_planted_class_and_finishes_its_triggers(*, planted: bool) -> None:
    settings = {"pairwise": {"race": True, "stride": 0.01, "check": 1}}
    found = invert(row_classifier(planted), row_images(), ["pairwise"], settings=settings, held_out=0)
    outcome = found.outcomes["pairwise"]
    pairs = outcome.inverted.pairs
    assert pairs is not None and pairs.shape == (6, 6) and np.isnan(np.diag(pairs)).all()
    assert "equal length" in outcome.inverted.meaning and not outcome.inverted.warnings
    if planted:
        assert found.target_labels == (TARGET,) and outcome.inverted.works[TARGET]
        assert outcome.success[TARGET].value > 0.8
    else:
        assert not found.target_labels


def test_a_backdoor_from_every_class_to_the_next_is_named_as_one() -> None:
    model = replace(row_classifier(planted=False), net=Shifted())
    race = {"race": True, "stride": 0.01, "check": 1}
    found = invert(model, row_images(), ["pairwise"], settings={"pairwise": race}, held_out=0)
    outcome = found.outcomes["pairwise"]
    assert outcome.shift is not None and outcome.shift.p_value < 0.01
    assert set(found.target_labels) == set(range(len(model.classes)))
    told = " ".join(found.record.judgement.reasons)
    assert "near to one other class each" in told and "“row-0” to “row-1”" in told
    assert not invert(model, row_images(), ["universal"], settings={"universal": race}, held_out=0).target_labels
