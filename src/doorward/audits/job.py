"""From a request in plain values to an audit in a run folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import Field

from doorward.audits.audit import audit
from doorward.audits.plan import plan_alone, plan_audit
from doorward.audits.results import Audit
from doorward.audits.summary import summary
from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.files import write_json
from doorward.core.images import ImageSet, few
from doorward.core.leftovers import drop
from doorward.core.plan import Plan
from doorward.core.progress import Progress
from doorward.core.runs import Run, versions
from doorward.data.summary import conversions
from doorward.models.nets.catalogue import NETS
from doorward.models.open.architectures import find_architecture
from doorward.models.open.matching import fit_images, fit_pictures
from doorward.models.open.together import Opening

STEPS = "steps"  # finished steps by version, in the folder of an unfinished run: those of another one may not fit
_OF_A_MODEL = ("arch", "classes", "mean", "std", "value_range", "feature_layer")


class AuditRequest(Opening):
    """What ``doorward audit`` was asked for: a training set, its model, or both.

    Args:
        model: empty where the audit trains one. ``source``: None where a model alone is audited.
        power: whether to say how few poisoned images would have been found.
    """

    model: str = ""
    source: str | None = None
    clean: str | None = None
    minutes: float | None = Field(None, gt=0)
    level: float = Field(0.05, gt=0, lt=1)
    net: str | None = None
    power: bool = False
    seed: int = 0


def audit_to_folder(
    request: AuditRequest,
    output: Path | str,
    *,
    overwrite: bool = False,
    command: str = "",
    progress: Progress | None = None,
    page: Callable[[Path], object] | None = None,
) -> Audit:
    """Audit and write the run: record, ``audit.json``, suspects, triggers, and ``model/`` where one was retrained.

    Args:
        page: writes more about the run into its folder before that has its name; reports stand above audits.

    A killed run goes on with the step it was in.
    """
    asked = _prepared(request)
    hashes = {"sha256": _hash(asked.images), "clean_sha256": _hash(asked.clean)}
    resolved = {**request.model_dump(mode="json"), **hashes, "size": request.side}
    with Run(Path(output), "audit", resolved, overwrite, command) as run:
        found = audit(
            asked.images,
            asked.classifier,
            asked.clean,
            minutes=request.minutes,
            level=request.level,
            net=asked.net,
            power=request.power,
            seed=request.seed,
            device=request.device,
            folder=run.work / STEPS / versions()["doorward"],
            progress=progress,
        )
        record = found.write(run.work)
        about = {"source": request.source or "", "model": request.model, "warnings": (*asked.notes, *record.warnings)}
        found = replace(found, facts=record.model_copy(update=about), folder=Path(output))
        write_json(run.work / "audit.json", summary(found.facts))
        run.keep(found.record)
        if page:
            run.write_manifest()
            page(run.work)
        drop(run.work / STEPS)
    return found


def plan_to_audit(request: AuditRequest) -> Plan:
    """What `audit_to_folder` would do, and about how long; nothing is written."""
    asked = _prepared(request)
    if asked.images is None:
        assert asked.classifier is not None and asked.clean is not None
        plan = plan_alone(asked.classifier, asked.clean, request.seed)
    else:
        plan = plan_audit(
            asked.images,
            asked.classifier,
            clean=asked.clean,
            net=asked.net,
            power=request.power,
            device=request.device,
            seed=request.seed,
        )
    return replace(plan, lines=(*plan.lines, *asked.notes))


class _Asked(NamedTuple):
    """What a request comes to before anything is run; ``net``: what nets of the audit are to be."""

    images: ImageSet | None
    classifier: Classifier | None
    clean: ImageSet | None
    net: str | None
    notes: tuple[str, ...]


def _prepared(request: AuditRequest) -> _Asked:
    """Everything opened; mistakes are told before anything is run."""
    _check(request)
    if request.net is not None:
        find_architecture(request.net)
    if request.source is None:
        opened = request.open_on_others(request.read(str(request.clean)))
        return _Asked(None, opened.classifier, opened.images, _net(request, opened.classifier), opened.notes)
    images, classifier = request.read(request.source, request.split or "train"), None
    if request.model:
        classifier, images, notes, _ = request.open_on_its_set(images)
    else:
        notes = conversions(images)
    clean = None
    if request.clean is not None:
        clean, more = _clean_images(request.read(request.clean), images, classifier)
        notes = (*notes, *more)
        if clean.hash == images.hash:
            told = f"{request.clean}: is the training set itself; expected other images, known to be clean"
            notes = (*notes, told)
    return _Asked(images, classifier, clean, _net(request, classifier), notes)


def _check(request: AuditRequest) -> None:
    """Refuse what does not go together."""
    if request.source is None and not (request.model and request.clean):
        alone = "--clean SOURCE to audit the model alone" if request.model else "--model with --clean SOURCE"
        raise DoorwardError(f"audit: no training set; expected SOURCE, or {alone}")
    if request.source is None and request.power:
        raise DoorwardError("audit: --power without a training set; expected SOURCE, to plant a known trigger into")
    if request.source is not None and not request.model:
        told = [name for name in _OF_A_MODEL if getattr(request, name) is not None]
        if told:
            name = "range" if told[0] == "value_range" else told[0].replace("_", "-")
            hint = "; --net says what is to be trained" if name == "arch" else ""
            raise DoorwardError(f"audit: --{name} without a model; expected --model MODEL with it{hint}")


def _net(request: AuditRequest, classifier: Classifier | None) -> str | None:
    """What is trained: never a file that only a model's folder names."""
    if request.net is not None or classifier is None:
        return request.net
    return request.arch or (classifier.arch if classifier.arch in NETS else None)


def _clean_images(clean: ImageSet, images: ImageSet, classifier: Classifier | None) -> tuple[ImageSet, tuple[str, ...]]:
    """Clean images as the model takes them, or as one will that is trained on the set; and what was done."""
    told = conversions(clean)
    if classifier is not None:
        fitted, notes, _ = fit_images(clean, classifier)
        return fitted, (*told, *notes)
    fitted, notes = fit_pictures(clean, images.shape)
    if set(clean.classes) != set(images.classes) or len(clean.classes) != len(images.classes):
        found, expected = few(clean.classes), few(images.classes)
        raise DoorwardError(f"{clean.name}: {found}; expected the classes of the training set, {expected}")
    if clean.classes != images.classes:
        place = np.array([images.classes.index(name) for name in clean.classes], dtype=np.int64)
        fitted = fitted.fitted(labels=place[fitted.labels], classes=images.classes)
    return fitted, (*told, *notes)


def _hash(images: ImageSet | None) -> str:
    return "" if images is None else images.hash
