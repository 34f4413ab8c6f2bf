"""What every screen has: a score per image, a threshold from clean images, and a form on disk."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.pixels import as_bytes
from doorward.core.progress import Progress
from doorward.core.text import plural
from doorward.screens.results import Screening
from doorward.screens.verdict import rank_of

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]
BATCH = 512  # images in one forward pass


@dataclass(frozen=True, eq=False)
class Screen:
    """A screen ready for use; made by `doorward.screens.fit`.

    Args:
        classifier: the net whose decisions it watches.
        threshold: from clean images, see `threshold_at`. A method gives the least that it may be, or -inf.
        false_rejection: share of clean images that the threshold is for; NaN until it is set.
        set_on: clean images that set the threshold.
        settings: the method's own, as plain values.
    """

    name: ClassVar[str] = ""
    forms: ClassVar[dict[str, type[Screen]]] = {}  # every kind of screen that was imported, by name
    classifier: Classifier
    threshold: float
    false_rejection: float = field(default=math.nan, kw_only=True)
    set_on: int = field(default=0, kw_only=True)
    settings: dict[str, Any] = field(default_factory=dict, kw_only=True)

    def __init_subclass__(cls) -> None:
        Screen.forms[cls.name] = cls

    def scores(self, pixels: Pixels) -> Floats:
        """Suspicion of uint8 images ``[N, H, W, C]``, ``[N]``."""
        raise NotImplementedError

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """What the method itself adds, to be written to disk."""
        raise NotImplementedError

    @classmethod
    def restore(cls, classifier: Classifier, threshold: float, arrays: dict[str, NDArray[np.generic]]) -> Screen:
        """The screen that `arrays` was written from; KeyError when one of them is missing."""
        raise NotImplementedError

    def __call__(self, pixels: NDArray[Any], progress: Progress | None = None) -> Screening:
        """Scores, flags and verdict on images ``[N, H, W, C]``: uint8, or floats in [0, 1]."""
        pixels = as_bytes(pixels, self.classifier.shape, f"screen {self.name}")
        with telling_passes(self.classifier, f"{self.name}: looking at {plural(len(pixels), 'image')}", progress):
            about = (self.scores(pixels), self.threshold, self.name, self.settings)
        return Screening.of(*about, false_rejection=self.false_rejection, set_on=self.set_on)


@contextmanager
def telling_passes(classifier: Classifier, stage: str, progress: Progress | None) -> Iterator[None]:
    """Within the block, every batch that goes through the net is told: a screen makes many pictures of one image."""
    if progress is None:
        yield
        return
    passed = 0

    def tell(_: nn.Module, batch: tuple[Tensor, ...], __: object) -> None:
        nonlocal passed
        passed += len(batch[0])
        progress(stage, 0, 0, f"{passed:,} pictures through the net")

    handle = classifier.net.register_forward_hook(tell)
    try:
        yield
    finally:
        handle.remove()


def threshold_at(clean: Floats, false_rejection: float, what: str = "screen") -> float:
    """The smallest clean score that is exceeded by a new clean image with probability ``false_rejection`` at most.

    The ceil((1 - rate)(n + 1))-th smallest of n scores: exact for any distribution when the images that come are like
    the clean ones (split conformal prediction; Vovk, Gammerman and Shafer 2005, proposition 4.1).

    Raises:
        DoorwardError: a rate outside (0, 1), or too few clean images for it.
    """
    if not 0 < false_rejection < 1:
        raise DoorwardError(f"{what}: false rejection rate {false_rejection:g}; expected a number between 0 and 1")
    rank = rank_of(false_rejection, len(clean))
    if rank > len(clean):
        needed = math.ceil(1 / false_rejection - 1e-9) - 1
        told = f"{len(clean)} clean images for a false rejection rate of {false_rejection:g}"
        raise DoorwardError(f"{what}: {told}; expected at least {needed}")
    return float(np.sort(clean)[rank - 1])


def roc(clean: Floats, stamped: Floats) -> tuple[Floats, Floats, float]:
    """False and true positive rates along all thresholds, and the area under the curve.

    Args:
        clean, stamped: scores of images that are, and that took no part in making the screen.
    """
    from sklearn.metrics import roc_auc_score, roc_curve

    if not len(clean) or not len(stamped):
        raise DoorwardError(f"roc: {len(clean)} clean and {len(stamped)} stamped scores; expected some of both")
    truth = np.concatenate([np.zeros(len(clean)), np.ones(len(stamped))])
    scores = np.concatenate([clean, stamped])
    false, true, _ = roc_curve(truth, scores)
    return np.asarray(false), np.asarray(true), float(roc_auc_score(truth, scores))
