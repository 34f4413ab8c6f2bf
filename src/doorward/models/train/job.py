"""From a request in plain values to a trained classifier in a run folder."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from doorward.core.classifier import Classifier, measure_accuracy
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.methods import build_settings
from doorward.core.plan import Plan
from doorward.core.progress import Progress
from doorward.core.results import ImagesRecord, RateRecord, Record, read_record
from doorward.core.runs import Run
from doorward.core.tables import read_parquet
from doorward.core.text import duration
from doorward.data.reading import Reading
from doorward.data.sources import load_as, load_for_test
from doorward.data.summary import conversions
from doorward.models.files import save_classifier
from doorward.models.open.foreign import conventions
from doorward.models.open.load import has_conventions
from doorward.models.open.matching import fit_pictures
from doorward.models.open.together import Opening
from doorward.models.train.doubts import doubt_learning, estimate_seconds
from doorward.models.train.loop import BatchAttack, Epoch, train
from doorward.models.train.results import TrainRecord
from doorward.models.train.settings import TrainSettings
from doorward.models.train.start import fresh, from_weights
from doorward.models.train.workers import process_number

_LONG = 60  # seconds; a longer training is announced


class TrainRequest(Reading):
    """What ``doorward train`` was asked for."""

    source: str
    net: str = "small-cnn"
    training: dict[str, Any] = Field(default_factory=dict)
    weights: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    value_range: tuple[float, float] | None = None
    augment: Literal["none", "imagenet"] = "none"
    test: str | None = None
    without: str | None = None
    by: str | None = None
    attacker: str | None = None
    probability: float = 0.01
    seed: int = 0
    device: str = "auto"


class _Cleansed(Record):
    """As much of a cleanse run as a training needs; the room of the cleansers stands above this one."""

    images: ImagesRecord
    methods: dict[str, Any]


class _Audited(Record):
    """As much of an audit: None where a model alone was audited."""

    images: ImagesRecord | None = None


def without_flagged(images: ImageSet, run: Path, method: str | None) -> ImageSet:
    """The images that an audit, or a method of a cleanse run, did not flag; the set must be the one it looked at."""
    if Run.read(run)["verb"] == "audit":
        return _without_suspects(images, run, method)
    looked = read_record(_Cleansed, run, "cleanse")
    known = list(looked.methods)
    if method is None and len(known) == 1:
        method = known[0]
    if method not in known:
        told = f"several methods ran ({', '.join(known)})" if method is None else f"no method {method!r} ran"
        raise DoorwardError(f"{run}: {told}; expected --by with one of {', '.join(known)}")
    _check_same(images, looked.images, run)
    flag = read_parquet(run / "samples.parquet")[f"{method}_flag"].astype(bool)
    return images.subset(~flag, f"{images.name} after {method}")


def _without_suspects(images: ImageSet, run: Path, method: str | None) -> ImageSet:
    if method is not None:
        told = f"an audit, which has one list of suspects; expected --without alone, not --by {method}"
        raise DoorwardError(f"{run}: {told}")
    looked = read_record(_Audited, run, "audit")
    if looked.images is None or not (run / "samples.parquet").is_file():
        raise DoorwardError(f"{run}: a model alone was audited; expected the audit of a training set")
    _check_same(images, looked.images, run)
    suspect = read_parquet(run / "samples.parquet")["suspect"].astype(bool)
    return images.subset(~suspect, f"{images.name} after the audit")


def _check_same(images: ImageSet, looked: ImagesRecord, run: Path) -> None:
    if not looked.are(images.hashes):
        raise DoorwardError(f"{run}: looked at other images than {images.name}; expected the set that it looked at")


def train_to_folder(
    request: TrainRequest,
    output: Path | str,
    *,
    overwrite: bool = False,
    command: str = "",
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> TrainRecord | None:
    """Train and write the classifier as one run. A killed run goes on where it was.

    Args:
        tell: called with notes, warnings, and the time it will take when that is over a minute.

    Of several processes that ``torchrun`` started the first one writes; the others return None.
    """
    settings, reading, given, start, images, notes = _prepared(request)
    test = _test_images(request, reading, images)
    resolved = {**request.model_dump(mode="json"), "training": settings.model_dump(mode="json"), "sha256": given}
    tell = tell if tell and process_number() == 0 else _nothing
    for note in notes:
        tell(note)
    last: list[Epoch] = []

    def watch(e: Epoch) -> None:
        if not math.isfinite(e.loss):
            checkpoint.unlink(missing_ok=True)  # nothing to go on from
            raise DoorwardError(f"train: loss {e.loss} in epoch {e.number}; expected a smaller lr than {settings.lr:g}")
        last[:] = [e]

    def trained(checkpoint: Path | None) -> Classifier:
        return train(
            images,
            request.net,
            settings,
            seed=request.seed,
            device=request.device,
            checkpoint=checkpoint,
            progress=progress,
            watch=watch,
            batch_attack=_batch_attack(request, images),
            start=start,
            augment=request.augment,
        )

    checkpoint = Path(output).absolute().with_name(Path(output).name + ".partial") / "checkpoint.safetensors"
    if process_number() > 0:
        trained(None)
        return None
    with Run(Path(output), "train", resolved, overwrite, command) as run:
        if not checkpoint.exists() and tell is not _nothing:
            _announce(tell, estimate_seconds(images, request.net, settings, device=request.device, start=start))
        classifier = trained(checkpoint)
        save_classifier(classifier, run.work)
        doubt = doubt_learning(classifier, images)
        if doubt:
            tell(doubt)
        record = TrainRecord(
            images=len(images),
            loss=last[0].loss if last else None,
            images_per_second=round(last[0].images_per_second) if last else None,
            test_accuracy=None if test is None else RateRecord.of(measure_accuracy(classifier, test)),
            notes=notes,
            warnings=(doubt,) if doubt else (),
        )
        run.keep(record)
        checkpoint.unlink(missing_ok=True)
    return record


class _Asked(NamedTuple):
    """What a request comes to before anything is trained; ``sha256``: of the images as they were read."""

    settings: TrainSettings
    reading: Reading
    sha256: str
    start: Classifier | None
    images: ImageSet
    notes: tuple[str, ...]


def _prepared(request: TrainRequest) -> _Asked:
    """Everything opened; mistakes are told before anything is trained."""
    settings = build_settings(TrainSettings, "train", request.training)
    if request.by is not None and request.without is None:
        raise DoorwardError(f"train: --by {request.by} without a run; expected --without RUN with it")
    reading = _reading(request)
    images = load_as(request.source, reading)
    if request.without is not None:
        images = without_flagged(images, Path(request.without), request.by)
    given = images.hash
    start, images, notes = _start(request, images)
    return _Asked(settings, reading, given, start, images, notes)


def plan_to_train(request: TrainRequest) -> Plan:
    """What `train_to_folder` would do, and how long; nothing is written."""
    settings, _, _, start, images, notes = _prepared(request)
    seconds = estimate_seconds(images, request.net, settings, device=request.device, start=start)
    net = request.net if start is None else repr(start)
    return Plan((repr(images), f"{net}: {settings.epochs} epochs in batches of {settings.batch}", *notes), seconds)


def _nothing(_: str) -> None:
    pass


def _announce(tell: Callable[[str], None], seconds: float) -> None:
    if seconds > _LONG:
        tell(f"{duration(seconds)} on this machine; Ctrl-C stops it, the same command goes on after its last epoch")


def _scaled(request: TrainRequest, images: ImageSet) -> Classifier | None:
    """A fresh net under the mean and deviation that were asked for; None where those of the images will do."""
    if not any((request.mean, request.std, request.value_range)):
        return None
    scaled = conventions(request.mean, request.std, request.value_range, images.shape[0])
    return replace(fresh(images, request.net, request.seed), mean=scaled[0], std=scaled[1])


def _reading(request: TrainRequest) -> Reading:
    """How the pictures are read: in the size that is asked for, or that the given weights' configuration says."""
    given = {name: getattr(request, name) for name in Reading.model_fields}
    if request.size is None and request.weights is not None:
        given["size"] = Opening(model=request.weights, arch=_net(request)).side
    return Reading(**given)


