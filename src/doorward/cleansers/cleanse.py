"""The verb: one pass, then every method on what was observed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from doorward.cleansers.observe import Look, Observations, logits_under, observe
from doorward.cleansers.parts.filters import candidates, widest
from doorward.cleansers.parts.threads import one_thread
from doorward.cleansers.results import CleanseRecord, Cleansing, GroupRecord, MethodRecord
from doorward.cleansers.samples import Samples
from doorward.cleansers.suspicion import Suspicion
from doorward.cleansers.verdict import Test, Witness, weigh
from doorward.core import methods as registry
from doorward.core.arguments import check_images, check_model
from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.methods import KNOWLEDGE, Method, Settings
from doorward.core.progress import Progress
from doorward.core.results import ClassifierRecord, Finding, ImagesRecord, RateRecord
from doorward.core.stats import Rate
from doorward.core.triggers import trigger_file

DEFAULT_METHODS = ("impurity", "activation", "spectral", "scan", "transfer")
_ASKED = 200  # images by which a filter is chosen


@dataclass(frozen=True, eq=False)
class _Ran:
    """One method's suspicion, with the knowledge it was handed and its time in seconds."""

    method: Method
    settings: Settings
    knowledge: tuple[str, ...]
    suspicion: Suspicion
    seconds: float


def cleanse(
    images: ImageSet,
    model: Classifier,
    methods: str | Sequence[str] = DEFAULT_METHODS,
    *,
    settings: dict[str, dict[str, Any]] | None = None,
    knowledge: dict[str, Any] | None = None,
    level: float = 0.05,
    seed: int = 0,
    folder: Path | str | None = None,
    progress: Progress | None = None,
    look: Look = observe,
) -> Cleansing:
    """Look for poisoned images in a training set with a model that was trained on it.

    Args:
        images: the training set, as it was trained on.
        model: trained on it.
        methods: names of registered cleansers.
        settings: per method.
        knowledge: what an auditor does not have in practice and the caller declares to know
            (``poisoning_rate``; ``target_class``, a name or a number; ``clean_images``, rows of the set); a method that
            needs one that is not here is refused, and so is one that no method uses.
        level: chance of a verdict against a set without poison.
        seed: of clustering and noise.
        folder: keep features there, memory-mapped, for sets larger than memory.
        progress: called with (stage, done, in all).
        look: makes the observations; an `ObserveOnce` shares them between calls.

    Features and logits are computed in one pass and shared by all methods.

    Returns:
        scores and flags of every method, a table of findings, and one verdict (`doorward.cleansers.verdict`).

    Raises:
        DoorwardError: unknown methods or settings, a level outside (0, 1), images that do not fit the model.
    """
    check_images("cleanse", "images", images)
    check_model("cleanse", model)
    if not 0 < level < 1:
        raise DoorwardError(f"cleanse: level {level}; expected a number between 0 and 1")
    chosen = [registry.get("cleanse", name) for name in registry.as_names(methods)]
    configured = {m.name: m.configure((settings or {}).get(m.name)) for m in chosen}
    for name in set(settings or {}) - set(configured):
        raise DoorwardError(f"cleanse: settings for {name!r}, which does not run; methods: {', '.join(configured)}")
    known = registry.check_knowledge("cleanse", knowledge or {}, chosen, images.classes)
    for name, names in filters_of(chosen, configured, images).items():
        filter = names[0] if len(names) == 1 else choose_filter(images, model, names, seed)
        configured[name] = _under(configured[name], filter, large=len(names) > 1)
    filters = {str(getattr(configured[m.name], "filter")) for m in chosen if "filtered_logits" in m.given}  # noqa: B009
    observations = look(images, model, sorted(filters), seed=seed, folder=folder, progress=progress)
    ran = []
    for number, method in enumerate(chosen):
        if progress:
            progress(method.name, number, len(chosen))
        ran.append(_run(method, configured[method.name], images, model, observations, known, seed))
    if progress:
        progress("done", len(chosen), len(chosen))
    return _result(images, model, observations, ran, level)


def filters_of(
    chosen: Sequence[Method], configured: Mapping[str, Settings], images: ImageSet
) -> dict[str, tuple[str, ...]]:
    """Filters to look through, by method; several where a setting leaves the choice to the pictures."""
    side = min(images.shape[1:])
    wanted = {m.name: str(getattr(configured[m.name], "filter")) for m in chosen if "filtered_logits" in m.given}  # noqa: B009
    return {name: candidates(filter, side) for name, filter in wanted.items()}


