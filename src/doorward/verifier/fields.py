"""What each field of a certificate can be: anything else is refused before it is computed with.

A problem is a ValueError of one line that names the field. Numbers are bounded here, because their size decides how
long everything after it takes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fractions import Fraction
from itertools import pairwise
from typing import Any

SMOOTHING = "flip-smoothing"
DETERMINISTIC = ("nearest-neighbours", "mean-distance")
BLOCKS = ("training pixels", "training labels", "test pixels")
MOST_TRIALS, MOST_CLASSES, MOST_CELLS = 10**9, 1 << 16, 1 << 50
ALPHA_DIGITS, KEEP_DIGITS = 100, 20  # of numerator and denominator

_KEYS = {
    "format", "method", "classes", "data", "noise", "trials", "alpha", "votes", "predicted", "radii", "joint_radii",
    "truth", "settings", "evidence", "sha256",
}  # fmt: skip
_SHA256 = re.compile("[0-9a-f]{64}")
_SETTINGS = {  # of what is said of a run, smallest and largest; all of them may be absent
    "seed": (0, (1 << 64) - 1),
    "binarise": (1, 255),
    "k": (1, 100_001),
    "centre": (0, 100),
    "most": (0, 256),
    "blur": (0, 4),
    "clip": (1, 100),
}


def expect(holds: object, field: str, expected: str) -> None:
    """ValueError unless ``holds``."""
    if not holds:
        raise ValueError(f"{field}: expected {expected}")


def whole(value: Any, field: str, low: int, high: int) -> int:
    """A whole number from ``low`` to ``high``; true and 1.0 are none."""
    expect(type(value) is int and low <= value <= high, field, f"a whole number from {low} to {high}")
    return int(value)


def rows(value: Any, field: str, length: int | None = None) -> list[Any]:
    """A list, of that length where one is given."""
    expect(type(value) is list, field, "a list")
    expect(length is None or len(value) == length, field, f"{length} entries")
    return list(value)


def wholes(value: Any, field: str, low: int, high: int, length: int | None = None) -> list[int]:
    """A list of whole numbers from ``low`` to ``high``."""
    found = rows(value, field, length)
    expect(all(type(v) is int and low <= v <= high for v in found), field, f"whole numbers from {low} to {high}")
    return found


def rising(values: list[int], field: str) -> None:
    """ValueError unless no number is smaller than the one before."""
    expect(all(a <= b for a, b in pairwise(values)), field, "numbers in rising order")


def keys(value: Any, field: str, names: Iterable[str]) -> dict[str, Any]:
    """An object with these keys and no others."""
    expected = sorted(names)
    expect(type(value) is dict and sorted(value) == expected, field, f"an object of {', '.join(expected)}")
    return dict(value)


def ratio(value: Any, field: str, digits: int) -> Fraction:
    """A rational below 1 and above 0, written as whole numbers a/b; never by an exponent, which has no bounded size."""
    fits = type(value) is str and re.fullmatch(f"([0-9]{{1,{digits}}})/([0-9]{{1,{digits}}})", value)
    expect(fits, field, f"a rational a/b of at most {digits} digits each")
    above, below = map(int, value.split("/"))
    expect(0 < above < below, field, "a rational above 0 and below 1")
    return Fraction(above, below)


def check(c: Any) -> None:
    """All fields but the evidence of deterministic methods; ValueError names the first that cannot be."""
    bound = ["trial_votes"] if type(c) is dict and "trial_votes" in c else []
    keys(c, "certificate", [*_KEYS, *bound])
    expect(c["format"] == "doorward-certificate-1", "format", "'doorward-certificate-1'")
    expect(c["method"] in (SMOOTHING, *DETERMINISTIC), "method", f"one of {', '.join((SMOOTHING, *DETERMINISTIC))}")
    classes = rows(c["classes"], "classes")
    expect(2 <= len(classes) <= MOST_CLASSES, "classes", f"2 to {MOST_CLASSES} names")
    expect(all(type(name) is str for name in classes), "classes", "names")
    for name, value in keys(c["data"], "data", ("train_sha256", "test_sha256")).items():
        sha256(value, f"data.{name}")
    images = len(rows(c["predicted"], "predicted"))
    expect(images, "predicted", "at least one image")
    for name in ("predicted", "radii", "joint_radii"):
        wholes(c[name], name, -1, 1 << 30, images)
    if c["truth"] is not None:
        wholes(c["truth"], "truth", 0, len(classes) - 1, images)
    settings(c["settings"])
    if c["method"] == SMOOTHING:
        _smoothing(c, len(classes), images)
    else:
        _deterministic(c, images)


def sha256(value: Any, field: str) -> str:
    """64 hexadecimal digits."""
    expect(type(value) is str and _SHA256.fullmatch(value), field, "64 hexadecimal digits")
    return str(value)


def settings(s: Any) -> None:
    """What is known of the settings; others are told, and decide nothing here."""
    expect(type(s) is dict, "settings", "an object")
    for name, (low, high) in _SETTINGS.items():
        if s.get(name) is not None:
            whole(s[name], f"settings.{name}", low, high)
    if "shape" in s:
        wholes(s["shape"], "settings.shape", 1, 1 << 16, 3)
    if "task_sha256" in s:
        sha256(s["task_sha256"], "settings.task_sha256")


def noise(c: dict[str, Any]) -> list[tuple[Fraction, int, int | None]]:
    """Keep probability, domain and number of cells of the three blocks, in their order."""
    found = []
    for block, name in zip(rows(c["noise"], "noise", len(BLOCKS)), BLOCKS, strict=True):
        keys(block, "noise", ("name", "keep", "domain", "cells"))
        expect(block["name"] == name, "noise", f"the blocks {', '.join(BLOCKS)}")
        domain = whole(block["domain"], f"{name}: domain", 2, len(c["classes"]) if name == BLOCKS[1] else 256)
        keep = ratio(block["keep"], f"{name}: keep", KEEP_DIGITS)
        expect(keep > Fraction(1, domain), f"{name}: keep", f"more than 1/{domain}, as flip noise has it")
        cells = block["cells"]
        found.append((keep, domain, None if cells is None else whole(cells, f"{name}: cells", 1, MOST_CELLS)))
    return found


def _smoothing(c: dict[str, Any], classes: int, images: int) -> None:
    expect(classes <= 256, "classes", "at most 256 of them")
    trials = whole(c["trials"], "trials", 1, MOST_TRIALS)
    ratio(c["alpha"], "alpha", ALPHA_DIGITS)
    expect(c["evidence"] == {}, "evidence", "none beside votes")
    (_, pixels, training), (_, domain, labels), (_, shown, test) = noise(c)
    expect(domain == classes, "training labels: domain", f"{classes}, the number of classes")
    expect(pixels == shown, "test pixels: domain", f"{pixels}, as of training pixels")
    if None not in (training, labels, test):
        expect(training == (labels or 0) * (test or 0), "training pixels: cells", "training images times pixels")
    for row in rows(c["votes"], "votes", images):
        expect(sum(wholes(row, "votes", 0, trials, classes)) <= trials, "votes", f"at most {trials} for one image")
    if "trial_votes" in c:
        sha256(keys(c["trial_votes"], "trial_votes", ("sha256",))["sha256"], "trial_votes.sha256")


def _deterministic(c: dict[str, Any], images: int) -> None:
    expect(c["alpha"] == "0/1", "alpha", "'0/1' of a deterministic method")
    whole(c["trials"], "trials of a deterministic method", 0, 0)
    expect(c["noise"] == [], "noise", "none of a deterministic method")
    expect(c["votes"] in ([], [[]] * images), "votes", "none of a deterministic method")
    expect("trial_votes" not in c, "trial_votes", "none of a deterministic method")
    expect("shape" in c["settings"], "settings.shape", "channels, height and width of the images")
