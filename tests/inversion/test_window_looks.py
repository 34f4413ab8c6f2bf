"""Two looks at many classes, what references change, and how fine a trigger may be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from doorward.core.classifier import Classifier
from doorward.inversion.invert import invert
from doorward.inversion.inverted import Inverted
from doorward.inversion.methods.window.complete import CompleteSettings, complete_triggers
from doorward.inversion.methods.window.effort import EffortSettings, equal_effort
from doorward.inversion.methods.window.heatmap import HeatMap, HeatSettings
from doorward.inversion.methods.window.window import WindowSettings, window
from doorward.inversion.search.loop import Watch
from doorward.inversion.search.pictures import enlarged
from doorward.inversion.search.runner import judge
from tests.inversion.plots import (
    CLASSES,
    HEIGHT,
    LOOK,
    SETTINGS,
    TARGET,
    WIDTH,
    plot,
    plot_classifier,
    plot_images,
    plot_scene,
)

TWICE = SETTINGS.model_copy(update={"finalists": 6, "controls": 12, "effort": LOOK.model_copy(update={"steps": 20})})
BRIEF = TWICE.model_copy(update={"suspects": 0, "thorough": EffortSettings(steps=3, grain=1)})
QUICK = EffortSettings(steps=2, batch=1, grain=8)


def looked(settings: WindowSettings = TWICE, seed: int = 0, **net: object) -> Inverted:
    scene = plot_scene(plot_classifier(**net), plot_images())  # type: ignore[arg-type]
    return window(scene, settings, seed=seed, watch=Watch())


@pytest.fixture(scope="module")
def twice() -> Inverted:
    return looked()


@pytest.fixture(scope="module")
def once() -> Inverted:
    """All classes looked at thoroughly."""
    return looked(TWICE.for_reference())


def test_the_smallest_of_the_first_look_and_the_controls_get_the_thorough_one(twice: Inverted) -> None:
    first = np.array(twice.details["size_at_equal_effort"])
    thorough = {*np.argsort(first)[:6].tolist(), *twice.controls}
    assert len(first) == CLASSES and len(twice.controls) == 12 < len(thorough) < CLASSES
    assert set(np.flatnonzero(twice.ran_out)) == set(np.flatnonzero(np.isfinite(twice.statistic))) == thorough
    passes, s = twice.details["passes"], TWICE
    assert passes["effort"] == CLASSES * s.effort.steps * s.effort.batch
    assert passes["thorough"] == len(thorough) * s.thorough.steps * s.thorough.batch
    assert set(twice.details["suspects"]) <= thorough


def test_the_thorough_look_is_the_same_for_whoever_gets_it(twice: Inverted, once: Inverted) -> None:
    seen = twice.ran_out
    assert twice.statistic[seen] == pytest.approx(once.statistic[seen], rel=1e-3)


def test_the_planted_class_stands_out_from_the_controls_and_no_other_does(twice: Inverted) -> None:
    test, _ = judge(twice)
    assert test is not None and test.classes.argmin() == TARGET == twice.details["suspects"][0]
    assert test.p_value < 0.01 and (np.delete(test.classes, TARGET) > 0.05).all()
    assert (test.classes[~twice.ran_out] == 1).all()
    clean, _ = judge(looked(planted=False))
    assert clean is not None and (clean.classes > 0.05).all()


def test_controls_are_drawn_without_a_look_at_sizes() -> None:
    drawn = looked(BRIEF).controls
    assert drawn == looked(BRIEF, planted=False).controls == looked(BRIEF, targets=(0, 5)).controls
    assert drawn != looked(BRIEF, seed=1).controls
    other = looked(BRIEF.model_copy(update={"finalists": 3}))
    assert other.controls == drawn, "nor at how many finalists there are"
    counts, looks = np.zeros(CLASSES), {"effort": QUICK, "thorough": QUICK}
    for seed in range(2, 40):
        counts[list(looked(BRIEF.model_copy(update=looks), seed).controls)] += 1
    expected, spread = 38 / 2, np.sqrt(38 / 4)
    assert (np.abs(counts - expected) < 4 * spread).all(), "every class is one as often, small ones too"


def test_without_suspects_the_verdict_is_the_same(twice: Inverted) -> None:
    light = looked(TWICE.model_copy(update={"suspects": 0}))
    assert not light.triggers and "heat_maps" not in light.details
    test, with_suspects = judge(light)[0], judge(twice)[0]
    assert test is not None and with_suspects is not None
    assert test.p_value == with_suspects.p_value and test.classes[TARGET] == with_suspects.classes[TARGET]


def test_a_reference_is_looked_at_thoroughly_everywhere_and_gets_no_heat_map(once: Inverted) -> None:
    assert np.isfinite(once.statistic).all() and once.ran_out.all() and once.controls == ()
    assert set(once.details["passes"]) == {"thorough"} and not once.triggers
    assert "heat_maps" not in once.details and once.details["suspects"] == []


def easy(*targets: int) -> Classifier:
    """A net with plots for these classes, the first of which has large weights."""
    net = plot_classifier(targets=targets)
    with torch.no_grad():
        net.net[1].weight[targets[0]] *= 3  # type: ignore[index]
        net.net[1].bias[targets[0]] *= 3  # type: ignore[index]
    return net


def test_what_is_small_in_references_too_is_not_the_first_suspect() -> None:
    net, clean = easy(5, TARGET), easy(5)
    quick = {"heat": HeatSettings(steps=2, controls=2), "complete": CompleteSettings(steps=2)}
    settings = TWICE.model_copy(update={"completed": 1, "suspects": 2, **quick})
    images = plot_images()
    usual = window(plot_scene(clean, images), settings.for_reference(), seed=0, watch=Watch()).statistic
    scene = plot_scene(net, images)
    assert window(scene, settings, seed=0, watch=Watch()).details["suspects"][0] == 5
    found = window(scene, settings, seed=0, watch=Watch(), reference=usual)
    assert found.details["suspects"][0] == TARGET
    away, labels = found.statistic - usual, np.flatnonzero(found.ran_out)
    assert len(labels) < CLASSES and found.details["suspects"] == labels[np.argsort(-away[labels])][:2].tolist()
    unknown = np.where(np.arange(CLASSES) == TARGET, np.nan, usual)
    assert window(scene, settings, seed=0, watch=Watch(), reference=unknown).details["suspects"][0] != TARGET


def test_references_go_first_and_classes_may_be_left_out_of_them() -> None:
    calls: list[tuple[str, int]] = []
    settings = {"window": 5, "suspects": 2, "completed": 1, "thorough.steps": 40, "thorough.grain": 1}
    settings |= {"heat.steps": 3, "complete.steps": 50, "complete.grain": 1}
    found = invert(
        easy(5, TARGET),
        plot_images(),
        ["window"],
        settings={"window": settings},
        references=[easy(5)],
        exclude=[3],
        progress=lambda name, done, steps, note: calls.append((name, steps)),
    )
    names = [name for name, _ in calls]
    assert list(dict.fromkeys(names)) == ["window-reference-1", "window"]
    assert {steps for name, steps in calls if name != "window"} == {40}, "no heat maps, no triggers"
    outcome = found.outcomes["window"]
    assert outcome.reference is not None
    assert np.flatnonzero(np.isnan(outcome.reference)).tolist() == [3]
    assert outcome.inverted.details["suspects"][0] == TARGET, "not 5, which the reference has too"
    assert found.target_labels == (TARGET,) and np.isnan(outcome.inverted.statistic[3])


def test_enlarged_pictures_by_hand() -> None:
    row = torch.tensor([0.0, 1.0])[None, None, :, None]
    assert enlarged(row, (1, 4)).flatten().tolist() == [0, 0.25, 0.75, 1]
    column = enlarged(row.transpose(1, 2), (4, 3))
    assert column.shape == (1, 4, 3, 1) and column[0, :, 1, 0].tolist() == [0, 0.25, 0.75, 1]
    two = torch.rand(2, 3, 5, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(enlarged(two, (3, 5)), two), "of the same size already"
    for size in ((20, 16), (7, 13)):
        large = enlarged(two, size)
        assert large.shape == (2, *size, 3)
        assert (large >= two.amin((1, 2), keepdim=True) - 1e-6).all()
        assert (large <= two.amax((1, 2), keepdim=True) + 1e-6).all(), "per lane and channel"
        assert torch.allclose(enlarged(torch.full((1, 3, 5, 1), 0.3), size), torch.tensor(0.3))


def test_a_coarse_trigger_is_seen_at_a_coarse_grain_and_single_pixels_are_not() -> None:
    def sizes(coarse: bool, grain: int) -> np.ndarray:
        scene = plot_scene(plot_classifier(coarse=coarse), plot_images())
        return equal_effort(scene, EffortSettings(steps=40, grain=grain), seed=0).held["best"].numpy()

    assert sizes(True, 4).argmin() == TARGET
    fine, coarse = sizes(False, 1), sizes(False, 4)
    assert fine.argmin() == TARGET != coarse.argmin() and coarse[TARGET] > 10 * fine[TARGET]


def test_the_complete_triggers_grain_is_the_settings() -> None:
    scene = plot_scene(plot_classifier(), plot_images(20))
    heat = {TARGET: HeatMap(np.where(plot(), 1.0, 0.0), np.zeros((1, 2), np.int64), np.zeros(1), np.zeros(1), 5)}

    def bends(grain: int) -> float:
        """How far the pattern is from straight between the middles of cells of four pixels."""
        s = CompleteSettings(levels=(0.5,), steps=15, grain=grain)
        pattern = complete_triggers(scene, heat, s, seed=0)[0][TARGET].trigger.pattern[0]
        assert pattern.shape == (HEIGHT, WIDTH)
        second = pattern[:-2] - 2 * pattern[1:-1] + pattern[2:]
        rows = [r for r in range(HEIGHT - 2) if r % 4 in (2, 3) and r + 2 <= HEIGHT - 3]
        return float(second[rows].abs().max())

    assert bends(4) < 1e-5 < 0.1 < bends(1)
