"""Independent checker of certificates: integers only, nothing imported of what makes them, another algorithm.

Labels and radii are derived again from votes or integer evidence. Invisible without the data: evidence, true labels,
names or settings made up together with a new hash. So compare the data hashes too, or certify again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, product
from pathlib import Path
from typing import Any

from doorward.core.errors import DoorwardError

_SCALE = 1 << 220
Cell = tuple[Fraction, int]  # keep probability and domain size


@dataclass(frozen=True)
class Report:
    """``valid`` when nothing is wrong; ``problems`` in one line each; how many images were checked, by which method."""

    valid: bool
    problems: tuple[str, ...]
    images: int
    method: str


def verify(path: Path | str, train_sha256: str | None = None, test_sha256: str | None = None) -> Report:
    """Check a ``certificate.json``; with hashes, also that it is about these data (`ImageSet.hash`).

    Raises:
        DoorwardError: the file is absent or no JSON.
    """
    try:
        content = json.loads(Path(path).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise DoorwardError(f"{path}: {error}; expected a certificate.json") from None
    try:
        problems = tuple(_problems(content, {"train_sha256": train_sha256, "test_sha256": test_sha256}))
        return Report(not problems, problems, len(content["predicted"]), content["method"])
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        return Report(False, (f"a field is missing or malformed ({type(error).__name__}: {error})",), 0, "unknown")


def _problems(c: dict[str, Any], hashes: dict[str, str | None]) -> Iterator[str]:
    if c["format"] != "doorward-certificate-1":
        yield f"format {c['format']!r}; expected 'doorward-certificate-1'"
    rest = {k: v for k, v in c.items() if k != "sha256"}
    if hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest() != c["sha256"]:
        yield "sha256 does not fit the content"
    yield from (f"{k} is not that of the data given" for k, v in hashes.items() if v not in (None, c["data"][k]))
    images = len(c["predicted"])
    if not (_whole({**c, "settings": 0}) and type(c["trials"]) is int and 0 <= c["trials"] <= 10**9 and images):
        yield "numbers that are not whole, too many trials, or no images"
        return
    derived_fields = (_smoothing if c["method"] == "flip-smoothing" else _deterministic)(c)
    for name, derived in zip(("predicted", "radii", "joint_radii"), derived_fields, strict=True):
        wrong = [i for i in range(max(images, len(c[name]))) if c[name][i : i + 1] != derived[i : i + 1]]
        if wrong:
            yield f"{name}: {len(wrong)} of {images} do not follow from the evidence, first image {wrong[0]}"
    if c["truth"] is not None and (len(c["truth"]) != images or not set(c["truth"]) <= set(range(len(c["classes"])))):
        yield "truth does not fit the images and classes"


def _whole(value: Any) -> bool:
    if isinstance(value, (dict, list)):
        return all(map(_whole, value.values() if isinstance(value, dict) else value))
    return value is None or type(value) in (int, str)


def _smoothing(c: dict[str, Any]) -> tuple[list[int], list[int], list[int]]:
    trials, alpha, votes = c["trials"], Fraction(c["alpha"]), c["votes"]
    groups: dict[Cell, int | None] = {}  # blocks of equal noise count together; None: any number of cells
    for block in c["noise"]:
        cell, cells = (Fraction(block["keep"]), block["domain"]), block["cells"]
        known = groups.get(cell, 0)
        groups[cell] = None if cells is None or known is None else known + cells
    fits = all(len(row) == len(c["classes"]) > 1 and min(row) >= 0 and sum(row) <= trials for row in votes)
    sound = all(d >= 2 and Fraction(1, d) < keep < 1 and (n is None or n >= 0) for (keep, d), n in groups.items())
    if not (fits and groups and sound and 0 < alpha < 1 and len(votes) == len(c["predicted"]) and not c["evidence"]):
        raise ValueError("votes, noise, alpha and images that do not fit each other")
    radii = []
    for level in (alpha, alpha / len(votes)):
        table: list[int] = []
        while (needed := _needed(trials, groups, table, level)) is not None and needed <= max(map(max, votes)):
            table.append(needed)
        radii.append([next((r for r, k in enumerate(table) if max(row) < k), len(table)) - 1 for row in votes])
    return [row.index(max(row)) if r >= 0 else -1 for row, r in zip(votes, radii[0], strict=True)], radii[0], radii[1]


def _needed(trials: int, groups: dict[Cell, int | None], table: list[int], alpha: Fraction) -> int | None:
    limits = [len(table) if n is None else min(n, len(table)) for n in groups.values()]
    splits = [s for s in product(*(range(n + 1) for n in limits)) if sum(s) == len(table)]
    cells = [[c for c, r in zip(groups, split, strict=True) for _ in range(r)] for split in splits]
    return _votes(trials, max(map(_threshold, cells)), alpha, *table[:1]) if cells else None


def _threshold(cells: list[Cell]) -> Fraction:
    """Neyman-Pearson over the changed cells, one cell after another: likelihood ratio -> mass under P."""
    regions = {Fraction(1): Fraction(1)}
    for keep, domain in cells:
        move = (1 - keep) / (domain - 1)
        grown: dict[Fraction, Fraction] = {}
        for ratio, mass in regions.items():
            for factor, chance in ((keep / move, keep), (move / keep, move), (Fraction(1), (domain - 2) * move)):
                grown[ratio * factor] = grown.get(ratio * factor, Fraction(0)) + mass * chance
        regions = grown
    under_p, left = Fraction(0), Fraction(1, 2)  # P mass taken, Q mass still to take
    for ratio in sorted(regions, reverse=True):
        part = min(left, regions[ratio] / ratio)
        under_p, left = under_p + part * ratio, left - part
    return under_p


def _votes(trials: int, t: Fraction, alpha: Fraction, least: int = 0) -> int | None:
    """Smallest k with P(Bin(N, t) >= k) + P(Bin(N, t) <= N - (least or k)) <= alpha; terms relative to the mode.

    A term j steps from the mode is rounded up, j too large at most, which bounds the sum of all terms from below.
    """
    mode = min(trials, (trials + 1) * t.numerator // t.denominator)
    enough = max(1, int(_SCALE * alpha) >> 100)
    sides = []
    for step in (1, -1):
        i, terms, odds = mode, [_SCALE], (t / (1 - t)) ** step
        while terms[-1] > enough and 0 <= i + step <= trials:
            n, d = (trials - i, i + 1) if step == 1 else (i, trials - i + 1)
            terms.append(-(-terms[-1] * n * odds.numerator // (d * odds.denominator)))
            i += step
        # Beyond the last term each is smaller than the one before, and there are fewer than N of them.
        rest = (terms[-1] if 0 < i < trials else 0) * trials
        sides.append((list(accumulate(reversed(terms), initial=rest))[::-1], terms))
    (above, up), (below, down) = sides
    total = sum(max(0, w - j) for terms in (up, down) for j, w in enumerate(terms)) - _SCALE
    for k in range(max(least, -(-(trials - 1) * t.numerator // t.denominator) + 1), trials + 1):
        high = above[min(k - mode, len(above) - 1)] if k >= mode else above[0] + sum(down[1 : mode - k + 1])
        low = below[min(mode - (trials - (least or k)), len(below) - 1)]
        if (high + low) * alpha.denominator <= total * alpha.numerator:
            return k
        if k - mode > len(above) + len(below):
            return None
    return None


def _deterministic(c: dict[str, Any]) -> tuple[list[int], list[int], list[int]]:
    derive = {"nearest-neighbours": _nearest_neighbours, "mean-distance": _mean_distance}[c["method"]]
    sizes = {len(v) for k, v in c["evidence"].items() if k in ("distances", "score")}
    if c["alpha"] != "0/1" or c["trials"] or c["noise"] or any(c["votes"]) or sizes != {len(c["predicted"])}:
        raise ValueError("a deterministic certificate with votes, noise or alpha, or evidence for other images")
    each = [derive(c["evidence"], image, len(c["classes"])) for image in range(len(c["predicted"]))]
    return [label for label, _ in each], [r for _, r in each], [r for _, r in each]


def _nearest_neighbours(e: dict[str, Any], image: int, classes: int) -> tuple[int, int]:
    counts, centre, rows, n = e["counts"], e["centre"], e["distances"][image], sum(e["counts"])
    cost = max(200 * n, 100 * n + centre * (n + 1))
    if len(rows) != classes or len(counts) != classes or any(row != sorted(row) for row in rows):
        raise ValueError("distances that do not fit the classes, or are not sorted")

    def rank(size: int) -> int:
        return int(max(1, -(-e["k"] * size // n)) if e["balanced"] else (e["k"] + 1) // 2)

    def bias(label: int, i: int) -> int:
        return int(centre and i > 0 and centre * e["sums"][label][i - 1])

    own = [rank(size) for size in counts]
    first = [100 * n * rows[c][m - 1] - bias(c, m) if m <= counts[c] else 1 << 60 for c, m in enumerate(own)]
    label, radius = first.index(min(first)), e["most"]
    for rival in set(range(classes)) - {label}:
        flips = 0
        while flips <= radius:
            for lost in range(flips + 1):
                won = flips - lost
                ours, theirs = rank(counts[label] - lost + won), rank(counts[rival] + lost - won)
                if ours + lost > counts[label] or theirs <= lost or (centre and theirs + won > counts[rival]):
                    radius = min(radius, flips - 1)
                elif theirs - lost <= counts[rival]:
                    lead = 100 * n * (rows[rival][theirs - lost - 1] - rows[label][ours + lost - 1])
                    lead -= bias(rival, theirs + won) - bias(label, ours - won)
                    radius = min(radius, max((lead - 1) // cost + flips, flips - 1))
            flips += 1
    return (label if radius >= 0 else -1), max(radius, -1)


def _mean_distance(e: dict[str, Any], image: int, classes: int) -> tuple[int, int]:
    score, labels, pixels = e["score"][image], e["label_harm"][image], e["pixel_harm"][image]
    if classes != 2 or (labels and (min(labels) < 0 or min(map(min, pixels)) < 0)):
        raise ValueError("negative harm, or not two classes")
    radius = -1
    while score and radius < e["most"] and radius + 1 < len(labels):
        parts = [(flips, t, radius + 1 - flips - t) for flips in range(radius + 2) for t in range(radius + 2 - flips)]
        if any(abs(score) <= labels[f] + pixels[f][t] + q * e["training_pixel_harm"][f] for f, t, q in parts):
            break
        radius += 1
    return (-1 if radius < 0 else int(score < 0)), radius
