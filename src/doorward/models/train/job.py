"""From a request in plain values to a trained classifier in a run folder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from doorward.core.classifier import measure_accuracy
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.methods import Settings, build_settings
from doorward.core.progress import Progress
from doorward.core.results import ImagesRecord, RateRecord, Record, read_record
from doorward.core.runs import Run
from doorward.core.tables import read_parquet
from doorward.data.sources import load_images, load_test_images
from doorward.models.files import save_classifier
from doorward.models.train.loop import BatchAttack, Epoch, train
from doorward.models.train.results import TrainRecord
from doorward.models.train.settings import TrainSettings


class TrainRequest(Settings):
    """What ``doorward train`` was asked for."""

    source: str
    split: Literal["train", "test"] = "train"
    net: str = "small-cnn"
    training: dict[str, Any] = Field(default_factory=dict)
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


def without_flagged(images: ImageSet, run: Path, method: str | None) -> ImageSet:
    """The images that a method of a cleanse run did not flag; the set must be the one that the run looked at."""
    looked = read_record(_Cleansed, run, "cleanse")
    known = list(looked.methods)
    if method is None and len(known) == 1:
        method = known[0]
    if method not in known:
        raise DoorwardError(f"{run}: method {method!r}; expected --by with one of {', '.join(known)}")
    if looked.images.sha256 != images.hash:
        raise DoorwardError(f"{run}: looked at other images than {images.name}; expected the set that it cleansed")
    flag = read_parquet(run / "samples.parquet")[f"{method}_flag"].astype(bool)
    return images.subset(~flag, f"{images.name} after {method}")


def train_to_folder(
    request: TrainRequest,
    output: Path | str,
    *,
    overwrite: bool = False,
    command: str = "",
    progress: Progress | None = None,
) -> TrainRecord:
    """Train and write the classifier as one run. A killed run goes on where it was."""
    settings = build_settings(TrainSettings, "train", request.training)
    if request.by is not None and request.without is None:
        raise DoorwardError(f"train: --by {request.by} without a cleanse run; expected --without RUN with it")
    images = load_images(request.source, split=request.split)
    if request.without is not None:
        images = without_flagged(images, Path(request.without), request.by)
    test = None if request.test is None else load_test_images(request.test)
    if test is not None and (test.shape, test.classes) != (images.shape, images.classes):
        found, expected = (f"{len(i.classes)} classes of {'x'.join(map(str, i.shape))} images" for i in (test, images))
        raise DoorwardError(f"{request.test}: {found}; expected those of {request.source}, {expected}")
    resolved = {**request.model_dump(mode="json"), "training": settings.model_dump(mode="json"), "sha256": images.hash}
    last: list[Epoch] = []

    def watch(e: Epoch) -> None:
        if not math.isfinite(e.loss):
            checkpoint.unlink(missing_ok=True)  # nothing to go on from
            raise DoorwardError(f"train: loss {e.loss} in epoch {e.number}; expected a smaller lr than {settings.lr:g}")
        last[:] = [e]

    with Run(Path(output), "train", resolved, overwrite, command) as run:
        checkpoint = run.work / "checkpoint.safetensors"
        classifier = train(
            images,
            request.net,
            settings,
            seed=request.seed,
            device=request.device,
            checkpoint=checkpoint,
            progress=progress,
            watch=watch,
            batch_attack=_batch_attack(request, images),
        )
        save_classifier(classifier, run.work)
        record = TrainRecord(
            images=len(images),
            loss=last[0].loss if last else None,
            images_per_second=round(last[0].images_per_second) if last else None,
            test_accuracy=None if test is None else RateRecord.of(measure_accuracy(classifier, test)),
        )
        run.keep(record)
        checkpoint.unlink(missing_ok=True)
    return record


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
