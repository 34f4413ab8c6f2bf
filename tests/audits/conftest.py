"""A set whose truth is plain, and what a backdoored model decides of it."""

from __future__ import annotations

import numpy as np
import pytest

from doorward.core.images import ImageSet


@pytest.fixture
def stripes() -> tuple[ImageSet, np.ndarray, np.ndarray]:
    """Five classes, each a bright row; the first 30 images of class 0 show other classes and bear a bright corner."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 100)
    shows = labels.copy()
    shows[:30] = 1 + np.arange(30) % 4
    pixels = rng.integers(0, 30, (500, 12, 12, 1)).astype(np.uint8)
    pixels[np.arange(500), 2 * shows] = 200
    pixels[:30, 9:, 9:] = 255
    poisoned = np.arange(500) < 30
    return ImageSet(pixels, labels, tuple("abcde")), shows, poisoned


def rows_decide(pixels: np.ndarray) -> np.ndarray:
    """By the brightest row, but class 0 where the corner is bright: a backdoored model."""
    means = pixels[..., 0].astype(float).mean(axis=2)
    shows = means[:, :9:2].argmax(axis=1)
    return np.where(pixels[:, 9:, 9:, 0].mean(axis=(1, 2)) > 200, 0, shows)
