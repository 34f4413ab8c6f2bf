"""Verb ``attack``: images and a recipe to poisoned images and the truth about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from doorward.attack.files import load_attack, load_truth, save_attack, save_truth
from doorward.attack.plan import Attack, BatchStamping, Pairing
from doorward.attack.poison import Poisoned, Truth, poison
from doorward.attack.rate import asr
from doorward.attack.stamps import make_stamp
from doorward.attack.warp import Warp
from doorward.images import ImageSet
from doorward.verbs import make_callable


def attack(
    images: ImageSet,
    recipe: str,
    *,
    target: int | Literal["next"] = 0,
    sources: tuple[int, ...] | None = None,
    rate: float | None = None,
    count: int | None = None,
    mode: Literal["replace", "add"] = "replace",
    seed: int = 0,
    settings: dict[str, Any] | None = None,
    pixels_file: Path | None = None,
) -> Poisoned:
    """Poison an image set with one recipe and one label rule.

    Args:
        recipe: ``patch``, ``pixel``, ``blend``, ``accessory``, ``sinusoid``, ``warp``.
        target: the target class; ``"next"`` sends every class to the next one (all-to-all).
        sources: source classes; default all but the target.
        rate, count, mode, seed, pixels_file: see `poison`.
        settings: the recipe's own settings.

    For several triggers with several targets build an `Attack` of several `Pairing` and call `poison`.
    """
    stamp = make_stamp(recipe, images.shape, seed, **(settings or {}))
    plan = Attack(recipe, (Pairing(stamp, None if target == "next" else target, sources),))
    return poison(images, plan, rate=rate, count=count, mode=mode, seed=seed, pixels_file=pixels_file)


make_callable(__name__, attack)

__all__ = [
    "Attack",
    "BatchStamping",
    "Pairing",
    "Poisoned",
    "Truth",
    "Warp",
    "asr",
    "attack",
    "load_attack",
    "load_truth",
    "make_stamp",
    "poison",
    "save_attack",
    "save_truth",
]
