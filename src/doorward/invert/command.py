"""From a request in plain values to an inversion run in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from doorward import methods as registry
from doorward.classifiers import Classifier, pick_device
from doorward.data import load_images, load_test_images
from doorward.errors import DoorwardError
from doorward.images import ImageSet
from doorward.invert.conventions import check_conventions
from doorward.invert.files import save_inversion, save_rounds
from doorward.invert.references import like, train_references
from doorward.invert.repeat import invert_repeatedly
from doorward.invert.run import DEFAULT_METHODS, invert
from doorward.methods import Settings
from doorward.runs import Run
from doorward.train.files import load_classifier
from doorward.train.foreign import load_foreign


class InvertRequest(Settings):
    """What ``doorward invert`` was asked for."""

    model: str
    arch: str | None = None
    source: str | None = None
    split: Literal["train", "test"] | None = None
    labelled: bool = True
    classes: int | None = Field(None, ge=2)
    shape: tuple[int, int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    value_range: tuple[float, float] | None = None
    methods: tuple[str, ...] = ()
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    knowledge: dict[str, Any] = Field(default_factory=dict)
    held_out: float = 0.3
    level: float = 0.05
    references: tuple[str, ...] = ()
    train_references: int = Field(0, ge=0)
    reference_net: str | None = None
    prescreen: int = 0
    repeat: int = Field(1, ge=1)
    seed: int = 0
    device: str = "auto"


def invert_to_folder(
    request: InvertRequest,
    output: Path,
    *,
    overwrite: bool = False,
    command: str = "",
    progress: Callable[[str, int, int, int], None] | None = None,
) -> dict[str, Any]:
    """Invert and write the run; returns the run's results. A killed run goes on inside the method it was in."""
    chosen = request.methods or (DEFAULT_METHODS if request.source else ("margin",))
    for name in chosen:
        registry.get("invert", name)  # a wrong name is told before anything is loaded
    if request.repeat > 1 and request.source is None:
        raise DoorwardError(f"--repeat {request.repeat}: hiding a trigger needs clean images; expected --images SOURCE")
    images = None if request.source is None else open_images(request.source, request.split)
    classifier, images, warnings = _fitting(request, images)
    if request.train_references and (images is None or not request.labelled):
        raise DoorwardError("--train-references: needs labelled clean images; expected --images SOURCE with labels")
    if request.train_references and len(images.classes if images else ()) != len(classifier.classes):
        raise DoorwardError("--train-references: the images have other classes than the model; expected the same")
    references = [open_classifier(request.model_copy(update={"model": m}), images) for m in request.references]
    if images is not None and images.shape == classifier.shape:
        comparable = request.labelled and len(images.classes) == len(classifier.classes)
        if comparable or not _has_conventions(request):  # what Doorward wrote beside a net outweighs a guess
            warnings += check_conventions(classifier, images, labelled=comparable, name=request.model)
    resolved = {**request.model_dump(mode="json"), "methods": list(chosen), "sha256": images and images.hash}
    with Run(output, "invert", resolved, overwrite, command) as run:
        reference_net = request.reference_net or like(classifier)
        if images is not None and request.train_references:
            own, doubts = train_references(
                images,
                request.train_references,
                net=reference_net,
                seed=request.seed,
                device=request.device,
                progress=progress,
            )
            references, warnings = [*references, *own], (*warnings, *doubts)
        options: dict[str, Any] = {
            "labelled": request.labelled,
            "held_out": request.held_out,
            "settings": request.settings,
            "knowledge": request.knowledge,
            "level": request.level,
            "references": references,
            "prescreen": request.prescreen,
            "seed": request.seed,
            "folder": run.work,
            "progress": progress,
        }
        if request.repeat > 1 and images is not None:
            rounds = invert_repeatedly(classifier, images, chosen, rounds=request.repeat, **options)
            results = save_rounds(rounds, images, run.work, request.seed)
        else:
            results = save_inversion(invert(classifier, images, chosen, **options), images, run.work, request.seed)
        run.results = {**results, "source": request.source, "model": request.model}
        run.results |= {
            "references": [*request.references, *[reference_net] * request.train_references],
            "warnings": list(warnings),
        }
    return run.results


def _fitting(request: InvertRequest, images: ImageSet | None) -> tuple[Classifier, ImageSet | None, tuple[str, ...]]:
    """The classifier, and the images as it takes them: grey ones are repeated over three channels for a colour net."""
    if images is None or images.shape[0] != 1:
        return open_classifier(request, images), images, ()
    coloured = images.coloured()
    try:
        classifier = open_classifier(request, images)
    except DoorwardError as error:  # weights of others may be those of a colour net
        try:
            classifier = open_classifier(request, coloured)
        except DoorwardError:
            raise error from None
    if classifier.shape[0] != 3:
        return classifier, images, ()
    return classifier, coloured, (f"{images.name}: grey images, repeated over three channels for a colour net",)


def _has_conventions(request: InvertRequest) -> bool:
    """Whether the model is a folder of ``doorward train``, which says itself how images go in."""
    return (Path(request.model) / "classifier.json").exists()


def open_images(source: str, split: Literal["train", "test"] | None) -> ImageSet:
    """The split asked for; else the test images where the source has some, for the classifier has not seen them."""
    return load_test_images(source) if split is None else load_images(source, split=split)


def open_classifier(request: InvertRequest, images: ImageSet | None) -> Classifier:
    """The classifier of a request: a folder of ``doorward train``, or weights of others with ``arch``."""
    path, device = Path(request.model), pick_device(request.device)
    told = [f"--{n}" for n, v in (("mean", request.mean), ("std", request.std), ("range", request.value_range)) if v]
    if request.arch is None or _has_conventions(request):
        if told and request.arch is None:
            raise DoorwardError(
                f"{told[0]}: is for weights of others; a folder written by 'doorward train' has its own"
            )
        if path.is_file():
            raise DoorwardError(f"{path}: weights alone; expected --arch NAME or --arch FILE.py:factory with them")
        return load_classifier(path, device)
    shape = request.shape or (images.shape if images is not None else None)
    if shape is None:
        raise DoorwardError("--arch: the size of the images is not known; expected --images SOURCE or --shape C,H,W")
    classes: tuple[str, ...] | int | None = request.classes
    if classes is None and images is not None and request.labelled:
        classes = images.classes
    return load_foreign(
        path / "weights.safetensors" if path.is_dir() else path,
        request.arch,
        shape,
        classes=classes,
        mean=request.mean or (0.0,),
        std=request.std or (1.0,),
        value_range=request.value_range or (0.0, 1.0),
        device=device,
    )
