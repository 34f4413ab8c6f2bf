"""Small made-up tasks for the tests of certification."""

from __future__ import annotations

import numpy as np

from doorward.certification.smoothing.noise import Noise
from doorward.certification.smoothing.task import SmoothingTask


def small_task(
    classes: int = 2, domain: int = 2, images: int = 24, tests: int = 17, side: int = 8, keep: float = 0.9
) -> SmoothingTask:
    """Noisy copies of one random picture per class, so that learners have something to learn."""
    rng = np.random.default_rng(3)
    pictures = rng.integers(0, domain, (classes, side * side))
    labels = np.arange(images) % classes

    def noisy(of: np.ndarray) -> np.ndarray:
        changed = rng.random((len(of), side * side)) < 0.25
        return np.where(changed, rng.integers(0, domain, changed.shape), pictures[of]).astype(np.uint8)

    return SmoothingTask(
        noisy(labels),
        labels.astype(np.int64),
        noisy(rng.integers(0, classes, tests)),
        classes,
        Noise.of(keep, classes=classes, domain=domain),
        (1, side, side),
    )