def _net(request: TrainRequest) -> str | None:
    """The architecture that is asked for; None where the weights' folder says it."""
    path = Path(request.weights or "")
    says = has_conventions(path) or (path / "config.json").is_file()
    return request.net if "net" in request.model_fields_set or not says else None


def _start(request: TrainRequest, images: ImageSet) -> tuple[Classifier | None, ImageSet, tuple[str, ...]]:
    """The classifier to train on, if weights are given, the images as the net takes them, and what was done."""
    if request.weights is None:
        return _scaled(request, images), images, conversions(images)
    start, notes = from_weights(
        Path(request.weights),
        _net(request),
        images,
        seed=request.seed,
        mean=request.mean,
        std=request.std,
        value_range=request.value_range,
    )
    fitted, converted = fit_pictures(images, start.shape)
    return start, fitted, (*conversions(images), *notes, *converted)


def _test_images(request: TrainRequest, reading: Reading, images: ImageSet) -> ImageSet | None:
    if request.test is None:
        return None
    test = load_for_test(request.test, reading)
    if request.size is not None or request.weights is not None:
        test, _ = fit_pictures(test, images.shape)
    if (test.shape, test.classes) != (images.shape, images.classes):
        found, expected = (f"{len(i.classes)} classes of {'x'.join(map(str, i.shape))} images" for i in (test, images))
        raise DoorwardError(f"{request.test}: {found}; expected those of {request.source}, {expected}")
    return test


def _batch_attack(request: TrainRequest, images: ImageSet) -> BatchAttack | None:
    if request.attacker is None:
        return None
    from doorward.attacks.files import load_attack
    from doorward.attacks.plan import BatchStamping

    if not 0 < request.probability <= 1:
        raise DoorwardError(f"train: probability {request.probability}; expected a number above 0 and at most 1")
    folder = Path(request.attacker)
    plan = load_attack(folder / "attack" if (folder / "attack").is_dir() else folder)
    plan.check(len(images.classes))
    return BatchStamping(plan, request.probability, len(images.classes))
