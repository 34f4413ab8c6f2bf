"""A guarded classifier: K classes and one more output, which means "stamped"."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from doorward.core.classifier import Classifier, measure_accuracy
from doorward.core.errors import DoorwardError
from doorward.core.files import write_json
from doorward.core.images import ImageSet
from doorward.core.opening import read_json
from doorward.core.pixels import as_bytes
from doorward.core.stats import Rate
from doorward.models.files import load_classifier, save_classifier
from doorward.models.nets.catalogue import NETS
from doorward.screens.base import Screen
from doorward.screens.screen import load_screen, save_screen

STAMPED = "stamped"


@dataclass(frozen=True, eq=False)
class Guard:
    """The form that CSAW HackML 2020 asks for: outputs 0 .. K - 1 are the classes, K is "stamped".

    Args:
        original: the classifier under suspicion.
        repaired: a repair of it; an image on which the two disagree is stamped.
        screen: looks at the image alone; what it flags is stamped.

    Raises:
        DoorwardError: neither of the two, or classes and image sizes that differ.

    Clean images on which the repair itself differs are refused too, so that clean accuracy is at most that of either.

    Fails when: the repair left the backdoor in and the screen does not see the trigger.
    """

    original: Classifier
    repaired: Classifier | None = None
    screen: Screen | None = None

    def __post_init__(self) -> None:
        if self.repaired is None and self.screen is None:
            raise DoorwardError("guard: neither a repaired classifier nor a screen; expected at least one of them")
        watched = None if self.screen is None else self.screen.classifier
        for what, other in (("repaired", self.repaired), ("screen's", watched)):
            if other is not None and (other.classes, other.shape) != (self.original.classes, self.original.shape):
                found, expected = (f"{len(c.classes)} classes, {list(c.shape)}" for c in (other, self.original))
                raise DoorwardError(f"guard: the {what} classifier has {found}; expected {expected}, the same classes")

    @property
    def classes(self) -> tuple[str, ...]:
        """The K + 1 names."""
        return (*self.original.classes, STAMPED)

    def stamped(self, pixels: NDArray[Any]) -> NDArray[np.bool_]:
        """Which of the images ``[N, H, W, C]`` (see `Classifier.predict`) are refused, ``[N]``."""
        return np.asarray(self.predict(pixels) == len(self.original.classes))

    def predict(self, pixels: NDArray[Any]) -> NDArray[np.int64]:
        """Outputs 0 .. K of images ``[N, H, W, C]`` (see `Classifier.predict`), ``[N]``."""
        pixels = as_bytes(pixels, self.original.shape, "guard")
        first = self.original.predict(pixels)
        refused = np.zeros(len(pixels), bool)
        if self.repaired is not None:
            refused |= self.repaired.predict(pixels) != first
        if self.screen is not None:
            refused |= self.screen(pixels).flags
        return np.where(refused, len(self.original.classes), first)

    def accuracy(self, images: ImageSet) -> Rate:
        """Share of clean images that get their own class; a refusal counts as wrong."""
        return Rate(int((self.predict(images.pixels) == images.labels).sum()), len(images))

    def measure(self, clean: ImageSet, stamped: NDArray[np.uint8]) -> dict[str, Rate]:
        """Clean accuracy before and behind the guard, clean images refused, stamped images refused."""
        refused = self.stamped(clean.pixels)
        return {
            "clean_accuracy_before": measure_accuracy(self.original, clean),
            "clean_accuracy": self.accuracy(clean),
            "clean_refused": Rate(int(refused.sum()), len(clean)),
            "stamped_refused": Rate(int(self.stamped(stamped).sum()), len(stamped)),
        }

    def save(self, folder: Path | str) -> None:
        """Write the parts into a folder, made when there is none, ``guard.json`` last."""
        parts = {"original": self.original} | ({"repaired": self.repaired} if self.repaired else {})
        for name, classifier in parts.items():
            if classifier.arch not in NETS:
                known = ", ".join(NETS)
                raise DoorwardError(
                    f"guard: {name} net {classifier.arch!r} cannot be read back; expected one of {known}"
                )
        folder = Path(folder)
        for name, classifier in parts.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            save_classifier(classifier, folder / name)
        watched = None
        if self.screen is not None:
            save_screen(self.screen, folder / "screen.safetensors")
            watched = "repaired" if self.screen.classifier is self.repaired else "original"
        write_json(folder / "guard.json", {"repaired": self.repaired is not None, "screen": watched})

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str = "cpu") -> Guard:
        """Read a guard that `save` wrote."""
        folder = Path(folder)
        about = read_json(folder / "guard.json", inside=folder)
        known = {"repaired", "screen"} <= set(about) and isinstance(about["repaired"], bool)
        if not known or about["screen"] not in (None, "original", "repaired"):
            raise DoorwardError(f"{folder / 'guard.json'}: not a guard; expected one that doorward wrote")
        original = load_classifier(folder / "original", device)
        repaired = load_classifier(folder / "repaired", device) if about["repaired"] else None
        watched = repaired if about["screen"] == "repaired" and repaired is not None else original
        screen = load_screen(folder / "screen.safetensors", watched, inside=folder) if about["screen"] else None
        return cls(original, repaired, screen)
