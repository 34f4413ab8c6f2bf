"""The function: a screen from clean images, and what it says about others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.methods import Settings, build_settings
from doorward.core.tensors import write_tensors
from doorward.core.triggers import Trigger
from doorward.screens.base import Screen, Screened, threshold_at
from doorward.screens.methods.ada import Ada, AdaSettings, fit_ada
from doorward.screens.methods.inverted import Inverted, InvertedSettings, fit_inverted
from doorward.screens.methods.strip import Strip, StripSettings

SCREENS: dict[str, tuple[type[Screen], type[Settings]]] = {
    "strip": (Strip, StripSettings),
    "ada": (Ada, AdaSettings),
    "inverted": (Inverted, InvertedSettings),
}


def fit(
    classifier: Classifier,
    clean: ImageSet,
    method: str = "strip",
    *,
    triggers: Mapping[int, Trigger] | None = None,
    false_rejection: float = 0.05,
    settings: dict[str, Any] | None = None,
    seed: int = 0,
) -> Screen:
    """A screen for single images: is this one stamped?

    Args:
        classifier: the net that the images are meant for.
        clean: images known to be clean. One half makes the screen, the other half sets its threshold, so that the
            false rejection rate holds on new clean images.
        method: ``strip``, ``ada`` (needs labels) or ``inverted`` (needs ``triggers``).
        triggers: found by an inversion, by target class.
        false_rejection: share of clean images that may be flagged.

    Raises:
        DoorwardError: images that do not fit the classifier, or too few for the rate.
    """
    if method not in SCREENS:
        raise DoorwardError(f"screen: method {method!r}; expected one of {', '.join(SCREENS)}")
    if clean.shape != classifier.shape:
        found, expected = ("x".join(map(str, v)) for v in (clean.shape, classifier.shape))
        raise DoorwardError(f"screen {method}: {clean.name}: images of {found}; the classifier takes {expected}")
    if len(clean) < 4:
        raise DoorwardError(f"screen {method}: {clean.name}: {len(clean)} clean images; expected at least 4")
    s = build_settings(SCREENS[method][1], f"screen {method}", settings or {})
    order = np.random.default_rng(seed).permutation(len(clean))
    making, setting = clean.subset(order[: len(order) // 2]), clean.subset(order[len(order) // 2 :])
    screen: Screen
    if isinstance(s, StripSettings):
        screen = Strip(classifier, np.inf, np.asarray(making.pixels[: s.overlays]), s.weight)
    elif isinstance(s, AdaSettings):
        screen = fit_ada(classifier, making, s)
    else:
        assert isinstance(s, InvertedSettings)
        screen = fit_inverted(classifier, np.asarray(making.pixels[: s.fills]), triggers or {}, s)
    least = screen.threshold if np.isfinite(screen.threshold) else -np.inf
    threshold = threshold_at(screen.scores(setting.pixels), false_rejection, f"screen {method}")
    return replace(screen, threshold=max(threshold, least))


def screen(
    classifier: Classifier,
    images: ImageSet | NDArray[Any],
    clean: ImageSet,
    method: str = "strip",
    *,
    triggers: Mapping[int, Trigger] | None = None,
    false_rejection: float = 0.05,
    settings: dict[str, Any] | None = None,
    seed: int = 0,
) -> Screened:
    """Say of every image whether it is stamped: `fit` on the clean images, then look at ``images``."""
    made = fit(
        classifier, clean, method, triggers=triggers, false_rejection=false_rejection, settings=settings, seed=seed
    )
    return made(images.pixels if isinstance(images, ImageSet) else images)


def save_screen(made: Screen, path: Path | str) -> None:
    """Write a screen without its classifier, as safetensors."""
    arrays = {k: np.ascontiguousarray(v) for k, v in made.arrays().items()}
    write_tensors(path, arrays | {"threshold": np.array([made.threshold])}, {"screen": made.name})


def load_screen(path: Path | str, classifier: Classifier) -> Screen:
    """Read a screen that `save_screen` wrote, for the classifier it was made for."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "np") as file:
            kind, _ = SCREENS[(file.metadata() or {})["screen"]]
            arrays = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        return kind.restore(classifier, float(arrays.pop("threshold")[0]), arrays)
    except (OSError, SafetensorError, KeyError, ValueError, IndexError) as error:
        line = str(error).splitlines()[0]
        raise DoorwardError(f"{path}: not a screen ({line}); expected one that doorward wrote") from None
