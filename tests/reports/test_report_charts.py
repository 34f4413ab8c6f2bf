import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.reports import charts

finite = st.floats(-1e9, 1e9)


def bars(svg: str, css: str) -> list[tuple[float, float, float, float]]:
    """(left, bottom, top, right) of every bar of a histogram."""
    path = next(p for p in ElementTree.fromstring(svg).iter("path") if p.get("class") == css)
    found = re.findall(r"M(\S+) (\S+)V(\S+)H(\S+)V\2z", path.get("d") or "")
    return [(float(a), float(b), float(c), float(d)) for a, b, c, d in found]


@given(finite, finite)
def test_ticks_are_round_few_and_within(a: float, b: float) -> None:
    low, high = sorted((a, b))
    if high - low < 1e-6 * max(abs(low), abs(high), 1e-3):
        return
    ticks = charts.nice_ticks(low, high)
    slack = (high - low) * 1e-6
    assert 1 <= len(ticks) <= 6
    assert all(low - slack <= t <= high + slack for t in ticks)
    if len(ticks) > 1:
        step = f"{ticks[1] - ticks[0]:.3e}"
        assert step.split("e")[0] in ("1.000", "2.000", "5.000")


def test_ticks_of_a_percentage_axis() -> None:
    assert charts.nice_ticks(0, 100) == [0, 50, 100]
    assert charts.nice_ticks(3, 3) == [3]


def test_histogram_is_logarithmic_and_colours_the_flagged_part() -> None:
    values = np.array([0.0] * 99 + [1.0] * 9 + [2.0])
    flagged = values == 1.0
    flagged[values == 2.0] = True
    svg = charts.histogram(values, flagged, "scores", np.array([-0.5, 0.5, 1.5, 2.5]))
    heights = [bottom - top for _, bottom, top, _ in bars(svg, "bar")]
    # log10(1 + n) for n = 99, 9, 1 is 2, 1, 0.30103
    assert heights[0] / heights[1] == pytest.approx(2, rel=0.01)
    assert heights[2] / heights[1] == pytest.approx(0.30103, rel=0.02)
    assert bars(svg, "bar flagged") == bars(svg, "bar")[1:]


def test_half_flagged_bar_is_lower_than_its_bar() -> None:
    values = np.zeros(100)
    flagged = np.arange(100) < 9
    svg = charts.histogram(values, flagged, "scores")
    (_, bottom, top, _), (_, _, coloured, _) = bars(svg, "bar")[0], bars(svg, "bar flagged")[0]
    assert (bottom - coloured) / (bottom - top) == pytest.approx(1 / np.log10(101), rel=0.01)


@pytest.mark.parametrize(
    "values", [[], [np.nan], [np.inf, 1.0], [5.0, 5.0], [1e300, -1e300], [1e9, 1e9 + 1e-6], [0.0, 1e-12]]
)
def test_odd_scores_make_a_chart_all_the_same(values: list[float]) -> None:
    svg = charts.histogram(np.array(values), np.zeros(len(values), dtype=bool), "odd")
    ElementTree.fromstring(svg)
    assert "nan" not in svg.replace("tenant", "") and "inf" not in svg


def test_every_image_is_in_some_bar() -> None:
    values = np.random.default_rng(0).gamma(1.0, 3.0, 5000)
    assert np.histogram(values, charts.bin_edges(values))[0].sum() == 5000
    assert charts.bin_edges(np.array([0.5, 9.0]))[0] == 0


def test_interval_is_linear_in_its_axis() -> None:
    def centre(value: float) -> float:
        svg = ElementTree.fromstring(charts.interval(value, value, value, (0.5, 1.0), "x", "good"))
        return float(next(svg.iter("circle")).get("cx") or "nan")

    assert centre(0.75) == pytest.approx((centre(0.5) + centre(1.0)) / 2, abs=0.1)
    assert centre(0.1) == centre(0.5)  # outside of the axis: at its end


def test_bullet_is_the_share_of_the_scale() -> None:
    svg = ElementTree.fromstring(charts.bullet(3.0, 1.5, 6.0, "flagged", "x"))
    widths = {r.get("class"): (r.get("width"), r.get("x")) for r in svg.iter("rect")}
    assert widths["bar flagged"][0] == "50"
    assert widths["mark"][1] == "25"
    assert len(list(ElementTree.fromstring(charts.bullet(None, None, 0.0, "", "x")).iter("rect"))) == 1


def test_step_curve_holds_each_value_until_the_next_radius() -> None:
    svg = ElementTree.fromstring(charts.step_curve([(0, 1.0), (1, 0.5), (2, 0.0)], 1.0, "level", "x"))
    path = next(p.get("d") or "" for p in svg.iter("path") if p.get("class") == "curve")
    left, top, *steps = [float(v) for v in re.findall(r"[\d.]+", path)]
    width = steps[0] - left
    assert steps[0::2] == pytest.approx([left + width, left + 2 * width, left + 3 * width], abs=0.11)
    assert steps[1] - top == pytest.approx(steps[3] - steps[1], abs=0.11)


def test_labels_are_escaped() -> None:
    hostile = '"><script>alert(1)</script>'
    for svg in (
        charts.histogram(np.ones(3), np.ones(3, dtype=bool), hostile),
        charts.bullet(1, 1, 1, "", hostile),
        charts.step_curve([(0, 1.0)], 0.5, hostile, hostile),
    ):
        assert "<script" not in svg
        assert ElementTree.fromstring(svg).get("aria-label") == hostile
