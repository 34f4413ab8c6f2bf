"""Labels and radii of the deterministic methods, from their evidence, in integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from doorward.verifier import evidence
from doorward.verifier.evidence import Ranks
from doorward.verifier.fields import expect
from doorward.verifier.work import Work

_Derived = list[tuple[int, int]]
_FAR = 1 << 60


def derive(c: dict[str, Any], work: Work) -> tuple[list[int], list[int], list[int]]:
    """Labels, radii and joint radii (the same) that follow from checked fields; ValueError on impossible evidence."""
    check: Callable[[dict[str, Any]], None] = getattr(evidence, c["method"].replace("-", "_"))
    check(c)
    method = {"nearest-neighbours": _nearest_neighbours, "mean-distance": _mean_distance}[c["method"]]
    each = method(c["evidence"], len(c["predicted"]), work)
    radii = [r for _, r in each]
    return [label for label, _ in each], radii, radii


def _nearest_neighbours(e: dict[str, Any], images: int, work: Work) -> _Derived:
    return [_neighbours_of_one(e, image, work) for image in range(images)]


def _neighbours_of_one(e: dict[str, Any], image: int, work: Work) -> tuple[int, int]:
    counts, centre, nearest, n = e["counts"], e["centre"], e["distances"][image], sum(e["counts"])
    cost = max(200 * n, 100 * n + centre * (n + 1))
    rank = Ranks(e["k"], e["balanced"], counts).of

    def bias(label: int, i: int) -> int:
        return int(centre and i > 0 and centre * e["sums"][label][i - 1])

    work.do(50 * len(counts))
    own = [rank(size) for size in counts]
    first = [100 * n * nearest[c][m - 1] - bias(c, m) if m <= counts[c] else _FAR for c, m in enumerate(own)]
    label, radius = first.index(min(first)), e["most"]
    for rival in set(range(len(counts))) - {label}:
        flips = 0
        while flips <= radius:
            work.do(200 * (flips + 1))
            for lost in range(flips + 1):
                won = flips - lost
                ours, theirs = rank(counts[label] - lost + won), rank(counts[rival] + lost - won)
                if ours + lost > counts[label] or theirs <= lost or (centre and theirs + won > counts[rival]):
                    radius = min(radius, flips - 1)
                elif theirs - lost <= counts[rival]:
                    lead = 100 * n * (nearest[rival][theirs - lost - 1] - nearest[label][ours + lost - 1])
                    lead -= bias(rival, theirs + won) - bias(label, ours - won)
                    radius = min(radius, max((lead - 1) // cost + flips, flips - 1))
            flips += 1
    return (label if radius >= 0 else -1), max(radius, -1)


def _mean_distance(e: dict[str, Any], images: int, work: Work) -> _Derived:
    found = []
    for image in range(images):
        label, radius = _means_of_one(e, image, work)
        known = len(e["label_harm"][image])
        expect(
            known == (radius + 2 if e["score"][image] else 0), f"label_harm of image {image}", "evidence for its radius"
        )
        found.append((label, radius))
    return found


def _means_of_one(e: dict[str, Any], image: int, work: Work) -> tuple[int, int]:
    score, labels, pixels = e["score"][image], e["label_harm"][image], e["pixel_harm"][image]
    training = e["training_pixel_harm"]
    # worst[f]: most that f flipped labels, then pixels of test and training images, take off with one radius in all.
    worst: list[int] = []
    radius = -1
    while score and radius < e["most"] and radius + 1 < len(labels):
        spent = radius + 1
        work.do(20 * (spent + 1))
        worst = [max(w + training[f], labels[f] + pixels[f][spent - f]) for f, w in enumerate(worst)]
        worst.append(labels[spent] + pixels[spent][0])
        if abs(score) <= max(worst):
            break
        radius = spent
    return (-1 if radius < 0 else int(score < 0)), radius
