"""Small sets that many tests share."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does; before torch is imported

import numpy as np
import pytest

from doorward.core.images import ImageSet


def make_images(
    count: int = 60, classes: int = 3, shape: tuple[int, int, int] = (12, 10, 3), seed: int = 0
) -> ImageSet:
    """Random images whose class shows in the mean brightness, so that a net can learn them."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % classes
    pixels = rng.integers(0, 60, (count, *shape), dtype=np.int64) + (labels * (180 // classes))[:, None, None, None]
    return ImageSet(pixels.astype(np.uint8), labels, tuple(f"class-{k}" for k in range(classes)), "made-up")


@pytest.fixture
def images() -> ImageSet:
    return make_images()


@pytest.fixture(scope="session")
def digits() -> tuple[ImageSet, ImageSet]:
    """Training and test digits of the bundled MNIST sample."""
    from doorward.data.sources import load_images

    return load_images("mnist-5k"), load_images("mnist-5k", split="test")


LONG = (
    "papers/test_hackml",
    "test_snippets",
    "papers/",
    "test_examples",
    "demo/",
    "typing/",
    "cli/",
    "jobs/",
    "contract/",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first: begun last, one of them would keep one core waiting for the other."""

    def rank(item: pytest.Item) -> int:
        return next((n for n, part in enumerate(LONG) if part in item.nodeid), len(LONG))

    items.sort(key=rank)
