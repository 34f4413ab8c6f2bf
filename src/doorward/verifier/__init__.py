"""Independent checker of certificates: integers only, nothing imported of what makes them, another algorithm.

Labels and radii are derived again from votes or integer evidence, after every field was checked to be possible.
Invisible without the data: evidence, true labels, names or settings that could be, made up together with a new hash.
So compare the data too, and train some trials again (`doorward.certification.recheck`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from doorward.core.opening import parse_json, read_text
from doorward.verifier import exact, smoothing
from doorward.verifier.fields import SMOOTHING, check
from doorward.verifier.work import MOST, MOST_EXACT, Work

MOST_BYTES = 128 << 20  # of a certificate
_USUAL = Fraction(1, 20)  # an alpha beyond it is told loudly


@dataclass(frozen=True)
class Report:
    """What a check came to.

    Args:
        valid: nothing is wrong.
        problems: what is, in one line each.
        images: how many images were checked; ``method``: by which method.
        warnings: what a valid certificate says less than one might think, in one line each.
        meaning: alpha, confidence, trials, noise, threat, data hashes and settings, plain JSON values; empty when not
            valid.
    """

    valid: bool
    problems: tuple[str, ...]
    images: int
    method: str
    warnings: tuple[str, ...] = ()
    meaning: dict[str, Any] = field(default_factory=dict, repr=False)


def verify(path: Path | str, train_sha256: str | None = None, test_sha256: str | None = None) -> Report:
    """Check a ``certificate.json``; with hashes, also that it is about these data (`ImageSet.hash`).

    Raises:
        DoorwardError: the file is absent, too large, no regular file, or no strict JSON.
    """
    content = parse_json(read_text(path, most=MOST_BYTES), path)
    try:
        problems = tuple(_problems(content, {"train_sha256": train_sha256, "test_sha256": test_sha256}))
    except ValueError as error:
        return Report(False, (str(error),), 0, "unknown")
    except (ArithmeticError, LookupError, TypeError) as error:  # none is known; a checker does not fall over
        return Report(False, (f"a field is missing or malformed ({type(error).__name__}: {error})",), 0, "unknown")
    images, method = len(content["predicted"]), content["method"]
    if problems:
        return Report(False, problems, images, method)
    return Report(True, (), images, method, tuple(_warnings(content)), _meaning(content))


def _problems(c: Any, hashes: dict[str, str | None]) -> Iterator[str]:
    check(c)
    rest = {k: v for k, v in c.items() if k != "sha256"}
    if hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest() != c["sha256"]:
        yield "sha256 does not fit the content"
    yield from (f"{k} is not that of the data given" for k, v in hashes.items() if v not in (None, c["data"][k]))
    images = len(c["predicted"])
    votes = c["method"] == SMOOTHING
    derived_fields = (smoothing if votes else exact).derive(c, Work(MOST if votes else MOST_EXACT))
    for name, derived in zip(("predicted", "radii", "joint_radii"), derived_fields, strict=True):
        wrong = [i for i in range(max(images, len(c[name]))) if c[name][i : i + 1] != derived[i : i + 1]]
        if wrong:
            yield f"{name}: {len(wrong)} of {images} do not follow from the evidence, first image {wrong[0]}"


def _warnings(c: dict[str, Any]) -> Iterator[str]:
    alpha = Fraction(c["alpha"])
    if alpha > _USUAL:
        yield f"only {_percent(1 - alpha)} confidence: each statement may be false with probability {c['alpha']}"
    if c["method"] == SMOOTHING:
        fewer = sum(sum(row) < c["trials"] for row in c["votes"])
        if fewer:
            yield f"{fewer} of {len(c['votes'])} images have fewer votes than trials: the learner abstained"
        if any(block["cells"] is None for block in c["noise"]):
            yield "the number of cells is not said: nothing bounds how many an attacker may reach"


def _meaning(c: dict[str, Any]) -> dict[str, Any]:
    alpha, names = Fraction(c["alpha"]), [block["name"] for block in c["noise"]]
    places = "training pixels, training labels and pixels of the test image"
    return {
        "alpha": c["alpha"],
        "confidence": _percent(1 - alpha),
        "trials": c["trials"],
        "noise": {name: {k: v for k, v in b.items() if k != "name"} for name, b in zip(names, c["noise"], strict=True)},
        "threat": f"up to a radius of changed values in all, among {places}; no images added or removed",
        "classes": c["classes"],
        "data": c["data"],
        "largest_radius": max(c["radii"]),
        "abstained": c["radii"].count(-1),
        "truth": c["truth"] is not None,
        "trial_votes": c.get("trial_votes", {}).get("sha256"),
        "settings": c["settings"],
    }


def _percent(share: Fraction) -> str:
    """A share in percent, cut off after ten decimals: never rounded up."""
    scaled = int(share * 10**12)
    return f"{scaled // 10**10}.{scaled % 10**10:010d}".rstrip("0").rstrip(".") + " %"
