"""What the evidence of the deterministic methods can be, whatever the images were; ValueError names what cannot be."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

from doorward.verifier.fields import expect, keys, rising, rows, whole, wholes

_MOST_IMAGES = 1 << 30  # training images
_LARGEST = 1 << 62  # scores and harms are 64-bit numbers


@dataclass(frozen=True)
class Ranks:
    """Which neighbour counts, of classes of ``counts`` training images."""

    k: int
    balanced: int
    counts: list[int]

    def of(self, size: int) -> int:
        """The rank that counts for a class of ``size`` images."""
        return max(1, -(-self.k * size // sum(self.counts))) if self.balanced else (self.k + 1) // 2


def nearest_neighbours(c: dict[str, Any]) -> None:
    """Check counts, sums and distances, each against the number of images, pixels and classes."""
    names = ("k", "balanced", "centre", "most", "counts", "sums", "distances")
    e, classes, pixels = keys(c["evidence"], "evidence", names), len(c["classes"]), prod(c["settings"]["shape"])
    k, most, centre = (
        whole(e["k"], "k", 1, 100_001),
        whole(e["most"], "most", 0, 256),
        whole(e["centre"], "centre", 0, 100),
    )
    expect(k % 2, "k", "an odd number")
    whole(e["balanced"], "balanced", 0, 1)
    counts = wholes(e["counts"], "counts", 0, _MOST_IMAGES, classes)
    n = sum(counts)
    expect(sum(size > 0 for size in counts) >= 2, "counts", "training images of two classes at least")
    expect(k <= (n if e["balanced"] else 2 * max(counts) - 1), "k", "no more neighbours than the training images allow")
    expect(not centre or min(counts), "counts", "images of every class, or centre 0")
    ranks = Ranks(k, e["balanced"], counts)
    deepest = ranks.of(max(counts) + most + 1) + most + 1
    known = [min(deepest, size) for size in counts]
    sums = rows(e["sums"], "sums", classes if centre else 0)
    for label, row in enumerate(sums):
        field = f"sums of class {label}"
        wholes(row, field, 0, n * pixels, known[label])
        rising(row, field)
        # Each image of the class is at distance 0 from itself.
        expect(row[0] <= (n - counts[label]) * pixels, field, "a smallest sum over the other classes' images")
    for image, of_image in enumerate(rows(e["distances"], "distances", len(c["predicted"]))):
        field = f"distances of image {image}"
        for row, length in zip(rows(of_image, field, classes), known, strict=True):
            rising(wholes(row, field, 0, pixels, length), field)
        _near(of_image, sums, counts, pixels, field)
    _agree(c, e, ("k", "balanced", "centre", "most"))


def _near(of_image: list[list[int]], sums: list[list[int]], counts: list[int], pixels: int, field: str) -> None:
    """The i-th smallest distance to a class differs by d(x, z) at most between a test image x and a training image z.

    Summed over all z: n D(x) and the class's sum differ by no more than all distances of x together.
    """
    n = sum(counts)
    together = sum(sum(row) + pixels * (size - len(row)) for row, size in zip(of_image, counts, strict=True))
    for row, total in zip(of_image, sums, strict=False):
        fits = all(abs(n * d - s) <= together for d, s in zip(row, total, strict=True))
        expect(fits, field, "distances that fit the sums over the training images")


def mean_distance(c: dict[str, Any]) -> None:
    """Check scores and harms, each against what flips can do to the rule of so many images of so many pixels."""
    names = ("most", "score", "label_harm", "pixel_harm", "training_pixel_harm")
    e, images = keys(c["evidence"], "evidence", names), len(c["predicted"])
    expect(len(c["classes"]) == 2, "classes", "two of them")
    most = whole(e["most"], "most", 0, 256)
    n, cap, kernel = _rule(e, c["settings"], most)
    pixels = prod(c["settings"]["shape"])
    largest = min(_LARGEST, n * cap * pixels)  # what n weights up to the cap can come to in one score
    scores = wholes(e["score"], "score", -largest, largest, images)
    labels, flipped = rows(e["label_harm"], "label_harm", images), rows(e["pixel_harm"], "pixel_harm", images)
    for image, (score, harms, table) in enumerate(zip(scores, labels, flipped, strict=True)):
        field = f"label_harm of image {image}"
        rising(wholes(harms, field, 0, _LARGEST), field)
        expect(
            bool(score) == bool(harms) and len(harms) <= most + 2, field, f"1 to {most + 2} numbers, none at score 0"
        )
        fits = all(h <= flips * 2 * n * n * kernel * pixels + 1 for flips, h in enumerate(harms))
        expect(fits and not any(harms[:1]), field, "0 of no flipped label, and of each no more than all weights allow")
        field = f"pixel_harm of image {image}"
        for flips, row in enumerate(rows(table, field, len(harms))):
            wholes(row, field, 0, _LARGEST, len(harms) - flips)
            expect(row[0] == 0, field, "0 of no flipped pixel")
            gains = [b - a for a, b in pairwise(row)]
            rising([0, *reversed(gains), n * cap], field)  # the largest first, and none beyond a weight at its cap
            # A score is at most the sum of what all its pixels can take off, so t of them take off their share.
            share = all(b * pixels >= abs(score) * min(t, pixels) for t, b in enumerate(row))
            expect(share, field, "as much as the score leaves to so many pixels")
            if flips:  # more flipped labels move the weights further
                expect(all(a <= b for a, b in zip(table[flips - 1], row, strict=False)), field, "rows that never fall")
    _agree(c, e, ("most",))


def _rule(e: dict[str, Any], settings: dict[str, Any], most: int) -> tuple[int, int, int]:
    """Training images, cap of the weights and sum of the blur's kernel: the harm of a training pixel tells them."""
    field = "training_pixel_harm"
    harm = wholes(e[field], field, 1, _LARGEST, most + 2)
    blur, clip = (
        whole(settings.get("blur"), "settings.blur", 0, 4),
        whole(settings.get("clip"), "settings.clip", 1, 100),
    )
    kernel = 16**blur
    n = (harm[1] - harm[0]) // (2 * kernel)
    expect(2 <= n <= _MOST_IMAGES, field, "numbers that grow with the flipped labels as two or more images have it")
    cap = max(1, clip * kernel * n * n // 200)
    apart = (harm[0] - cap) // (n * kernel) - n  # by how many images one class is larger
    expect(0 <= apart <= n - 2 and (n - apart) % 2 == 0, field, "numbers that two classes of images can give")
    true = [n * kernel * (n + min(n, apart + 2 * flips)) + cap for flips in range(most + 2)]
    expect(harm == true, field, f"what {n} images, blur {blur} and clip {clip} give")
    return n, cap, kernel


def _agree(c: dict[str, Any], e: dict[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        expect(c["settings"].get(name, e[name]) == e[name], f"settings.{name}", f"{e[name]}, as in the evidence")
