"""Races: classes are compared at equal effort, and only those that stand out go on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from doorward.core.alike import combine_alike
from doorward.core.order_test import combine, order_test
from doorward.inversion.invert import invert
from doorward.inversion.methods.mask import MaskSettings, mask
from doorward.inversion.methods.universal import UniversalSettings, universal
from doorward.inversion.search.additive import AdditiveObjective, standing
from doorward.inversion.search.loop import Lanes, Watch
from doorward.inversion.search.race import Race, Tensors, decided
from doorward.inversion.search.scene import Scene
from tests.inversion.worlds import TARGET, row_classifier, row_images, scene

QUIET = torch.tensor([0.1, -0.2, 0.3, 0.0, -0.1, 0.2])
LOUD = torch.tensor([0.1, -0.2, 9.0, 0.0, -0.1, 0.2])


def raced(*standings: torch.Tensor | None) -> tuple[Race, Tensors]:
    """A race whose looks, at steps 4 and 8, see these standings one after the other."""
    shown = iter(standings)
    return Race(lambda held: next(shown), 4, 8), Race.entries(6, torch.device("cpu"))


def test_nobody_looks_before_the_first_step_nor_again_before_the_last() -> None:
    race, held = raced(LOUD, LOUD)
    assert race.look(held, 3).all() and not held["looked"].any()
    assert race.look(held, 5).all() and held["looked"].all() and not held["standing"].isfinite().any()
    assert race.look(held, 7).all()
    assert race.look(held, 8).tolist() == [False, False, True, False, False, False]
    assert torch.equal(held["standing"], LOUD)
    assert race.look(held, 9).all(), "decided: who goes on goes on"


def test_the_first_look_ends_a_search_in_which_nobody_stands_out() -> None:
    assert order_test(QUIET.numpy().astype(np.float64)).p_value > 0.5
    race, held = raced(QUIET)
    assert not race.look(held, 4).any() and torch.equal(held["standing"], QUIET)


def test_lanes_that_cannot_be_compared_yet_are_waited_for() -> None:
    race, held = raced(None, None, LOUD)
    assert race.look(held, 4).all() and race.look(held, 8).all() and not held["looked"].any()
    assert race.look(held, 12).sum() == 1, "the first look falls together with the last"


def test_dropped_lanes_are_not_compared_and_too_few_are_no_race() -> None:
    gone = torch.where(torch.arange(6) < 3, torch.nan, LOUD)
    race, held = raced(gone)
    assert race.look(held, 8).all() and not held["standing"].isfinite().any()
    race, held = raced(torch.where(torch.arange(6) == 0, torch.nan, LOUD))
    assert race.look(held, 8).tolist() == [False, False, True, False, False, False]
    statistic, compared, equal = decided(held, np.zeros(6), np.ones(6, bool))
    assert equal and np.isnan(statistic[0]) and not compared[0] and compared[1:].all()


def test_without_a_decision_the_end_counts() -> None:
    _, held = raced()
    own = np.arange(6.0)
    for kept in (held, {}):
        statistic, rested, equal = decided(kept, own, own > 2)
        assert not equal and statistic is own and (rested == (own > 2)).all()


@pytest.fixture(scope="module")
def planted() -> Scene:
    return scene(row_classifier(), row_images())


@pytest.mark.parametrize(
    ("method", "settings"),
    [(mask, MaskSettings(race=True)), (universal, UniversalSettings(race=True, stride=0.01, check=1))],
    ids=["mask", "universal"],
)
def test_a_race_names_the_planted_class_with_less_effort_and_finishes_its_trigger_alone(
    method: object, settings: MaskSettings | UniversalSettings, planted: Scene
) -> None:
    whole = settings.model_copy(update={"race": False})
    fast, slow = (method(planted, s, seed=0, watch=Watch()) for s in (settings, whole))  # type: ignore[operator]
    assert int(np.argmax(fast.statistic)) == int(np.argmax(slow.statistic)) == TARGET
    assert order_test(fast.statistic).p_value <= 0.01
    assert sum(fast.details["steps"]) < 0.8 * sum(slow.details["steps"])
    assert fast.works[TARGET] and fast.converged.all() and fast.ran_out.all()
    assert torch.equal(fast.triggers[TARGET][0].pattern, slow.triggers[TARGET][0].pattern)
    assert np.isclose(fast.size[TARGET], slow.size[TARGET])


def test_on_a_clean_net_a_race_ends_at_its_first_look() -> None:
    found = mask(scene(row_classifier(planted=False), row_images()), MaskSettings(race=True), seed=0, watch=Watch())
    assert order_test(found.statistic).p_value > 0.05 and max(found.details["steps"]) <= 0.3 * 400
    assert np.allclose(found.statistic, found.size**-0.5)  # the side of a square as large, not the logarithm


@pytest.mark.parametrize("stop", [80, 130], ids=["between the looks", "after both"])
def test_an_interrupted_race_goes_on_to_the_same_result(stop: int, planted: Scene, tmp_path: Path) -> None:
    s, file = MaskSettings(race=True), tmp_path / "checkpoint.safetensors"
    whole = mask(planted, s, seed=1, watch=Watch())

    def interrupt(done: int, steps: int, left: int) -> None:
        if done == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mask(planted, s, seed=1, watch=Watch(interrupt, file, every=0))
    again = mask(planted, s, seed=1, watch=Watch(None, file, every=0))
    assert np.array_equal(again.statistic, whole.statistic) and again.details == whole.details


@pytest.mark.parametrize(("name", "settings"), [("mask", {}), ("universal", {"stride": 0.01, "check": 1})])
def test_references_race_as_late_and_what_they_show_is_taken_out(name: str, settings: dict[str, object]) -> None:
    model, images, clean = row_classifier(), row_images(), row_classifier(planted=False)
    found = invert(
        model, images, [name], settings={name: {"race": True, **settings}}, held_out=0, references=[clean]
    ).outcomes[name]
    assert "equal" in found.inverted.meaning and found.references is not None
    assert found.test is not None and found.test.classes[TARGET] <= 0.05
    same = invert(
        clean, images, [name], settings={name: {"race": True, **settings}}, held_out=0, references=[clean]
    ).outcomes[name]
    assert same.references is not None and np.allclose(same.references[0], same.inverted.statistic)
    assert same.test is None and "the same for every class" in same.undecided


def test_where_a_reference_comes_to_no_decision_nobody_races() -> None:
    """No class of the clean net is nearly reached in so few steps: its statistic is of another kind."""
    settings = {"universal": {"race": True, "stride": 0.01, "check": 1, "steps": 12}}
    alone, clean = (
        invert(model, row_images(), ["universal"], settings=settings, held_out=0).outcomes["universal"]
        for model in (row_classifier(), row_classifier(planted=False))
    )
    assert "equal length" in alone.inverted.meaning and "L2 norm" in clean.inverted.meaning
    nets = [row_classifier(planted=False)]
    both = invert(row_classifier(), row_images(), ["universal"], settings=settings, held_out=0, references=nets)
    found = both.outcomes["universal"]
    assert "L2 norm" in found.inverted.meaning and not found.settings.race  # type: ignore[attr-defined]
    assert found.references is not None and np.allclose(found.references[0], clean.inverted.statistic)


def test_a_net_is_compared_when_its_first_class_is_nearly_reached() -> None:
    """Losses 1, 8 and 27 at the step at which the first lane has three quarters of the success, not before or later."""
    objective = AdditiveObjective(scene(row_classifier(), row_images()), UniversalSettings())
    nan, zeros = torch.full((3,), torch.nan), torch.zeros(3)
    held = {"best_norm": zeros + torch.inf, "norm": zeros + torch.inf, "rate": zeros.clone(), "even": nan.clone()}
    lanes = Lanes({"perturbation": torch.zeros(3, 4, 4, 1)}, held | {"best": torch.zeros(3, 4, 4, 1)})
    for rate, loss, told in ((0.59, 2.0, None), (0.61, 1.0, [-1.0, -2.0, -3.0]), (0.9, 0.1, [-1.0, -2.0, -3.0])):
        each = torch.tensor([1.0, 8.0, 27.0]) * loss
        objective.note(lanes, {"rate": torch.tensor([rate, 0.1, 0.2]), "norm": zeros + 1, "loss": each}, 0)
        now = standing(lanes.held)
        assert now is None if told is None else now is not None and torch.allclose(now, torch.tensor(told))


def test_raced_methods_count_together_as_far_as_they_do_not_tell_the_same() -> None:
    model, images = row_classifier(planted=False), row_images()
    settings = {"mask": {"race": True}, "universal": {"race": True, "stride": 0.01}}
    for used, expected in ((settings, combine_alike), ({}, lambda tests, _: combine(tests))):
        found = invert(model, images, ["mask", "universal"], settings=used, held_out=0)
        both = list(found.outcomes.values())
        tests = [o.named for o in both if o.named is not None]
        p = expected(tests, [o.compared for o in both]).p_value  # type: ignore[operator]
        assert len(tests) == 2 and found.record.judgement.p_value == pytest.approx(p)
        assert all(o.inverted.even == bool(used) for o in both)
