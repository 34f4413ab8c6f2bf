"""One pass over the training set: what the classifier makes of every image, shared by all methods."""

from __future__ import annotations

import copy
import hashlib
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from doorward.cleansers.parts.filters import Filter, get_filter
from doorward.core.classifier import Classifier, forward_batch, place_net
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.memmaps import create, release
from doorward.core.pixels import to_float
from doorward.core.progress import Progress
from doorward.models.folding import fold_batch_norm

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Observations:
    """Features ``[N, t]``, logits ``[N, K]``, and logits under each filter ``[N, K]``; float32."""

    features: Floats
    logits: Floats
    filtered_logits: dict[str, Floats]


class Look(Protocol):
    """How a cleansing gets its observations: `observe`, or an `ObserveOnce`."""

    def __call__(
        self,
        images: ImageSet,
        classifier: Classifier,
        filters: Iterable[str] = (),
        *,
        seed: int = 0,
        folder: Path | str | None = None,
        progress: Progress | None = None,
    ) -> Observations:
        """Features, logits and filtered logits."""
        ...


def observe(
    images: ImageSet,
    classifier: Classifier,
    filters: Iterable[str] = (),
    *,
    seed: int = 0,
    batch: int = 0,
    folder: Path | str | None = None,
    progress: Progress | None = None,
    alike: bool = False,
) -> Observations:
    """Penultimate features and logits of every image, and logits of its filtered versions.

    Args:
        filters: names from `doorward.cleansers.parts.filters`.
        seed: for the ``noise`` filter.
        batch: images at a time; 0 chooses by the device and the size of the images.
        folder: keep the arrays in files there (memory-mapped) instead of in memory.
        progress: called with ("features", images done, images in all).
        alike: whether all features may be the same, as of pictures under a trigger that covers them.

    Raises:
        DoorwardError: images of another size than the classifier takes, or features that are not finite, or the same
            for every image.
    """
    _check_shape(images, classifier)
    named = {name: get_filter(name) for name in filters}
    batch = batch or forward_batch(classifier.device, classifier.shape)
    looking = _folded(classifier, images, batch)
    store: dict[str, Floats] = {}

    def keep(name: str, start: int, values: Floats) -> None:
        if name not in store:
            shape = (len(images), values.shape[1])
            store[name] = (
                np.empty(shape, np.float32)
                if folder is None
                else create(Path(folder) / f"{name}.npy", np.float32, shape)
            )
        store[name][start : start + len(values)] = values

    for start, seen in _batches(images, looking, named, batch, seed):
        for name, values in seen.items():
            keep(name, start, values)
        release(images.pixels)
        if progress:
            progress("features", min(start + batch, len(images)), len(images))
    _check(store["features"], images.name, alike)
    return Observations(store["features"], store["logits"], {n: store[f"logits-{n}"] for n in named})


def logits_under(images: ImageSet, classifier: Classifier, filter: str, *, seed: int = 0) -> Floats:
    """Logits ``[N, K]`` of the images under one filter, as `observe` gives them, without the images as they are.

    Raises:
        DoorwardError: images of another size than the classifier takes.
    """
    _check_shape(images, classifier)
    batch = forward_batch(classifier.device, classifier.shape)
    looking = _folded(classifier, images, batch)
    seen = _batches(images, looking, {filter: get_filter(filter)}, batch, seed, plain=False)
    return np.concatenate([values[f"logits-{filter}"] for _, values in seen])


def _check_shape(images: ImageSet, classifier: Classifier) -> None:
    if images.shape != classifier.shape:
        found, expected = ("x".join(map(str, s)) for s in (images.shape, classifier.shape))
        raise DoorwardError(f"{images.name}: images of {found}; the classifier takes {expected}")


def _batches(
    images: ImageSet, classifier: Classifier, filters: dict[str, Filter], batch: int, seed: int, *, plain: bool = True
) -> Iterator[tuple[int, dict[str, Floats]]]:
    """Start and observations of every batch, in order; on a CPU one batch per core at a time, each with one thread.

    Nets this small gain little from a second thread in an operation, and nearly all of it from a second batch.
    """
    threads = torch.get_num_threads()
    on_cpu = classifier.device.type == "cpu"
    own = threading.local()  # a copy of the net per thread, of the same weights: a hook on it catches the features
    weights = {id(p): p for p in classifier.net.parameters()}

    def begin() -> None:
        if on_cpu:
            torch.set_num_threads(1)
        own.classifier = replace(classifier, net=copy.deepcopy(classifier.net, dict(weights)))

    def look(start: int) -> tuple[int, dict[str, Floats]]:
        return start, _look(images.pixels[start : start + batch], own.classifier, filters, seed + start, plain)

    with ThreadPoolExecutor(threads if on_cpu else 1, initializer=begin) as pool:
        try:
            yield from pool.map(look, range(0, len(images), batch))
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)


@torch.inference_mode()
def _look(
    pixels: Pixels, classifier: Classifier, filters: dict[str, Filter], seed: int, plain: bool
) -> dict[str, Floats]:
    images, generator = to_float(pixels, classifier.device), torch.Generator().manual_seed(seed)
    found: dict[str, Tensor] = {}
    if plain:
        with classifier.watching_features() as features:
            found["logits"] = classifier.logits(images)
        found["features"] = features[0]
    for name, function in filters.items():
        found[f"logits-{name}"] = classifier.logits(function(images, generator))
    return {name: values.float().cpu().numpy() for name, values in found.items()}


class ObserveOnce:
    """`observe`, remembering its last answer: several cleansings of one set by one classifier look once."""

    def __init__(self) -> None:
        self._key: tuple[str, str, int] | None = None
        self._kept: Observations | None = None

    def __call__(
        self, images: ImageSet, classifier: Classifier, filters: Iterable[str] = (), *, seed: int = 0, **more: Any
    ) -> Observations:
        """As `observe`; looks again for other images, weights, seed, or a filter that was not asked for."""
        key, wanted = (images.hash, _weights_hash(classifier), seed), set(filters)
        if self._kept is None or key != self._key or not wanted <= set(self._kept.filtered_logits):
            self._key, self._kept = key, observe(images, classifier, sorted(wanted), seed=seed, **more)
        return self._kept


def _weights_hash(classifier: Classifier) -> str:
    digest = hashlib.sha256(repr((classifier.arch, classifier.mean, classifier.std)).encode())
    for name, tensor in classifier.net.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _folded(classifier: Classifier, images: ImageSet, batch: int) -> Classifier:
    """A copy in evaluation mode with batch norm folded away, where that leaves the features in reach."""
    plain = replace(classifier, net=copy.deepcopy(classifier.net).eval())
    layer = plain.feature_name()
    probe = plain.normalise(to_float(images.pixels[: min(batch, 8)], plain.device))
    folded = place_net(fold_batch_norm(plain.net, probe), plain.device)
    return replace(plain, net=folded, feature_layer=layer) if layer in dict(folded.named_modules()) else plain


def _check(features: Floats, name: str, alike: bool) -> None:
    spread = 0.0
    for start in range(0, len(features), 1 << 16):
        chunk = features[start : start + (1 << 16)]
        if not np.isfinite(chunk).all():
            raise DoorwardError(f"{name}: the classifier's features hold NaN or infinity; expected finite features")
        spread = max(spread, float(np.ptp(chunk, axis=0).max()))
    if spread == 0 and not alike:
        raise DoorwardError(
            f"{name}: the classifier's features are the same for every image; nothing can be told apart"
        )
