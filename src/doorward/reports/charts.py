"""Charts as inline SVG: no script, no style attribute, every text escaped.

Colours come from the classes that ``style.css`` defines, so that one chart serves light, dark and paper. Charts are
drawn about 340 units wide, which is both a phone's width and a column of the page: letters keep their size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from doorward.core.text import percent

_WIDTH = 340
_INTERVAL_WIDTH = 200.0


def nice_ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """About ``wanted`` round numbers within [low, high], a step of 1, 2 or 5 times a power of ten apart."""
    if not high > low:
        return [low]
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(m for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _element(tag: str, text: str = "", **attributes: object) -> Markup:
    inner = Markup("").join(
        Markup(' {}="{}"').format(k.rstrip("_").replace("_", "-"), _short(v)) for k, v in attributes.items()
    )
    return Markup("<{0}{1}>{2}</{0}>").format(tag, inner, escape(text))


def _short(value: object) -> str:
    """Coordinates with one decimal: half the bytes, and nobody sees the difference."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


def _svg(width: float, height: float, label: str, *parts: Markup, css: str = "chart") -> Markup:
    head = Markup('<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
        css, _short(float(width)), _short(float(height)), label
    )
    return head + Markup("").join(parts) + Markup("</svg>")


def _line(x1: float, y1: float, x2: float, y2: float, css: str) -> Markup:
    return _element("path", class_=css, d=f"M{_short(x1)} {_short(y1)}L{_short(x2)} {_short(y2)}")


def tick_label(value: float) -> str:
    """A tick as few characters: 0.5, 12, 3k, 1e6."""
    if value and (abs(value) >= 1e5 or abs(value) < 1e-3):
        return f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
    return f"{value / 1000:g}k" if abs(value) >= 1000 else f"{value:.3g}"


