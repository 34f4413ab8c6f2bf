"""An own cache folder for every test, and small image sets to write and read back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from doorward.core.images import ImageSet

Make = Callable[..., ImageSet]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("DOORWARD_CACHE", str(folder))
    return folder


@pytest.fixture
def make() -> Make:
    def images(per_class: int = 3, classes: int = 2, size: tuple[int, int] = (5, 4), channels: int = 3, seed: int = 0):
        rng = np.random.default_rng(seed)
        count = per_class * classes
        pixels = rng.integers(0, 256, (count, *size, channels), dtype=np.uint8)
        labels = np.repeat(np.arange(classes), per_class).astype(np.int64)
        return ImageSet(pixels, labels, tuple(f"c{k}" for k in range(classes)))

    return images
