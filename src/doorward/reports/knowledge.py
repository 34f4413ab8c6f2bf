"""What a method looks for and when it fails, in the words of its own docstring; and what no method here can see."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass

from doorward.core.errors import DoorwardError

BLIND_SPOTS = {
    "audit": (
        ("Clean-label poison", "Images that keep their true label: nets that never saw them decide as labelled, too."),
        ("Very few images", "Poisoned images fewer than about half a percent of the set."),
        (
            "Natural kinds",
            "One breed of a class teaches its label as poison does; that is at most suspicious, for no trigger stops.",
        ),
        (
            "Triggers that warp, or move",
            "They leave nothing in common to be measured; the suspects alone speak then, or a window cut out of one.",
        ),
        ("Backdoors without poison", "One put straight into a model's weights leaves no trace in these images."),
        ("An attacker who knows the methods", "Poison that was shaped to pass exactly these checks."),
    ),
    "cleanse": (
        (
            "Clean-label poison",
            "Images that keep their true label lie among their own class and barely stand out from it.",
        ),
        (
            "Many targets",
            "All-to-all attacks and many triggers at once leave no class that differs from the others.",
        ),
        ("Changing triggers", "Triggers that differ from image to image, or are natural objects of the scene."),
        ("Very few images", "A handful of poisoned images in a class looks like ordinary outliers."),
        ("Backdoors without poison", "One put straight into a model's weights leaves no trace in these images."),
        ("An attacker who knows the methods", "Poison that was shaped to pass exactly these checks."),
    ),
    "invert": (
        ("Many targets", "All-to-all attacks leave no class that differs; pairwise inversion sees them in a race."),
        (
            "Natural backdoors",
            "A strong feature of a class, such as a hat all its pictures share, works as a trigger too.",
        ),
        (
            "Triggers outside the search",
            "Filters and objects that change with the scene are no mask and no sum; warps are for the method warp.",
        ),
        ("Few source classes", "A trigger that works from one class only is seen by pairwise inversion alone."),
        (
            "Backdoors that no input shows",
            "Triggers planted beyond the reach of gradients, or in code around the model.",
        ),
        ("An attacker who knows the methods", "A model trained so that its target class looks like the others here."),
    ),
    "screen": (
        ("Few stamped images", "Fewer than the share of clean images that is flagged anyway change no verdict."),
        ("Images of another kind", "Clean images unlike those that set the threshold are flagged more often."),
        (
            "Triggers that look at the image",
            "One that depends on the picture it is on can pass what fixed ones do not.",
        ),
    ),
    "repair": (
        (
            "The attacker's own trigger",
            "Measured were fresh inversions and variations of the found triggers; one far from both may be left.",
        ),
        ("Other backdoors", "Target classes that no inversion pointed to were not repaired and not measured."),
        (
            "Backdoors asleep",
            "What a repair silences can wake up when the model is trained on, above all on poisoned images.",
        ),
        ("Rare losses of accuracy", "A class or group of images may suffer where the accuracy over all does not."),
    ),
}

_FAILS = re.compile(r"Fails when\b[:\s]*(.+?)(?=\n\s*\n|\n\s*(?:Args|Returns|Raises|Source|Note)s?:|\Z)", re.DOTALL)


@dataclass(frozen=True)
class MethodNotes:
    """First sentence and ``Fails when`` line of a method; empty when the method is not installed here."""

    summary: str = ""
    fails_when: str = ""


def notes(verb: str, method: str) -> MethodNotes:
    """What the registered method says of itself."""
    from doorward.core import methods

    try:
        documentation = inspect.getdoc(methods.get(verb, method).function) or ""
    except (DoorwardError, ImportError):  # a run of another version, or of a package that is not installed here
        return MethodNotes()
    found = _FAILS.search(documentation)
    fails = " ".join(found.group(1).split()) if found else ""
    summary = documentation.split("\n\n")[0]
    return MethodNotes(" ".join(summary.split()), fails)


def told(knowledge: tuple[str, ...]) -> str:
    """Knowledge that an auditor does not have in practice, as words."""
    return ", ".join(k.replace("_", " ") for k in knowledge)