def bin_edges(values: NDArray[np.floating[Any]], bins: int = 42) -> NDArray[np.float64]:
    """Edges ``[bins + 1]`` of equal bins over the finite values, ``[N]``."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    width = high - low
    if not width > max(abs(low), abs(high)) * 1e-9:  # one value only, or too near each other to divide
        low, high = low - 0.5, high + 0.5
    elif 0 < low < 0.2 * high:  # near enough to start the axis at zero
        low = 0.0
    return np.linspace(low, high, bins + 1)


def histogram(
    values: NDArray[np.floating[Any]], flagged: NDArray[np.bool_], label: str, edges: NDArray[np.float64] | None = None
) -> Markup:
    """Counts of ``values`` ``[N]`` on a logarithmic axis, the flagged part of every bar coloured.

    A bin with one image is as high as log10(2), so that a single image is still seen. ``edges`` lets several
    histograms share an axis.
    """
    height, left, right, top, bottom = 150.0, 34.0, 8.0, 8.0, 24.0
    edges = bin_edges(values) if edges is None else edges
    finite = np.isfinite(values)
    totals = np.histogram(values[finite], edges)[0]
    coloured = np.histogram(values[finite & flagged], edges)[0]
    top_value = math.log10(1 + max(10, int(totals.max(initial=0)))) * 1.04
    floor = height - bottom

    def y(counts: float) -> float:
        return floor - (floor - top) * math.log10(1 + counts) / top_value

    def x(value: float) -> float:
        return left + (_WIDTH - left - right) * (value - float(edges[0])) / float(edges[-1] - edges[0])

    def bars(counts: NDArray[np.int64]) -> str:
        outline = ""
        for n, a, b in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            if n:
                outline += f"M{_short(x(a) + 0.4)} {_short(floor)}V{_short(y(n))}H{_short(x(b) - 0.4)}V{_short(floor)}z"
        return outline

    parts: list[Markup] = []
    for power in range(int(top_value) + 1):
        at = y(10.0**power)
        parts.append(_line(left, at, _WIDTH - right, at, "grid"))
        parts.append(_element("text", tick_label(10.0**power), class_="tick end", x=left - 5, y=at + 3.5))
    parts.append(_element("path", class_="bar", d=bars(totals)))
    parts.append(_element("path", class_="bar flagged", d=bars(coloured)))
    parts.append(_line(left, floor, _WIDTH - right, floor, "axis"))
    for tick in nice_ticks(float(edges[0]), float(edges[-1])):
        parts.append(_element("text", tick_label(tick), class_="tick mid", x=x(tick), y=height - 8))
    return _svg(_WIDTH, height, label, *parts)


def bullet(value: float | None, threshold: float | None, scale: float, tone: str, label: str) -> Markup:
    """A bar from 0 to ``value`` with a mark at ``threshold``; ``scale`` is the value at the right end.

    ``tone``: empty, ``flagged`` or ``told`` (flagged by a method that was told how many to flag).
    """

    def x(v: float) -> float:
        return 100 * min(max(v / scale, 0.0), 1.0) if scale > 0 else 0.0

    parts = [_element("rect", class_="track", width=100, height=8)]
    if value is not None:
        parts.append(_element("rect", class_=f"bar {tone}".strip(), width=max(x(value), 0.8), height=8))
    if threshold is not None and threshold <= scale:
        parts.append(_element("rect", class_="mark", x=min(x(threshold), 99.0), width=1.0, height=8))
    svg = _svg(100, 8, label, *parts, css="bullet")
    return Markup(svg.replace(Markup("<svg "), Markup('<svg preserveAspectRatio="none" '), 1))


def interval(value: float | None, low: float, high: float, domain: tuple[float, float], label: str, css: str) -> Markup:
    """A dot at ``value`` with a line from ``low`` to ``high``, on an axis over ``domain``."""
    width, height, pad = _INTERVAL_WIDTH, 16.0, 5.0
    start, end = domain

    def x(v: float) -> float:
        return pad + (width - 2 * pad) * (min(max(v, start), end) - start) / (end - start)

    parts = [_line(pad, 8.0, width - pad, 8.0, "grid")]
    parts += [_line(x(t), 5.0, x(t), 11.0, "grid") for t in nice_ticks(start, end)]
    if value is not None:
        parts.append(_line(x(low), 8.0, x(high), 8.0, f"whisker {css}"))
        parts.append(_element("circle", class_=f"dot {css}", cx=x(value), cy=8, r=4))
    return _svg(width, height, label, *parts, css="interval")


def interval_axis(domain: tuple[float, float]) -> Markup:
    """The axis that goes above a column of intervals, in percent."""
    width, pad = _INTERVAL_WIDTH, 5.0
    start, end = domain
    ends = ((start, pad, "start"), (end, width - pad, "end"))
    parts = [_element("text", f"{100 * v:g} %", class_=f"tick {css}", x=x, y=10) for v, x, css in ends]
    return _svg(width, 14, f"axis from {100 * start:g} to {100 * end:g} percent", *parts, css="interval")


@dataclass(frozen=True)
class Arm:
    """One side of a comparison: its name, the share of every repeat, and whether the share is what is feared."""

    name: str
    rates: tuple[float, ...]
    bad: bool = False


def arms(rows: Sequence[Arm], label: str) -> Markup:
    """A bar per arm, as long as the mean of its repeats on a scale of 0 to 1, with a dot for each of them."""
    left, width, step = 4.0, 270.0, 44.0
    parts: list[Markup] = []
    for number, arm in enumerate(rows):
        top = step * number + 18
        mean = sum(arm.rates) / len(arm.rates)
        parts.append(_element("text", arm.name, class_="arm", x=left, y=top - 5))
        parts.append(_element("rect", class_="track", x=left, y=top, width=width, height=14))
        css = "bar flagged" if arm.bad else "bar blue"
        parts.append(_element("rect", class_=css, x=left, y=top, width=max(width * mean, 1.0), height=14))
        parts += [_element("circle", class_="repeat", cx=left + width * rate, cy=top + 7, r=2.5) for rate in arm.rates]
        parts.append(_element("text", percent(mean), class_="arm end", x=_WIDTH - 4, y=top + 11.5))
    return _svg(_WIDTH, step * len(rows), label, *parts)


@dataclass(frozen=True)
class _Plane:
    """Where radius and share lie on the certificate's chart; ``end`` is the radius at the right edge."""

    end: float
    width: float = 380.0
    height: float = 230.0
    left: float = 44.0
    right: float = 372.0
    top: float = 16.0
    floor: float = 190.0

    def x(self, radius: float) -> float:
        return self.left + (self.right - self.left) * min(radius, self.end) / self.end

    def y(self, share: float) -> float:
        return self.floor - (self.floor - self.top) * share

    def steps(self, curve: Sequence[tuple[int, float]]) -> str:
        """A path that holds each share until the next radius, the last one for one more."""
        outline = f"M{_short(self.x(curve[0][0]))} {_short(self.y(curve[0][1]))}"
        for radius, share in curve[1:]:
            outline += f"H{_short(self.x(radius))}V{_short(self.y(share))}"
        return outline + f"H{_short(self.x(curve[-1][0] + 1))}"

    def axes(self) -> list[Markup]:
        parts: list[Markup] = []
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            at = self.y(share)
            parts.append(_line(self.left, at, self.right, at, "axis" if share == 0 else "grid"))
            parts.append(_element("text", f"{100 * share:g} %", class_="tick end", x=self.left - 6, y=at + 4))
        for tick in nice_ticks(0, self.end - 1, 8):
            if tick == int(tick):
                parts.append(_element("text", f"{int(tick)}", class_="tick mid", x=self.x(tick), y=self.floor + 15))
        words = "attacker’s budget: changed pixels and labels in all"
        middle = (self.left + self.right) / 2
        return [*parts, _element("text", words, class_="tick mid", x=middle, y=self.height - 6)]


def step_curve(
    points: Sequence[tuple[int, float]],
    level: float | None,
    level_name: str,
    label: str,
    second: Sequence[tuple[int, float]] = (),
) -> Markup:
    """Certified accuracy over the radius: ``points`` (radius, share) hold until the next point's radius.

    ``level`` is a share drawn as a dashed line, named ``level_name``; ``second`` another curve, drawn thin.
    """
    plane = _Plane(points[-1][0] + 1)
    path = plane.steps(points)
    area = f"{path}V{_short(plane.floor)}H{_short(plane.x(points[0][0]))}z"
    parts = [
        *plane.axes(),
        _element("path", class_="area", d=area),
        _element("path", class_="curve", d=path),
    ]
    if second:
        parts.append(_element("path", class_="curve thin", d=plane.steps(second)))
    if level is not None:
        at = plane.y(level)
        parts.append(_line(plane.left, at, plane.right, at, "level"))
        parts.append(_element("text", level_name, class_="tick end", x=plane.right, y=at - 5))
    return _svg(plane.width, plane.height, label, *parts, css="chart wide")
