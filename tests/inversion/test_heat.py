"""Heat maps: where the windows that are strong have something in common."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from doorward.core.errors import DoorwardError
from doorward.inversion.methods.window.heatmap import HeatMap, HeatSettings, accumulate, grid, heat_maps
from tests.inversion.plots import CLASSES, HEIGHT, TARGET, WIDTH, plot, plot_classifier, plot_images, plot_scene

CORNERS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
IMAGE, WINDOW, SPOT = (40, 32), 13, (10, 8)  # the spot is nearer to the border than a window is wide


def heat_map(heat: np.ndarray) -> HeatMap:
    return HeatMap(heat, np.zeros((1, 2), np.int64), np.zeros(1), np.zeros(1), 5)


def over(corners: np.ndarray, spot: tuple[int, int], window: int = WINDOW) -> np.ndarray:
    """Which windows cover a spot, ``[P]``."""
    return ((corners <= spot) & (np.array(spot) < corners + window)).all(axis=1)


def test_heat_by_hand() -> None:
    heat = accumulate(CORNERS, np.array([4.0, 2.0, -9.0, 1.0]), 2, (3, 3))
    # strength 4, 2, 0, 1 is 2.25, 0.25, -1.75, -0.75 from its mean; their squares sum to 8.75. A pixel that n of the
    # four windows cover has a squared deviation of n (1 - n / 4): 3/4, 1, 3/4.
    corner, side = np.sqrt(0.75 * 8.75), np.sqrt(8.75)
    expected = [[2.25 / corner, 2.5 / side, 0.25 / corner], [0.5 / side, 0, 0], [0, 0, 0]]
    assert heat == pytest.approx(np.array(expected), abs=1e-12)


def test_heat_is_the_correlation_of_strength_and_covering() -> None:
    corners = grid(*IMAGE, WINDOW, 4)
    strength = np.random.default_rng(0).normal(0, 30, len(corners))
    heat = accumulate(corners, strength, WINDOW, IMAGE)
    for pixel in ((0, 0), (10, 8), (20, 31), (39, 17)):
        told = np.corrcoef(over(corners, pixel), np.maximum(strength, 0))[0, 1]
        assert heat[pixel] == pytest.approx(max(told, 0), abs=1e-12)
    assert (heat >= 0).all() and (heat <= 1).all()


def test_the_hottest_pixel_is_where_the_strong_windows_overlap() -> None:
    corners = grid(*IMAGE, WINDOW, 4)
    one, other = (int(np.flatnonzero((corners == c).all(axis=1))[0]) for c in ([8, 4], [16, 12]))
    strength = np.zeros(len(corners))
    strength[one] = 5
    top, left = heat_map(accumulate(corners, strength, WINDOW, IMAGE)).peak
    assert 8 <= top < 21 and 4 <= left < 17
    strength[other] = 5
    heat = accumulate(corners, strength, WINDOW, IMAGE)
    hottest = np.argwhere(heat >= heat.max() - 1e-9)
    assert ((hottest >= [16, 12]) & (hottest < [21, 17])).all(), "in both windows"


def test_a_spot_near_the_border_is_hotter_than_the_border() -> None:
    corners = grid(*IMAGE, WINDOW, 3)
    covered = over(corners, SPOT)
    strength = np.where(covered, 9.0, 0.0)
    assert covered[(corners == 0).all(axis=1)].all(), "the window in the corner covers it too"
    reached = accumulate(corners, strength, WINDOW, IMAGE)
    assert reached[SPOT] == pytest.approx(1) and reached[0, 0] < 0.5
    peak = heat_map(reached).peak
    assert np.abs(np.subtract(peak, SPOT)).max() <= 3, "to within the stride"
    corner_too = accumulate(corners, strength + 9.0 * (corners == 0).all(axis=1), WINDOW, IMAGE)
    assert corner_too[SPOT] == corner_too.max() > 1.5 * corner_too[0, 0]


def test_only_the_pattern_of_strength_matters() -> None:
    corners = grid(*IMAGE, WINDOW, 4)
    strength = np.random.default_rng(1).normal(size=len(corners))
    heat = accumulate(corners, strength, WINDOW, IMAGE)
    for scale in (1e-6, 7.0, 1e9):
        assert accumulate(corners, scale * strength, WINDOW, IMAGE) == pytest.approx(heat, abs=1e-9)
    assert (accumulate(corners, np.minimum(strength, 0), WINDOW, IMAGE) == 0).all(), "weaker than controls: no heat"
    assert (accumulate(corners, np.full(len(corners), 0.1), WINDOW, IMAGE) == 0).all(), "everywhere alike: no place"
    everywhere = accumulate(grid(20, 16, 15, 7), np.array([0.1, 300.7, 0.3, 7.9]), 15, (20, 16))
    assert everywhere[5:15, 1:15].max() == 0 < everywhere.max(), "what all windows cover tells nothing"


def test_maps_of_large_images_need_little_memory() -> None:
    corners = grid(224, 224, 15, 5)
    tracemalloc.start()
    try:
        accumulate(corners, np.ones(len(corners)), 15, (224, 224))
        assert tracemalloc.get_traced_memory()[1] < 20e6, "a few pictures, not one per window"
    finally:
        tracemalloc.stop()


def test_peak_region_and_centre() -> None:
    heat = np.zeros((20, 16))
    heat[4:7, 10:13] = 0.8
    heat[15, 2] = 0.3  # below the middle level: not in the centre
    told = heat_map(heat)
    assert told.peak == (5, 11) and told.centre == pytest.approx((5, 11))
    assert told.region(0.5).sum() == 9 and told.region(0.3).sum() == 10 and told.region(0.0).all()
    heat[8, 11] = 0.6  # (9 x 0.8 x 5 + 0.6 x 8) / (9 x 0.8 + 0.6)
    assert heat_map(heat).centre == pytest.approx((40.8 / 7.8, 11))
    assert heat_map(heat).peak == (5, 11)
    for level in (0.0, 0.4):
        assert heat_map(np.full((20, 16), level)).centre == pytest.approx((9.5, 7.5)), "a flat map has no side"


def test_windows_reach_every_border_and_none_is_outside() -> None:
    corners = grid(20, 16, 5, 4)
    assert corners.min(axis=0).tolist() == [0, 0] and corners.max(axis=0).tolist() == [15, 11]
    assert all(over(corners, pixel, 5).any() for pixel in np.ndindex(20, 16))
    assert len(np.unique(corners, axis=0)) == len(corners)


def test_strength_is_told_against_controls_and_the_fine_look_is_where_it_is_strong() -> None:
    scene = plot_scene(plot_classifier(), plot_images(30))
    s = HeatSettings(window=5, controls=8, refined=0.2)
    maps, passes = heat_maps(scene, (TARGET, 0), s, seed=0)
    coarse = len(grid(HEIGHT, WIDTH, 5, 2))
    assert passes == (2 + 8) * len(maps[0].corners) * s.steps * s.batch
    fine = maps[0].corners[coarse:] + 2
    assert len(fine) and plot()[fine[:, 0], fine[:, 1]].mean() > 2 * plot().mean(), "fine windows crowd at the plot"
    assert maps[TARGET].strength.max() > 4 > maps[0].strength.max()
    with pytest.raises(DoorwardError, match="beside the suspects"):
        heat_maps(scene, tuple(range(CLASSES)), s, seed=0)
