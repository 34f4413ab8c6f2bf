"""One pass over the training set: what the classifier makes of every image, shared by all methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from doorward.classifiers import Classifier, to_float
from doorward.cleanse.filters import get_filter
from doorward.errors import DoorwardError
from doorward.images import ImageSet
from doorward.memmaps import create, release

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Observations:
    """Features ``[N, t]``, logits ``[N, K]``, and logits under each filter ``[N, K]``; float32."""

    features: Floats
    logits: Floats
    filtered_logits: dict[str, Floats]


@torch.inference_mode()
def observe(
    images: ImageSet,
    classifier: Classifier,
    filters: Iterable[str] = (),
    *,
    seed: int = 0,
    batch: int = 512,
    folder: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Observations:
    """Penultimate features and logits of every image, and logits of its filtered versions.

    Args:
        filters: names from `doorward.cleanse.filters`.
        seed: for the ``noise`` filter.
        folder: keep the arrays in files there (memory-mapped) instead of in memory.
        progress: called with (images done, images in all).

    Raises:
        DoorwardError: images of another size than the classifier takes, or features that are not finite.
    """
    if images.shape != classifier.shape:
        found, expected = ("x".join(map(str, s)) for s in (images.shape, classifier.shape))
        raise DoorwardError(f"{images.name}: images of {found}; the classifier takes {expected}")
    named = {name: get_filter(name) for name in filters}
    generator = torch.Generator().manual_seed(seed)
    store: dict[str, Floats] = {}

    def keep(name: str, start: int, values: torch.Tensor) -> None:
        if name not in store:
            shape = (len(images), values.shape[1])
            if folder is None:
                store[name] = np.empty(shape, np.float32)
            else:
                path = folder / f"{name}.npy"
                store[name] = create(path, np.float32, shape)
        store[name][start : start + len(values)] = values.float().cpu().numpy()

    classifier.net.eval()
    for start in range(0, len(images), batch):
        batch_images = to_float(images.pixels[start : start + batch], classifier.device)
        with classifier.watching_features() as seen:
            keep("logits", start, classifier.logits(batch_images))
        keep("features", start, seen[0])
        for name, function in named.items():
            keep(f"logits-{name}", start, classifier.logits(function(batch_images, generator)))
        release(images.pixels)
        if progress:
            progress(min(start + batch, len(images)), len(images))
    _check(store["features"], images.name)
    return Observations(store["features"], store["logits"], {n: store[f"logits-{n}"] for n in named})


def _check(features: Floats, name: str) -> None:
    spread = 0.0
    for start in range(0, len(features), 1 << 16):
        chunk = features[start : start + (1 << 16)]
        if not np.isfinite(chunk).all():
            raise DoorwardError(f"{name}: the classifier's features hold NaN or infinity; expected finite features")
        spread = max(spread, float(np.ptp(chunk, axis=0).max()))
    if spread == 0:
        raise DoorwardError(
            f"{name}: the classifier's features are the same for every image; nothing can be told apart"
        )
