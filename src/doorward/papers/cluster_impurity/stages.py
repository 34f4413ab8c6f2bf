"""The stages of a plan, in order; see `doorward.jobs.stages` for how they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from doorward.attacks.files import load_truth
from doorward.attacks.job import attack_to_folder
from doorward.cleansers.job import CleanseRequest, cleanse_to_folder
from doorward.cleansers.observe import ObserveOnce
from doorward.cleansers.results import Cleansing
from doorward.core.progress import Progress, in_words, telling
from doorward.data.sources import load_images
from doorward.jobs.processes import Told, default_jobs, run_side_by_side
from doorward.jobs.stages import Stage, claim_folder, run_cases
from doorward.models.train.job import TrainRequest, train_to_folder
from doorward.papers.accessory import draw_sunglasses
from doorward.papers.cluster_impurity.plan import Case, Plan, with_picture
from doorward.papers.cluster_impurity.pruned import PruneRequest, prune_to_folder
from doorward.scoring.cleansing import score_cleansing
from doorward.scoring.results import ScoreRecord

BLIND = ("impurity", "activation", "spectral", "scan")
DECLARED = ("activation", "spectral", "spectre", "scan")
RETRAINED = {"CI": ("poster", "impurity"), "SS": ("declared", "spectral"), "AC": ("declared", "activation")}
PICTURE = "accessory.png"


def prepare(plan: Plan, folder: Path) -> None:
    """Make the folder of the runs, or go on in one whose runs were made with the same settings."""
    claim_folder(folder, plan.manifest(), {case.name: case.about() for case in plan.cases})
    if not (folder / PICTURE).exists():
        draw_sunglasses(folder / PICTURE)


def reproduce(plan: Plan, folder: Path, *, jobs: int = 0, progress: Progress | None = None) -> None:
    """Run every stage that is not finished, then score every case; see `write_results` for the tables.

    Args:
        folder: of the runs.
        jobs: cases at a time, each in a process of its own (see `run_side_by_side`); 0: one per core, or one on a GPU.
        progress: called with what is being done; nobody knows how much is left.
    """
    told = in_words(progress)
    prepare(plan, folder)
    jobs = jobs or default_jobs(plan.device)
    longest_first = sorted(plan.cases, key=lambda case: -len(case.retrain)) if jobs > 1 else plan.cases
    run_cases(partial(stages, plan, folder=folder), longest_first, jobs=jobs, told=told)
    run_side_by_side(partial(score, plan, folder), plan.cases, jobs=jobs, told=told)


def stages(plan: Plan, case: Case, folder: Path) -> Iterator[Stage[None]]:
    """The stages of a case, in order."""
    here = folder / case.folder
    source = plan.source
    if case.recipe is not None:
        request = with_picture(case, str(folder / PICTURE)).request(plan.source)
        source = str(here / "poisoned")
        poison = partial(attack_to_folder, request, here / "poisoned", command=plan.command)
        yield Stage("poison", here / "poisoned", lambda _: poison(), case.label, "poison")
    training = TrainRequest(
        source=source, net=plan.net, training=plan.training.model_dump(), seed=case.seed, device=plan.device
    )
    yield _training(plan, case, "train", training, here / "model", lambda: True)
    look = ObserveOnce()  # the forms look at the same images with the same classifier
    for form in forms(case):
        make = partial(_detect, plan, case, form, source, here, look)
        yield Stage(f"detect {form}", here / f"cleanse-{form}", make, case.label, "detect")
    if case.retrain:
        yield from _repairs(plan, case, training, here)


def forms(case: Case) -> tuple[str, ...]:
    """What the methods are told: nothing (``blind``), what the poster tells them (``declared``), and for spectral
    signatures a second reading of the poster, ``half`` of the target class. Cluster impurity is never told anything:
    ``poster`` clusters in all features, ``blind`` as is the default, ``leftovers`` with misfits and lookalikes."""
    if case.recipe is None:
        return ("blind", "poster", "leftovers")
    told = ("blind", "poster", "leftovers", "declared")
    return told if case.scenario == "beyond" else (*told, "half")


def _training(
    plan: Plan, case: Case, name: str, request: TrainRequest, path: Path, needed: Callable[[], bool]
) -> Stage[None]:
    def make(told: Told) -> object:
        progress = telling(told, f"{case.label}: {name} ")
        return train_to_folder(request, path, command=plan.command, progress=progress)

    return Stage(name, path, make, case.label, "train", needed=needed)


def _detect(plan: Plan, case: Case, form: str, source: str, here: Path, look: ObserveOnce, told: Told) -> object:
    methods, knowledge, settings = _form(plan, case, form, here)
    request = CleanseRequest(
        source=source,
        model=str(here / "model"),
        methods=methods,
        settings=settings,
        knowledge=knowledge,
        seed=case.seed,
        device=plan.device,
    )
    return cleanse_to_folder(request, here / f"cleanse-{form}", command=plan.command, look=look)


def _form(
    plan: Plan, case: Case, form: str, here: Path
) -> tuple[tuple[str, ...], dict[str, Any], dict[str, dict[str, Any]]]:
    """Methods, declared knowledge and settings of a form. Knowledge is what an auditor would have been told."""
    if form == "blind":
        return BLIND, {}, {}
    if form == "poster":
        return ("impurity",), {}, {"impurity": {"dimensions": 0}}
    if form == "leftovers":
        return ("impurity",), {}, {"impurity": {"misfits": True, "lookalikes": True}}
    truth = load_truth(here / "poisoned" / "truth.parquet")
    if case.target is None:  # all-to-all has no target class to tell
        return ("scan",), {"clean_images": _clean_rows(truth.poisoned, truth.original_label, plan, case)}, {}
    rate = int(truth.poisoned.sum()) / len(truth.poisoned)
    known: dict[str, Any] = {"poisoning_rate": rate, "target_class": case.target}
    if form == "half":
        in_target = int(((truth.original_label == case.target) | truth.poisoned).sum())
        return ("spectral",), known, {"spectral": {"multiple": in_target / 2 / (rate * len(truth.poisoned))}}
    return DECLARED, {**known, "clean_images": _clean_rows(truth.poisoned, truth.original_label, plan, case)}, {}


def _clean_rows(poisoned: Any, labels: Any, plan: Plan, case: Case) -> list[int]:
    """Rows of images that are not poisoned, some of every class, drawn by the seed."""
    rng = np.random.default_rng([case.seed, 0xC1EA])
    rows = [rng.permutation(np.flatnonzero(~poisoned & (labels == k)))[: plan.known_clean] for k in np.unique(labels)]
    return sorted(np.concatenate(rows).tolist())


def _repairs(plan: Plan, case: Case, training: TrainRequest, here: Path) -> Iterator[Stage[None]]:
    for name in case.retrain:
        form, method = RETRAINED[name]
        run = here / f"cleanse-{form}"
        request = training.model_copy(update={"without": str(run), "by": method})
        needed = partial(_flagged, run, method)
        yield _training(plan, case, f"retrain after {name}", request, here / f"after-{name}", needed)
    repair = PruneRequest(
        model=str(here / "model"),
        method="prune",
        clean=plan.source,
        share=plan.clean_share,
        seed=case.seed,
        device=plan.device,
    )
    prune = partial(prune_to_folder, repair, here / "after-FP", command=plan.command)
    yield Stage("fine-prune", here / "after-FP", lambda _: prune(), case.label, "fine-prune")


def _flagged(run: Path, method: str) -> bool:
    return bool(Cleansing.load(run).record.methods[method].flagged)


def models(plan: Plan, case: Case, folder: Path) -> list[tuple[str, Path]]:
    """The classifiers of a case that there are, by the names they have in tables."""
    here = folder / case.folder
    if case.recipe is None:
        return [("clean set", here / "model")]
    found = [("poisoned set", here / "model")]
    found += [(f"after {name}", here / f"after-{name}") for name in ("CI", "SS", "AC", "FP")]
    found.append(("poison removed", folder / "control" / f"seed-{case.seed}" / "model"))
    return [(name, path) for name, path in found if path.exists()]


def score(plan: Plan, folder: Path, case: Case, told: Told = lambda _: None) -> None:
    """Write ``score.json`` into every detection of a case; models are measured once, with the blind one."""
    told(f"{case.label}: score")
    here = folder / case.folder
    truth = here / "poisoned" / "truth.parquet" if case.recipe else None
    test = None
    for form in forms(case):
        measured = models(plan, case, folder) if form == "blind" else []
        run = here / f"cleanse-{form}"
        known = ScoreRecord.read(run)
        if known is not None and [m.name for m in known.models] == [name for name, _ in measured]:
            continue
        if measured and test is None:
            test = load_images(plan.source, split="test")
        score_cleansing(run, truth, test=test, models=measured, seed=case.seed, device=plan.device)
