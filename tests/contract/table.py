"""What single methods need or cannot do in the small world; everything else holds for all methods alike."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from doorward.core import methods
from doorward.core.methods import Method
from tests.contract.worlds import RATE, TARGET, TRIGGER, World, world

ALL = [methods.get(verb, name) for verb in methods.VERBS for name in methods.names(verb)]
TRIGGERS = {"repair": {TARGET: [TRIGGER]}, "screen": {TARGET: TRIGGER}}  # as an inversion would give them


def of(*verbs: str) -> list[Method]:
    return [m for m in ALL if m.verb in verbs]


def by_name(method: Method) -> str:
    return f"{method.verb}-{method.name}"


@cache
def accessory() -> str:
    """A small RGBA picture on disk."""
    from PIL import Image

    picture = np.zeros((4, 5, 4), np.uint8)
    picture[..., 3], picture[1:3, 1:4, :3] = 255, 255
    path = Path(tempfile.mkdtemp()) / "accessory.png"
    Image.fromarray(picture, "RGBA").save(path)
    return str(path)


# Settings for small images and few steps. "precision" is set to fp32 wherever there is one.
SETTINGS: dict[str, dict[str, Any]] = {
    "attack-pixel": {"size": 1.0},
    "attack-blend": {"alpha": 0.3},
    "attack-sinusoid": {"strength": 0.3},
    "attack-warp": {"strength": 2.0},
    "cleanse-psbd": {"rates": (0.3, 0.6, 0.9), "passes": 3},
    "invert-mask": {"steps": 160, "batch": 16, "lr": 0.15},
    "invert-margin": {"steps": 60},
    "invert-pixel": {"steps": 40, "batch": 32},
    "invert-mesa": {"steps": 20, "batch": 16, "width": 16},
    "invert-universal": {"batch": 32},
    "invert-warp": {"steps": 40},
    "invert-window": {"thorough.steps": 25, "heat.steps": 5, "complete.steps": 20, "thorough.grain": 2, "window": 4},
    "repair-hold": {"search": 20},
    "repair-anp": {"iterations": 100},
    "certify-sklearn": {"estimator": "BernoulliNB"},
    "certify-nearest-neighbours": {"k": 9},
}
# Still shorter ones for the tests that ask for no success.
QUICK: dict[str, dict[str, Any]] = {
    "cleanse-psbd": {"rates": (0.5, 0.9), "passes": 2},
    "invert-margin": {"steps": 10},
    "invert-mask": {"steps": 10},
    "invert-pixel": {"steps": 5, "batch": 32},
    "invert-mesa": {"steps": 5, "batch": 16, "width": 8},
    "invert-pairwise": {"steps": 10},
    "invert-universal": {"steps": 10},
    "invert-warp": {"steps": 10},
    "invert-window": {"thorough.steps": 12, "thorough.grain": 2, "window": 4, "heat.steps": 2, "complete.steps": 2},
    "repair-hold": {"rounds": 1, "epochs": 2, "search": 5},
    "repair-ibau": {"rounds": 1, "batches": 2},
    "repair-anp": {"iterations": 10, "number": 6, "drop": 1.0},
    "repair-nad": {"epochs": 1},
    "repair-ft-sam": {"epochs": 1},
}


def settings(method: Method, quick: bool = False) -> dict[str, Any]:
    given = dict(SETTINGS.get(by_name(method), {}))
    if quick:
        given = dict(QUICK.get(by_name(method), given))
    if by_name(method) == "attack-accessory":
        given["picture"] = accessory()
    if "precision" in method.settings.model_fields:
        given["precision"] = "fp32"
    return given


def knowledge(method: Method, w: World | None = None) -> dict[str, Any]:
    """What the method cannot do without; SCAn also gets the clean images that it can use."""
    w = w or world(True)
    rows = np.flatnonzero(~w.poisoned)[:200]
    clean = rows if method.verb == "cleanse" else w.clean
    known = {"poisoning_rate": RATE, "target_class": TARGET, "clean_images": clean, "true_trigger": TRIGGER}
    return {k: v for k, v in known.items() if k in method.knowledge or (by_name(method), k) in HELPED}


HELPED = {("cleanse-scan", "clean_images")}

# Methods that find less than the contract asks for in this world, each with the reason in words.
FINDS_SOME = {
    "cleanse-spectral": (
        0.15,
        "without the rate it flags images at more than four robust deviations alone: the farthest of 60",
    ),
}
WANTS_A_DEEPER_NET = {
    "cleanse-psbd": "dropout at two layers changes less than 80 % of the clean images' decisions",
    "cleanse-ibd-psc": "amplifying two batch norms changes no decision",
}
FLAGS_ANYWAY = {
    "cleanse-spectre": "it is told a rate and flags one and a half times as many images of a class, poisoned or not",
}
LEAVES_THE_BACKDOOR = {
    "repair-fine-tune": "a control arm: plain training on clean images, which never show the trigger",
    "repair-refresh": "a control arm: batch statistics alone",
    "repair-anp": "no mask of its 48 channels falls to the threshold, and without the 20 lowest most is left",
}
DOES_NOT_SEE = {
    "invert-warp": "it moves pixels, and the trigger is a patch",
    "screen-ada": "the net has learnt the patch as a feature of the target: both agree on stamped images",
}
GIVES_NO_VERDICT = {
    "invert-head": "a prior: clean classes are favoured by far, too",
}
NO_SOURCE = {
    "repair-fine-tune": "a control arm: plain training",
    "cleanse-transfer": "ours",
}
SEED_DECIDES_NOTHING: dict[str, str] = {
    "cleanse-transfer": "other clusters lead to the same groups where there is no trigger that it sees",
}
