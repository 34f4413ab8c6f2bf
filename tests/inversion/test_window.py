"""The moving window on a net whose trigger lies at a known place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from doorward.core.errors import DoorwardError
from doorward.core.methods import get
from doorward.inversion.invert import invert
from doorward.inversion.inverted import Inverted
from doorward.inversion.methods.window.complete import CompleteSettings, complete_triggers, edges
from doorward.inversion.methods.window.effort import EffortObjective, EffortSettings, equal_effort
from doorward.inversion.methods.window.heatmap import HeatMap
from doorward.inversion.methods.window.window import WindowSettings, window
from doorward.inversion.search.loop import Lanes, Watch
from doorward.inversion.search.measure import success
from doorward.inversion.search.pictures import enlarged
from doorward.inversion.search.runner import judge
from tests.inversion.plots import (
    CLASSES,
    HEIGHT,
    SETTINGS,
    TARGET,
    WIDTH,
    plot,
    plot_classifier,
    plot_images,
    plot_scene,
)


@pytest.fixture(scope="module")
def found() -> Inverted:
    return window(plot_scene(plot_classifier(), plot_images()), SETTINGS, seed=0, watch=Watch())


def test_the_planted_class_is_first_and_significant(found: Inverted) -> None:
    test, _ = judge(found)
    assert test is not None and test.classes.argmin() == TARGET
    assert test.p_value < 0.01
    assert found.details["suspects"][0] == TARGET
    assert np.isfinite(found.statistic).all() and found.ran_out.all(), "all classes are compared, not the suspects"
    assert found.controls == (), "there are too few classes for two looks"


def test_classes_that_nothing_worked_for_are_not_compared_and_give_no_verdict_when_they_are_most() -> None:
    hurried = SETTINGS.model_copy(update={"thorough": EffortSettings(steps=2, success=1.0, grain=1)})
    few = window(plot_scene(plot_classifier(), plot_images(30)), hurried, seed=0, watch=Watch())
    reached = np.isfinite(few.statistic)
    assert reached.sum() < CLASSES / 2 and (few.ran_out == reached).all() and "no trigger worked" in few.warnings[-1]
    assert judge(few)[0] is None


def test_no_other_class_is_significant_with_or_without_the_planted_one(found: Inverted) -> None:
    others, _ = judge(found.without([TARGET]))
    assert others is not None and others.p_value > 0.05
    clean = window(plot_scene(plot_classifier(planted=False), plot_images()), SETTINGS, seed=0, watch=Watch())
    test, _ = judge(clean)
    assert test is not None and test.p_value > 0.05


def test_the_heat_map_is_hottest_in_the_plot(found: Inverted) -> None:
    told = found.details["heat_maps"][str(TARGET)]
    assert plot()[tuple(told["peak"])]
    heat = np.array(told["map"])
    assert heat.shape == (HEIGHT, WIDTH) and np.median(heat[plot()]) > 3 * np.median(heat[~plot()])


def test_the_complete_trigger_overlaps_the_plot_and_works_on_other_images(found: Inverted) -> None:
    (trigger,) = found.triggers[TARGET]
    opaque = trigger.alpha[0].numpy() > 0.5
    assert (opaque & plot()).sum() / (opaque | plot()).sum() >= 0.4
    classifier, unseen = plot_classifier(), plot_images(200, seed=5)
    rate = success(classifier, unseen.pixels, classifier.predict(unseen.pixels), trigger, TARGET)
    assert rate.value >= 0.9
    assert found.works[TARGET] and found.size is not None and found.size[TARGET] == pytest.approx(trigger.alpha.sum())


def test_passes_are_counted_and_far_fewer_than_every_class_at_every_position(found: Inverted) -> None:
    passes, s = found.details["passes"], SETTINGS
    assert passes["thorough"] == CLASSES * s.thorough.steps * s.thorough.batch
    assert set(passes) == {"thorough", "heat", "complete"}, "one look at all classes"
    lanes = s.completed * len(s.complete.levels)
    assert passes["complete"] == lanes * (s.complete.steps * s.complete.batch + 80) + 80
    positions = (HEIGHT - 4) * (WIDTH - 4)
    assert found.details["passes_of_every_class_and_position"] == CLASSES * positions * s.heat.steps * s.heat.batch


def test_it_repeats(found: Inverted) -> None:
    again = window(plot_scene(plot_classifier(), plot_images()), SETTINGS, seed=0, watch=Watch())
    assert (again.statistic == found.statistic).all()
    assert torch.equal(again.triggers[TARGET][0].alpha, found.triggers[TARGET][0].alpha)


def test_a_window_larger_than_the_image_is_one_line() -> None:
    scene = plot_scene(plot_classifier(), plot_images(20))
    with pytest.raises(
        DoorwardError, match=r"^invert window: window of 17 x 17 on images of 20 x 16; expected at most 16$"
    ):
        window(scene, WindowSettings(window=17), seed=0, watch=Watch())
    with pytest.raises(DoorwardError, match="expected at most 16"):
        invert(plot_classifier(), plot_images(20), ["window"], settings={"window": {"window": 40}})


def test_every_class_gets_the_same_effort_in_either_search() -> None:
    scene = plot_scene(plot_classifier(), plot_images(20))
    sides = {("image", 1): (HEIGHT, WIDTH), ("window", 1): (5, 5), ("image", 4): (5, 4), ("window", 4): (2, 2)}
    for (search, grain), side in sides.items():
        s = EffortSettings(steps=4, batch=3, window=5, search=search, grain=grain)  # type: ignore[arg-type]
        lanes = equal_effort(scene, s, seed=0)
        assert lanes.held["steps"].tolist() == [4] * CLASSES and not lanes.held["dropped"].any()
        assert lanes.trained["alpha"].shape[1:3] == side


@pytest.mark.parametrize("grain", [1, 4])
def test_the_random_window_is_stamped_where_it_is_drawn(grain: int) -> None:
    scene = plot_scene(plot_classifier(), plot_images(20))
    s = EffortSettings(steps=2, window=5, search="window", batch=4, grain=grain)
    objective, lanes = EffortObjective(scene, s), equal_effort(scene, s, seed=0)
    drawn = objective.draw(lanes, 4, torch.Generator().manual_seed(3))
    loss, told = objective.loss(lanes, drawn)
    top, left = int(drawn["top"][0]), int(drawn["left"][0])
    small = [(lanes.trained[k][:1].detach().tanh() + 1) / 2 for k in ("alpha", "pattern")]
    alpha, pattern = (enlarged(v, (5, 5))[0] for v in small)
    rows = drawn["rows"][0]
    images = scene.pixels[rows].clone()
    part = images[:, top : top + 5, left : left + 5]
    images[:, top : top + 5, left : left + 5] = (1 - alpha) * part + alpha * pattern
    logits, counts = scene.model.logits(images), scene.labels[rows] != 0
    each = functional.cross_entropy(logits, torch.zeros(4, dtype=torch.long), reduction="none")
    expected = each[counts].mean() + lanes.held["price"][0] * alpha.sum()
    assert float(loss[0]) == pytest.approx(float(expected), rel=1e-4)
    assert float(told["size"][0]) == pytest.approx(float(alpha.sum()), rel=1e-5)


def test_the_smallest_hot_region_that_works_is_taken_and_alpha_stays_inside() -> None:
    scene = plot_scene(plot_classifier(), plot_images(30))
    heat = np.where(plot(), 1.0, 0.0)
    heat[TOP_ROW] = 0.6  # a row that is as hot as the lower level but leads nowhere
    maps = {TARGET: HeatMap(heat, np.zeros((1, 2), np.int64), np.zeros(1), np.zeros(1), 5)}
    found, _ = complete_triggers(scene, maps, CompleteSettings(levels=(0.5, 0.9), grain=1), seed=0)
    assert found[TARGET].level == 0.9 and found[TARGET].success >= 0.9
    assert not (found[TARGET].trigger.alpha[0].numpy() > 0)[~plot()].any()
    nowhere = {TARGET: HeatMap(np.where(plot(), 0.0, 1.0), np.zeros((1, 2), np.int64), np.zeros(1), np.zeros(1), 5)}
    failed, _ = complete_triggers(scene, nowhere, CompleteSettings(levels=(0.9, 0.5), steps=1), seed=0)
    assert failed[TARGET].success < 0.9 and failed[TARGET].success == max(failed[TARGET].tried.values())


TOP_ROW = 0


def test_a_higher_price_of_size_and_of_edges_makes_smaller_and_smoother_triggers() -> None:
    scene = plot_scene(plot_classifier(), plot_images(30))
    flat = {TARGET: HeatMap(np.ones((HEIGHT, WIDTH)), np.zeros((1, 2), np.int64), np.zeros(1), np.zeros(1), 5)}

    def made(**values: float) -> tuple[float, float]:
        found, _ = complete_triggers(scene, flat, CompleteSettings(levels=(0.5,), steps=40, **values), seed=0)  # type: ignore[arg-type]
        alpha = found[TARGET].trigger.alpha
        return found[TARGET].size, float(edges(alpha.permute(1, 2, 0)[None])[0])

    assert made(keep=1.0, smooth=0.0)[0] < 0.8 * made(keep=0.1, smooth=0.0)[0]
    assert made(keep=0.2, smooth=3.0)[1] < 0.8 * made(keep=0.2, smooth=0.0)[1]


def test_the_price_follows_success_and_the_smallest_size_that_worked_is_kept() -> None:
    scene = plot_scene(plot_classifier(), plot_images(10))
    objective = EffortObjective(scene, EffortSettings(success=0.8, factor=8.0))
    held = {k: torch.tensor([v]) for k, v in {"best": torch.inf, "price": 1.0, "size": 0.0, "success": 0.0}.items()}
    lanes = Lanes({}, held)

    def step(number: int, hits: float, size: float) -> tuple[float, ...]:
        objective.note(lanes, {"hits": torch.tensor([hits]), "size": torch.tensor([size])}, number)
        return tuple(round(float(lanes.held[k]), 4) for k in ("success", "price", "best"))

    assert step(0, 0.5, 9.0) == (0.5, 0.5, np.inf), "does not work: cheaper, nothing kept"
    assert step(1, 1.0, 8.0) == (0.75, 0.25, np.inf)
    assert step(2, 1.0, 7.0) == (0.875, 2.0, 7.0)
    assert step(3, 1.0, 7.5) == (0.9375, 16.0, 7.0)
    assert step(4, 0.0, 1.0)[2] == 7.0, "small, but does not work"


def test_edges_by_hand() -> None:
    picture = torch.tensor([[0.0, 1.0], [0.5, 1.0]])[None, :, :, None]
    assert edges(picture).item() == pytest.approx(1 + 0.5 + 0.5 + 0)


def test_settings_of_a_step_come_with_a_dot_from_the_command_line() -> None:
    s = get("invert", "window").configure({"window": 7, "effort.search": "window", "heat.steps": 3})
    assert isinstance(s, WindowSettings) and (s.window, s.effort.search, s.heat.steps) == (7, "window", 3)
    for wrong in ({"effort.stesp": 3}, {"efort.steps": 3}):
        with pytest.raises(DoorwardError, match="settings:"):
            get("invert", "window").configure(wrong)
