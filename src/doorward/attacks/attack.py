"""Verb ``attack``: images and a recipe to poisoned images and the truth about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from doorward.attacks.plan import Attack, Pairing
from doorward.attacks.poison import Poisoned, poison
from doorward.attacks.stamps import make_stamp
from doorward.core.arguments import check_images
from doorward.core.images import ImageSet


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
    pixels_file: Path | str | None = None,
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
    check_images("attack", "images", images)
    stamp = make_stamp(recipe, images.shape, seed, **(settings or {}))
    plan = Attack(recipe, (Pairing(stamp, None if target == "next" else target, sources),))
    return poison(images, plan, rate=rate, count=count, mode=mode, seed=seed, pixels_file=pixels_file)
