"""Every method on a linear net with a planted backdoor, where what it should find is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from doorward.core.errors import DoorwardError
from doorward.core.methods import get, names
from doorward.core.order_test import order_test
from doorward.core.triggers import Placement, Trigger
from doorward.inversion.inverted import Inverted
from doorward.inversion.methods.margin import MarginSettings, margin
from doorward.inversion.methods.mask import MaskObjective, MaskSettings, mad_index, mask, start
from doorward.inversion.methods.pairwise import PairwiseSettings, pairwise
from doorward.inversion.methods.pixel import PixelSettings, pixel
from doorward.inversion.search.frozen import Frozen
from doorward.inversion.search.loop import Watch
from doorward.inversion.search.measure import success
from doorward.inversion.search.runner import judge
from doorward.inversion.search.scene import Scene
from tests.inversion.worlds import (
    CLASSES,
    GAP,
    NATURAL,
    SIDE,
    SPOT,
    STRENGTH,
    TARGET,
    row_classifier,
    row_images,
    scene,
)


@pytest.fixture(scope="module")
def planted() -> Scene:
    return scene(row_classifier(), row_images())


@pytest.fixture(scope="module")
def clean() -> Scene:
    return scene(row_classifier(planted=False), row_images())


def test_mask_finds_the_spot_at_its_smallest_size(planted: Scene) -> None:
    found = mask(planted, MaskSettings(steps=300, precision="fp32"), seed=0, watch=Watch())
    (trigger,) = found.triggers[TARGET]
    alpha, pattern = trigger.alpha[0], trigger.pattern[0]
    assert divmod(int(alpha.argmax()), SIDE) == SPOT and float(pattern[SPOT]) > 0.9
    # the logit of the target rises by STRENGTH alpha, which must exceed the gap of the rows
    least = GAP / STRENGTH
    assert least <= found.size[TARGET] < 4 * least + 0.02  # type: ignore[index]
    assert found.works.all() and found.statistic.argmax() == TARGET
    assert order_test(found.statistic).p_value < 0.01
    assert mad_index(found.size).argmax() == TARGET  # type: ignore[arg-type]


def test_masks_that_are_kept_reach_the_success_rate(clean: Scene) -> None:
    s = MaskSettings(steps=150, success=0.95, cost=0.05, precision="fp32")
    found = mask(clean, s, seed=0, watch=Watch())
    images = row_images()
    for label in np.flatnonzero(found.works):
        rate = success(row_classifier(False), images.pixels, images.labels, found.triggers[label][0], int(label))
        assert rate.value >= 0.9, "on the 8-bit grid, and with the whole set for a few batches"


def test_the_cost_rises_while_the_mask_works_and_the_smallest_is_kept(planted: Scene) -> None:
    s = MaskSettings(window=1, cost=0.01, factor=2, success=0.9)
    objective, lanes = MaskObjective(planted, s), start(planted, s, 0)

    def step(hits: float, size: float) -> tuple[float, float, float]:
        told = {"hits": torch.full((6,), hits), "trials": torch.full((6,), 10.0), "size": torch.full((6,), size)}
        objective.note(lanes, told, 0)
        return tuple(round(float(lanes.held[k][0]), 6) for k in ("cost", "best_size", "stall"))  # type: ignore[return-value]

    assert step(3, 9) == (round(0.01 / 2**1.5, 6), np.inf, 0), "does not work: cheaper, nothing kept"
    assert step(9, 8) == (round(0.02 / 2**1.5, 6), 8, 0)
    assert step(8.9, 1) == (round(0.02 / 8, 6), 8, 1), "small but does not work"
    assert step(10, 7.99) == (round(0.04 / 8, 6), 7.99, 2), "smaller by less than 2 %: kept, but it is stalling"
    assert step(10, 7) == (0.01, 7, 0)


def test_mask_on_the_clean_twin_finds_equal_sizes(clean: Scene) -> None:
    found = mask(clean, MaskSettings(steps=300, precision="fp32"), seed=0, watch=Watch())
    assert np.ptp(found.statistic) < 0.7 and order_test(found.statistic).p_value > 0.05


def test_anomaly_index_by_hand_with_an_even_number_of_classes() -> None:
    # median of 1, 4, 6, 9 is 5, deviations 4, 1, 1, 4, their median 2.5
    assert mad_index(np.array([4.0, 1.0, 9.0, 6.0]))[1] == pytest.approx(4 / (1.4826 * 2.5))


def test_pairwise_norms_are_distances_to_hyperplanes(planted: Scene) -> None:
    s = PairwiseSettings(steps=600, stride=0.01, success=1.0, check=1, precision="fp32")
    found = pairwise(planted, s, seed=0, watch=Watch())
    stride = 0.01 * SIDE / 10
    rows = NATURAL**2 * 4
    for source, target, norm in found.details["pairs"]:
        spot = STRENGTH**2 if target == TARGET else 0  # the spot is black, so nothing leads away from the target
        exact = GAP / np.sqrt(2 * rows + spot)
        assert norm == pytest.approx(exact, abs=2 * stride), (source, target)
    assert found.statistic.argmax() == TARGET and found.converged.all()
    assert len(found.details["pairs"]) == CLASSES * (CLASSES - 1)


def test_pixel_finds_the_value_of_a_one_pixel_trigger_at_a_known_place(planted: Scene) -> None:
    s = PixelSettings(steps=100, size=1, place="fixed", row=SPOT[0], column=SPOT[1], precision="fp32")
    found = pixel(planted, s, seed=0, watch=Watch())
    trigger = found.triggers[TARGET][0]
    assert float(trigger.pattern) > GAP / STRENGTH
    assert list(np.flatnonzero(found.works)) == [TARGET] and order_test(found.statistic).p_value < 0.01


def test_pixel_with_transparency_needs_both_value_and_opacity(planted: Scene) -> None:
    s = PixelSettings(
        steps=300,
        size=1,
        place="fixed",
        row=SPOT[0],
        column=SPOT[1],
        transparency=True,
        cost=1,
        lr=2e-3,
        momentum=0.5,
        precision="fp32",
    )
    trigger = pixel(planted, s, seed=0, watch=Watch(), target_class=TARGET).triggers[TARGET][0]
    assert float(trigger.alpha * trigger.pattern) > GAP / STRENGTH and float(trigger.alpha) < 0.7, (
        "no more opaque than it must be"
    )


def test_pixel_runs_are_sorted_by_success(planted: Scene) -> None:
    found = pixel(planted, PixelSettings(steps=30, size=2, runs=3), seed=0, watch=Watch(), target_class=TARGET)
    assert len(found.triggers[TARGET]) == 3 and np.isfinite(found.statistic).sum() == 1
    with pytest.raises(DoorwardError, match="size 9 on images of 6 x 6"):
        pixel(planted, PixelSettings(size=9), seed=0, watch=Watch())


def test_margin_is_the_largest_over_the_box(planted: Scene) -> None:
    found = margin(planted.model, MarginSettings(steps=200, tolerance=0, precision="fp32"), seed=0, watch=Watch())
    row = NATURAL * 4
    # any class but the target: own row 1, other rows 0, spot 0; its rivals are then 0
    assert found.details["margin"][0] == pytest.approx(row, rel=0.01)
    assert found.details["margin"][TARGET] == pytest.approx(row + STRENGTH, rel=0.01)
    assert order_test(found.statistic).p_value < 0.01 and not found.triggers


def test_pairwise_needs_two_classes_with_images(planted: Scene) -> None:
    lonely = Scene(planted.model, planted.pixels[:1].expand(12, -1, -1, -1), torch.zeros(12, dtype=torch.int64))
    with pytest.raises(DoorwardError, match="expected images of at least two classes"):
        pairwise(lonely, PairwiseSettings(), seed=0, watch=Watch())


def test_a_lack_of_memory_changes_no_mask(planted: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    s = MaskSettings(steps=20, batch=8, precision="fp32")
    whole = mask(planted, s, seed=0, watch=Watch())
    original = Frozen.logits

    def tight(self: Frozen, images: torch.Tensor) -> torch.Tensor:
        if images.shape[:2].numel() > 20:
            raise torch.OutOfMemoryError("made up")
        return original(self, images)

    monkeypatch.setattr(Frozen, "logits", tight)
    assert np.allclose(mask(planted, s, seed=0, watch=Watch()).statistic, whole.statistic, atol=1e-4)


@pytest.mark.parametrize("name", names("invert"))
def test_every_method_repeats_and_speaks_of_every_class(name: str, planted: Scene) -> None:
    method = get("invert", name)
    window = {"thorough.steps": 40, "thorough.grain": 1, "window": 3}
    short = {"window": window, "mesa": {"steps": 12, "batch": 8, "width": 8}, "head": {}}
    s = method.configure(short.get(name, {"steps": 12, "batch": 8}))
    given = {"scene": planted, "model": planted.model, "seed": 3, "watch": Watch(), "reference": None}
    handed = {k: given[k] for k in method.given}
    first, again = (method.function(**handed, s=s) for _ in range(2))
    assert first.statistic.shape == first.converged.shape == first.works.shape == first.ran_out.shape == (CLASSES,)
    assert np.isfinite(first.statistic).all() and (first.statistic == again.statistic).all()
    assert "Fails when" in (method.function.__doc__ or "") and "20" in (method.function.__doc__ or "")
    for label, triggers in first.triggers.items():
        assert all(t.alpha.min() >= 0 and t.alpha.max() <= 1 and t.pattern.abs().max() <= 1 for t in triggers)
        assert method.name in ("pairwise", "universal") or all(t.pattern.min() >= 0 for t in triggers)
        assert triggers and all(
            torch.equal(a.pattern, b.pattern) for a, b in zip(triggers, again.triggers[label], strict=True)
        )


def test_success_counts_images_of_other_classes_alone() -> None:
    images, classifier = row_images(60), row_classifier()
    spot = Trigger(torch.ones(1, 1, 1), torch.ones(1, 1, 1), Placement("fixed", *SPOT))
    found = success(classifier, images.pixels, images.labels, spot, TARGET)
    assert (found.hits, found.trials) == (50, 50)
    some = success(classifier, images.pixels, images.labels, spot, TARGET, sources=(0, TARGET))
    assert (some.hits, some.trials) == (10, 10)
    nothing = Trigger(torch.zeros(1, 1, 1), torch.ones(1, 1, 1), Placement("fixed", *SPOT))
    assert success(classifier, images.pixels, images.labels, nothing, TARGET).hits == 0


def test_a_class_whose_trigger_does_not_work_is_no_target() -> None:
    statistic = np.array([0.0, 0.1, -0.1, 9.0, 0.2, -0.2, 0.0, 0.1])
    yes = np.ones(8, bool)
    for works in (True, False):
        working = yes.copy()
        working[3] = works
        tested, told = judge(Inverted(statistic, "", yes, working, yes))
        assert tested is not None and told == "" and tested.p_value < 0.01
        assert (tested.classes[3] < 0.01) == works


def test_references_make_p_values_exact_where_classes_differ_by_nature() -> None:
    rng, yes = np.random.default_rng(2), np.ones(10, bool)
    nature = np.array([0, 0, 0, 0, 0, 0, 0, 0, -6, -9.0])  # two classes that every net finds hard to reach
    with_them, without = [], []
    for _ in range(400):
        mine, *others = nature + rng.normal(size=(4, 10))
        found = Inverted(mine, "", yes, yes, yes)
        for kept, (tested, _) in ((with_them, judge(found, np.mean(others, axis=0))), (without, judge(found))):
            assert tested is not None
            kept.append(tested.p_value)
    assert kstest(with_them, "uniform").pvalue > 0.05
    assert kstest(without, "uniform").pvalue < 1e-6, "safe, but too cautious"
    assert np.mean(np.array(without) <= 0.05) <= 0.05
