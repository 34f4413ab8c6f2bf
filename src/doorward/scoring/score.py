"""`score`: a finished run against the truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from doorward.core.arguments import check_images
from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.runs import Run
from doorward.models.open.architectures import Named
from doorward.scoring.audits import score_audit
from doorward.scoring.cleansing import score_cleansing
from doorward.scoring.repairs import score_repair
from doorward.scoring.results import ScoreRecord


def score(
    run: Path | str,
    truth: Path | str | None,
    *,
    test: ImageSet | None = None,
    models: Sequence[tuple[str, Path | str | Classifier]] = (),
    seed: int = 0,
    device: str = "auto",
    arch: Named | None = None,
) -> ScoreRecord:
    """Score a run of an audit, a cleansing or a repair, write ``score.json`` into it and return it.

    Args:
        run: a finished run of ``audit``, ``cleanse`` or ``repair``.
        truth: ``truth.parquet`` of the attack, or of the poisoned images a CSV with a column ``id`` or a text file of
            ids; attack success is measured where ``attack/`` lies beside it. None for a clean control.
        test: held-out clean images, for accuracy and attack success rate; a repair cannot be scored without.
        models: (name, folder or classifier) of what to measure beside a run of ``audit`` or ``cleanse``.
        seed: of stamps of random place.
        device: ``auto``, ``cpu`` or ``cuda``.
        arch: for a run whose net comes from the user's own file: that file's factory again (see `load_model`).

    Raises:
        DoorwardError: a run of another verb, the truth of another set, or images that are missing.
    """
    given = [(name, Path(model) if isinstance(model, str) else model) for name, model in models]
    for name, value in (("run", run), ("truth", truth)):
        if value is not None and not isinstance(value, str | Path):
            told = f"score: {name} is of type {type(value).__name__}"
            raise DoorwardError(f"{told}; expected the path of a saved run (found.save(FOLDER)) and of its truth")
    if test is not None:
        check_images("score", "test", test)
    run, file = Path(run), None if truth is None else Path(truth)
    verb = Run.read(run)["verb"]
    if verb == "audit":
        return score_audit(run, file, test=test, models=given, seed=seed, device=device, arch=arch)
    if verb != "repair":
        return score_cleansing(run, file, test=test, models=given, seed=seed, device=device)
    if models:
        raise DoorwardError("score: --model is for audit and cleanse runs; the arms of a repair run are all measured")
    return score_repair(run, file, test, seed=seed, device=device, arch=arch)