def choose_filter(images: ImageSet, model: Classifier, names: Sequence[str], seed: int) -> str:
    """The widest of several filters that leaves most decisions alone, by a look at up to 200 of the images."""
    some = images.subset(np.random.default_rng(seed).permutation(len(images))[:_ASKED])
    decided = observe(some, model, seed=seed).logits
    return widest(decided, lambda name: logits_under(some, model, name, seed=seed), names)


def _under(settings: Settings, name: str, *, large: bool) -> Settings:
    """The settings with the filter that was chosen, so that the record tells it."""
    under = getattr(settings, "under", None)
    return under(name, large) if under else settings.model_copy(update={"filter": name})


def _result(
    images: ImageSet, model: Classifier, observations: Observations, ran: Sequence[_Ran], level: float
) -> Cleansing:
    """All plain values, weighed."""
    predicted = observations.logits.argmax(axis=1)
    accuracy = Rate(int((predicted == images.labels).sum()), len(images))
    witnesses = [Witness(r.method.name, r.method.kind, r.knowledge, r.suspicion) for r in ran]
    weighed = weigh(witnesses, images.labels, images.classes, accuracy, level)
    triggers = {label: trigger for r in ran for label, trigger in r.suspicion.triggers.items()}
    record = CleanseRecord(
        judgement=weighed.judgement,
        findings=tuple(_named(f, images) for f in weighed.findings),
        images=ImagesRecord.of(images),
        classifier=ClassifierRecord(arch=model.arch, accuracy_on_images=RateRecord.of(accuracy)),
        methods={r.method.name: _method(r, weighed.tests[r.method.name], len(images.classes)) for r in ran},
        triggers={label: trigger_file(label) for label in triggers},
    )
    scores = {r.method.name: r.suspicion.score for r in ran}
    flags = {r.method.name: r.suspicion.flag for r in ran}
    ids = images.ids if images.named else None
    samples = Samples(np.arange(len(images)), images.labels, predicted, scores, flags, ids)
    return Cleansing(record, samples, images, observations, triggers=triggers)


def _named(finding: Finding, images: ImageSet) -> Finding:
    """The finding with what its images are called, where they have names."""
    if not images.named:
        return finding
    return finding.model_copy(update={"ids": tuple(images.ids[i] for i in finding.images)})


def _method(ran: _Ran, test: Test, classes: int) -> MethodRecord:
    suspicion = ran.suspicion
    return MethodRecord(
        flagged=int(suspicion.flag.sum()),
        given=tuple(sorted(ran.method.given)),
        knowledge=ran.knowledge,
        settings=ran.settings.model_dump(mode="json"),
        seconds=round(ran.seconds, 3),
        warnings=suspicion.warnings,
        groups=tuple(GroupRecord(**asdict(group)) for group in suspicion.groups),
        class_scores=tuple(suspicion.class_scores(classes)),
        tested=None if suspicion.tested is None else tuple(suspicion.tested.tolist()),
        p_value=test.p_value,
        class_p_values=tuple(test.classes.tolist()) if test.p_value is not None else (),
        undecided=test.undecided,
        kind=ran.method.kind,
    )


def _run(
    method: Method,
    settings: Settings,
    images: ImageSet,
    model: Classifier,
    observations: Observations,
    known: dict[str, Any],
    seed: int,
) -> _Ran:
    """Hand a method exactly what it declared, nothing more."""
    available: dict[str, Any] = {
        "features": observations.features,
        "logits": observations.logits,
        "labels": images.labels,
        "pixels": images.pixels,
        "classifier": model,
        "seed": seed,
    }
    if "filtered_logits" in method.given:
        available["filtered_logits"] = observations.filtered_logits[str(getattr(settings, "filter"))]  # noqa: B009
    used = {k: v for k, v in known.items() if k in method.given | method.accepts}
    handed = {k: available[k] for k in method.given - KNOWLEDGE} | used
    started = time.monotonic()
    with nullcontext() if "classifier" in method.given else one_thread():  # the net's own passes take every core
        suspicion: Suspicion = method.function(**handed, s=settings)
    return _Ran(method, settings, tuple(sorted(used)), suspicion, time.monotonic() - started)
