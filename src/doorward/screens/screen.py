"""The verb: a screen from clean images, and what it says about others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doorward.core import methods as registry
from doorward.core.arguments import check_images, check_model
from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError, show
from doorward.core.images import ImageSet
from doorward.core.opening import parse_json
from doorward.core.progress import Progress
from doorward.core.tensors import SMALL, read_described, reason, write_tensors
from doorward.core.triggers import Trigger
from doorward.screens.base import Screen, telling_passes, threshold_at
from doorward.screens.results import Screening


def fit(
    model: Classifier,
    clean: ImageSet,
    method: str = "strip",
    *,
    triggers: Mapping[int, Trigger] | None = None,
    false_rejection: float = 0.05,
    settings: dict[str, Any] | None = None,
    knowledge: dict[str, Any] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Screen:
    """A screen for single images: is this one stamped?

    Args:
        model: the classifier that the images are meant for.
        clean: images known to be clean. One half makes the screen, the other half sets its threshold, so that the
            false rejection rate holds on new clean images.
        method: name of a registered screen: ``strip``, ``ada`` (needs labels) or ``inverted`` (needs ``triggers``).
        triggers: found by an inversion, by target class.
        false_rejection: share of clean images that may be flagged.
        settings: the method's own.
        knowledge: what an auditor may not have and the caller declares to have, beside the clean images; a method that
            needs some that is not here is refused.
        seed: of everything random, the halves among it.
        progress: called with a stage in words, and how many pictures went through the net.

    Raises:
        DoorwardError: images that do not fit the classifier, or too few for the rate; settings, triggers or knowledge
            that the method does not have or lacks.
    """
    check_model("screen", model)
    check_images("screen", "clean", clean)
    found = registry.get("screen", method)
    configured = found.configure(settings)
    known = registry.check_knowledge("screen", knowledge or {}, [found], model.classes)
    check_triggers(found, bool(triggers))
    if clean.shape != model.shape:
        told, expected = ("x".join(map(str, v)) for v in (clean.shape, model.shape))
        raise DoorwardError(f"screen {method}: {clean.name}: images of {told}; the classifier takes {expected}")
    if len(clean) < 4:
        raise DoorwardError(f"screen {method}: {clean.name}: {len(clean)} clean images; expected at least 4")
    order = np.random.default_rng(seed).permutation(len(clean))
    making, setting = clean.subset(order[: len(order) // 2]), clean.subset(order[len(order) // 2 :])
    available = {"model": model, "making": making, "triggers": triggers, "seed": seed}
    handed = {k: v for k, v in available.items() if k in found.given}
    used = {k: v for k, v in known.items() if k in found.given | found.accepts}
    with telling_passes(model, f"{method}: making the screen", progress):
        made: Screen = found.function(**handed, **used, s=configured)
        threshold = threshold_at(made.scores(setting.pixels), false_rejection, f"screen {method}")
    return replace(
        made,
        threshold=max(threshold, made.threshold),
        false_rejection=false_rejection,
        set_on=len(setting),
        settings=configured.model_dump(mode="json"),
    )


def check_triggers(method: registry.Method, given: bool) -> None:
    """Refuse a screen that needs triggers when none were given."""
    if "triggers" in method.given and not given:
        told = "needs triggers, which were not given; expected those of an inversion"
        raise DoorwardError(f"screen {method.name}: {told}")


def screen(
    model: Classifier,
    images: ImageSet | NDArray[Any],
    clean: ImageSet,
    method: str = "strip",
    *,
    triggers: Mapping[int, Trigger] | None = None,
    false_rejection: float = 0.05,
    settings: dict[str, Any] | None = None,
    knowledge: dict[str, Any] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Screening:
    """Say of every image whether it is stamped: `fit` on the clean images, then look at ``images``.

    Args:
        images: an `ImageSet`, or uint8 pixels ``[N, H, W, C]``.

    The other arguments are those of `fit`.

    Returns: scores, flags, and a verdict on all images together.
    """
    if not isinstance(images, np.ndarray):
        check_images("screen", "images", images)
    made = fit(
        model,
        clean,
        method,
        triggers=triggers,
        false_rejection=false_rejection,
        settings=settings,
        knowledge=knowledge,
        seed=seed,
        progress=progress,
    )
    return made(images.pixels if isinstance(images, ImageSet) else images, progress)


def save_screen(made: Screen, path: Path | str) -> None:
    """Write a screen without its classifier, as safetensors."""
    arrays = {k: np.ascontiguousarray(v) for k, v in made.arrays().items()}
    about = {"false_rejection": made.false_rejection, "set_on": made.set_on, "settings": made.settings}
    told = {"screen": made.name, "about": json.dumps(about)}
    write_tensors(path, arrays | {"threshold": np.array([made.threshold])}, told)


def load_screen(path: Path | str, model: Classifier, *, inside: Path | str | None = None) -> Screen:
    """Read a screen that `save_screen` wrote, for the classifier it was made for; it is tried on two grey pictures.

    Args:
        inside: a folder that the file must lie in, links resolved.

    Raises:
        DoorwardError: another file, numbers that are not finite, or a screen of another classifier.
    """
    registry.names("screen")  # imports every kind of screen
    try:
        arrays, told = read_described(path, framework="np", inside=inside, most=SMALL)
        kind, about = Screen.forms[told["screen"]], parse_json(told["about"], "about")
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise ValueError("NaN or infinity")
        made = kind.restore(model, float(arrays.pop("threshold")[0]), arrays)
        rate, set_on = float(about["false_rejection"]), int(about["set_on"])
        if not (0 < rate < 1 and 1 <= set_on < 2**31):
            raise ValueError(f"false rejection rate {rate:g}, set on {set_on} images")
        channels, height, width = model.shape
        scores = made.scores(np.full((2, height, width, channels), 127, np.uint8))
        if scores.shape != (2,) or np.isnan(scores).any():
            raise ValueError(f"scores {list(scores.shape)}, or NaN")
        return replace(made, false_rejection=rate, set_on=set_on, settings=dict(about["settings"]))
    except Exception as error:  # arrays of any shape, given to a net
        told_why = f"{show(path)}: not a screen ({reason(error, path)})"
        raise DoorwardError(f"{told_why}; expected one that doorward wrote") from None
