"""From a request in plain values to a certificate in a run folder."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from fractions import Fraction
from inspect import signature
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from doorward.certification.certificate import Certificate, radii_of_votes
from doorward.certification.certify import certify, noise_blocks
from doorward.certification.request import CertifyRequest, Draw
from doorward.certification.results import AttackSearch, CertifyRecord, summarise
from doorward.certification.smoothing.montecarlo import Counts
from doorward.certification.smoothing.noise import Noise
from doorward.certification.smoothing.task import SmoothingTask, cells_of, draw_split
from doorward.certification.smoothing.trial_votes import NAME as TRIAL_VOTES
from doorward.certification.smoothing.votes import trials_needed, vote_table
from doorward.certification.tightness import attack_search
from doorward.core import methods as registry
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.progress import Progress
from doorward.core.runs import Run
from doorward.data.sources import load_images

_ARGUMENTS = set(signature(certify).parameters) & set(CertifyRequest.model_fields) - {"train", "test", "workers"}
_SEARCHED_TRAINING_IMAGES = 1000  # the search takes seconds up to here


def certify_to_folder(
    request: CertifyRequest,
    output: Path | str,
    *,
    overwrite: bool = False,
    command: str = "",
    progress: Progress | None = None,
) -> CertifyRecord:
    """Certify a draw of training and test images and write the run.

    ``draw`` decides which images are drawn, ``seed`` the noise. Finished shards stay with an interrupted run.
    """
    deterministic = "noise" not in registry.get("certify", request.learner).given
    chosen = Draw(**request.model_dump(include=set(Draw.model_fields)))
    train, test = draw_again(request.source, chosen)
    if request.radius is not None and not deterministic:
        _refuse_radius_out_of_reach(request, train)
    settings = {**request.model_dump(mode="json"), "train_sha256": train.hash, "test_sha256": test.hash}
    # workers, engine and the radius asked for change no vote, so a resume may change them
    resumed_by = {k: v for k, v in settings.items() if k not in ("workers", "engine", "radius")}
    with Run(Path(output), "certify", resumed_by, overwrite, command) as run:
        rates: list[float] = []

        def watch(done: int, rate: float, counts: Counts) -> None:
            rates[:] = [rate]
            if progress:
                reached = list(so_far(request, train, test, done, counts).items())[:4]
                certified = ", ".join(f"{100 * share:.0f} % at {r}" for r, share in reached) or "none"
                progress(request.learner, done, request.trials, f"{rate:,.0f} trials/s, certified so far: {certified}")

        made = certify(
            train,
            test,
            **request.model_dump(include=_ARGUMENTS),
            store=run.work / "shards",
            trial_votes=None if deterministic else run.work / TRIAL_VOTES,
            workers=request.workers or _workers(request),
            watch=watch,
        )
        certificate = replace(made, settings={**made.settings, "draw": chosen.model_dump(mode="json")})
        certificate.save(run.work / "certificate.json")
        search = _search(train, test, certificate) if deterministic and _search_pays(request) else None
        record = summarise(certificate, request.learner, rates[0] if rates else None, search)
        run.keep(record)
        shutil.rmtree(
            run.work / "shards", ignore_errors=True
        )  # the certificate holds their sum, the file beside it each trial
    return record


def _search_pays(request: CertifyRequest) -> bool:
    return request.train <= _SEARCHED_TRAINING_IMAGES if request.search is None else request.search


def _search(train: ImageSet, test: ImageSet, certificate: Certificate) -> AttackSearch:
    gaps = attack_search(train, test, certificate).gaps()
    return AttackSearch(attacked=sum(gaps.values()), gaps=gaps)


def draw_again(source: str, chosen: Draw) -> tuple[ImageSet, ImageSet]:
    """Training and test images that a draw takes from a source: the same ones whenever the source is the same.

    Raises:
        DoorwardError: a source that cannot be read, or too few images of the classes asked for.
    """
    images = load_images(source, split=chosen.split, size=chosen.size, resize=chosen.resize)
    images = images.subset(_drawable(images, chosen))
    return draw_split(images, chosen.classes, chosen.train, chosen.test, chosen.draw)


def _drawable(images: ImageSet, chosen: Draw) -> NDArray[np.bool_]:
    """Which images may be drawn ``[N]``: all but the first ``skip`` of the classes asked for."""
    named = [images.classes.index(c) for c in chosen.classes if c in images.classes]
    of_named = np.isin(images.labels, named) if named else np.ones(len(images), bool)
    return ~of_named | (np.cumsum(of_named) > chosen.skip)


def _workers(request: CertifyRequest) -> int:
    """All cores where training takes minutes; closed forms finish before other processes have started."""
    quick = request.learner != "two-layer" and request.trials <= 100_000
    return 1 if quick else os.cpu_count() or 1


def so_far(request: CertifyRequest, train: ImageSet, test: ImageSet, trials: int, counts: Counts) -> dict[int, float]:
    """Certified accuracy per radius if the run ended now."""
    task, noise = _task(request, train, test)
    radii = radii_of_votes(counts, vote_table(trials, noise_blocks(noise, task), Fraction(request.alpha)))
    right = counts.argmax(axis=1) == test.labels
    return {r: float((right & (radii >= r)).mean()) for r in range(1, int(radii.max(initial=0)) + 1)}


def _task(request: CertifyRequest, train: ImageSet, test: ImageSet) -> tuple[SmoothingTask, Noise]:
    noise = Noise.of(
        request.keep,
        classes=len(train.classes),
        domain=256 if request.binarise is None else 2,
        keep_labels=request.keep_labels,
        keep_test=request.keep_test,
    )
    cells = cells_of(train, request.binarise), train.labels, cells_of(test, request.binarise)
    return SmoothingTask(*cells, len(train.classes), noise, train.shape), noise


def _refuse_radius_out_of_reach(request: CertifyRequest, train: ImageSet) -> None:
    """Say before the work that no vote can reach the radius asked for, and how many trials it takes."""
    assert request.radius is not None
    first = train.subset(np.arange(1))
    task, noise = _task(request, first, first)
    if len(vote_table(request.trials, noise_blocks(noise, task), Fraction(request.alpha))) > request.radius:
        return
    needed = trials_needed(request.radius, noise.train.keep, noise.train.domain, Fraction(request.alpha))
    raise DoorwardError(
        f"certify: radius {request.radius} cannot be reached with {request.trials:,} trials at keep {request.keep} "
        f"and alpha {request.alpha}, even if all of them agree; expected at least {needed:,} trials"
    )
