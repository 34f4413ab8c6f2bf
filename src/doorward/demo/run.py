"""The demo: three attacks and a clean control on the bundled digits, cleansed and audited, one model inverted and
repaired, a certificate, and a report about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from doorward.attacks.job import AttackRequest, attack_to_folder
from doorward.certification.job import certify_to_folder
from doorward.certification.request import CertifyRequest
from doorward.cleansers.job import CleanseRequest, cleanse_to_folder
from doorward.cleansers.results import Cleansing
from doorward.core.errors import OutputExistsError
from doorward.core.files import drop_abandoned, write_json
from doorward.core.leftovers import is_blank, remove
from doorward.core.opening import read_json
from doorward.core.progress import Progress
from doorward.data.sources import load_images
from doorward.demo.audits import audit_all
from doorward.demo.model import STAGES, once, repair_model
from doorward.models.train.job import TrainRequest, train_to_folder
from doorward.reports.page import report
from doorward.scoring.cleansing import score_cleansing

SOURCE = "mnist-5k"
METHODS = ("impurity", "activation", "spectral")
RATE = 0.02
EPOCHS = 8
TRAINING = {"epochs": EPOCHS, "batch": 64, "lr": 0.05}

CERTIFICATE: dict[str, Any] = {
    "source": SOURCE,
    "classes": ("1", "7"),
    "train": 100,
    "test": 500,
    "learner": "nearest-centroid",
}

Told = Callable[[str], None]


@dataclass(frozen=True)
class Scenario:
    """One row of the demo: an attack, or none."""

    name: str
    recipe: str | None
    settings: dict[str, Any] = field(default_factory=dict)
    repaired: bool = False  # whether its model is inverted and repaired as well


# The pixel lies where digits have no ink: where there is ink, +1 clips to no change and no backdoor is learned.
SCENARIOS = (
    Scenario("one-pixel", "pixel", {"size": 1.0, "row": 4, "column": 4}),
    Scenario("patch-3x3", "patch", repaired=True),
    Scenario("blend", "blend", {"alpha": 0.15}),
    Scenario("clean-control", None),
)


def steps(scenarios: Sequence[Scenario] = SCENARIOS) -> int:
    """How many stages `demo` tells about."""
    return sum((4 if s.recipe else 3) + len(METHODS) + STAGES * s.repaired for s in scenarios) + 3


def demo(
    folder: Path, seed: int, *, progress: Progress | None = None, scenarios: Sequence[Scenario] = SCENARIOS
) -> Path:
    """Run the demo into ``folder`` and return the path of its report; finished stages are not run again.

    Args:
        progress: called with (stage, stages done, stages in all) as each stage begins.
    """
    number = count()

    def told(stage: str) -> None:
        if progress:
            progress(stage, next(number), steps(scenarios))

    runs = [_scenario(folder / s.name, s, seed, told) for s in scenarios]
    told(f"audit: {len(scenarios)} sets and their models, nothing told")
    audits = audit_all([folder / s.name for s in scenarios], SOURCE, seed)
    runs = [run for pair in zip(audits, runs, strict=True) for run in pair]
    for scenario in scenarios:
        if scenario.repaired:
            runs += repair_model(folder / scenario.name, SOURCE, seed, told)
    told("certificate: 10,000 models on noisy copies of 100 digits")
    runs.append(folder / "certificate")
    once(runs[-1], partial(certify_to_folder, CertifyRequest(**CERTIFICATE, draw=seed, seed=seed)), seed)
    told("report")
    return report(
        runs,
        folder / "report.html",
        title="Doorward demo: audits of three attacks and a clean control, a repaired model, a certificate",
        overwrite=True,
    )


def _scenario(folder: Path, scenario: Scenario, seed: int, told: Told) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    source = SOURCE
    if scenario.recipe is not None:
        told(f"{scenario.name}: poison")
        source = str(folder / "poisoned")
        request = AttackRequest(
            source=SOURCE, recipe=scenario.recipe, target="0", rate=RATE, settings=scenario.settings, seed=seed
        )
        once(folder / "poisoned", partial(attack_to_folder, request), seed)
    told(f"{scenario.name}: train")
    training = TrainRequest(source=source, training=TRAINING, seed=seed)
    once(folder / "model", partial(train_to_folder, training), seed)
    told(f"{scenario.name}: cleanse")
    cleansing = CleanseRequest(source=source, model=str(folder / "model"), methods=METHODS, seed=seed)
    once(folder / "cleanse", partial(cleanse_to_folder, cleansing), seed)
    models = [("poisoned set" if scenario.recipe else "whole set", folder / "model")]
    flagged = Cleansing.load(folder / "cleanse").record.methods
    for method in METHODS:
        told(f"{scenario.name}: retrain without what {method} flags")
        if flagged[method].flagged:
            again = training.model_copy(update={"without": str(folder / "cleanse"), "by": method})
            once(folder / f"after-{method}", partial(train_to_folder, again), seed)
            models.append((f"after {method}", folder / f"after-{method}"))
    test = load_images(SOURCE, split="test")
    told(f"{scenario.name}: score")
    truth = folder / "poisoned" / "truth.parquet" if scenario.recipe else None
    score_cleansing(folder / "cleanse", truth, test=test, models=models)
    return folder / "cleanse"


def prepare(folder: Path, seeds: Sequence[int], overwrite: bool) -> None:
    """Make the demo's folder, or go on in one that the same seeds began."""
    manifest = folder / "demo.json"
    asked = {"seeds": list(seeds)}
    if folder.exists() and not manifest.exists() and not is_blank(folder):
        raise OutputExistsError(f"{folder}: exists and was not written by the demo; expected a new folder (-o)")
    if manifest.exists() and (overwrite or read_json(manifest) != asked):
        if not overwrite:
            raise OutputExistsError(f"{folder}: holds a demo of other seeds; expected a new folder (-o) or --overwrite")
        for path in folder.iterdir():
            if path != manifest:  # by which the folder is known, up to the last
                remove(path)
    folder.mkdir(parents=True, exist_ok=True)
    drop_abandoned(manifest)
    write_json(manifest, asked)
