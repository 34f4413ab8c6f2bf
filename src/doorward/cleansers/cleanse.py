"""The verb: one pass, then every method on what was observed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doorward.cleansers.observe import Look, Observations, observe
from doorward.cleansers.suspicion import Suspicion
from doorward.core import methods as registry
from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.methods import KNOWLEDGE, Method, Settings
from doorward.core.progress import Progress, printable

DEFAULT_METHODS = ("impurity", "activation", "spectral")


@dataclass(frozen=True, eq=False)
class Outcome:
    """One method's suspicion, with its settings, the knowledge it was handed, and its time in seconds."""

    method: Method
    settings: Settings
    knowledge: tuple[str, ...]
    suspicion: Suspicion
    seconds: float


@dataclass(frozen=True, eq=False)
class Cleansing:
    """What `cleanse` gives: every method's outcome on one training set."""

    images: ImageSet
    observations: Observations
    outcomes: dict[str, Outcome]

    def __repr__(self) -> str:
        flagged = [f"{name} flags {int(o.suspicion.flag.sum()):,}" for name, o in self.outcomes.items()]
        return printable(f"Cleansing of {self.images.name}: {len(self.images):,} images; {', '.join(flagged)}")

    def keep(self, name: str) -> ImageSet:
        """The training set without the images that a method flagged."""
        if name not in self.outcomes:
            raise DoorwardError(f"keep: method {name!r} did not run; expected one of {', '.join(self.outcomes)}")
        return self.images.subset(~self.outcomes[name].suspicion.flag, f"{self.images.name} after {name}")


def cleanse(
    images: ImageSet,
    classifier: Classifier,
    methods: str | Sequence[str] = DEFAULT_METHODS,
    *,
    settings: dict[str, dict[str, Any]] | None = None,
    knowledge: dict[str, Any] | None = None,
    seed: int = 0,
    folder: Path | str | None = None,
    progress: Progress | None = None,
    look: Look = observe,
) -> Cleansing:
    """Look for poisoned images in a training set with a classifier that was trained on it.

    Args:
        images: the training set, as it was trained on.
        classifier: trained on it.
        methods: names of registered cleansers.
        settings: per method.
        knowledge: what an auditor does not have in practice and the caller declares to know
            (``poisoning_rate``; ``target_class``, a name or a number; ``clean_images``, rows of the set); a method that
            needs one that is not here is refused, and so is one that no method uses.
        seed: of clustering and noise.
        folder: keep features there, memory-mapped, for sets larger than memory.
        progress: called with (stage, done, in all).
        look: makes the observations; an `ObserveOnce` shares them between calls.

    Features and logits are computed in one pass and shared by all methods.
    """
    chosen = [registry.get("cleanse", name) for name in registry.as_names(methods)]
    configured = {m.name: m.configure((settings or {}).get(m.name)) for m in chosen}
    for name in set(settings or {}) - set(configured):
        raise DoorwardError(f"cleanse: settings for {name!r}, which does not run; methods: {', '.join(configured)}")
    known = registry.check_knowledge("cleanse", knowledge or {}, chosen, images.classes)
    filters = {str(getattr(configured[m.name], "filter")) for m in chosen if "filtered_logits" in m.given}  # noqa: B009
    observations = look(images, classifier, sorted(filters), seed=seed, folder=folder, progress=progress)
    outcomes = {}
    for number, method in enumerate(chosen):
        if progress:
            progress(method.name, number, len(chosen))
        outcomes[method.name] = _run(method, configured[method.name], images, observations, known, seed)
    if progress:
        progress("done", len(chosen), len(chosen))
    return Cleansing(images, observations, outcomes)


def _run(
    method: Method,
    settings: Settings,
    images: ImageSet,
    observations: Observations,
    known: dict[str, Any],
    seed: int,
) -> Outcome:
    """Hand a method exactly what it declared, nothing more."""
    available: dict[str, Any] = {
        "features": observations.features,
        "logits": observations.logits,
        "labels": images.labels,
        "pixels": images.pixels,
        "seed": seed,
    }
    if "filtered_logits" in method.given:
        available["filtered_logits"] = observations.filtered_logits[str(getattr(settings, "filter"))]  # noqa: B009
    used = {k: v for k, v in known.items() if k in method.given | method.accepts}
    handed = {k: available[k] for k in method.given - KNOWLEDGE} | used
    started = time.monotonic()
    with one_thread():
        suspicion: Suspicion = method.function(**handed, s=settings)
    return Outcome(method, settings, tuple(sorted(used)), suspicion, time.monotonic() - started)


def one_thread() -> AbstractContextManager[object]:
    """Within the block, BLAS and OpenMP use one thread.

    The matrices of a class are small: a second thread gains nothing, and threads that wait for each other on a busy
    machine made clustering many times slower. It also makes the result independent of the number of cores.
    """
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[object] = threadpool_limits(limits=1)
    return limits


def agreement(outcomes: dict[str, Outcome]) -> NDArray[np.int64]:
    """How many methods flag each image, ``[N]``."""
    return np.sum([o.suspicion.flag for o in outcomes.values()], axis=0, dtype=np.int64)
