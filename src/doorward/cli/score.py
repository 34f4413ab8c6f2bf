"""``doorward score``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doorward.cli import common, models

if TYPE_CHECKING:
    from doorward.core.classifier import Classifier
    from doorward.core.images import ImageSet
    from doorward.scoring.results import ScoreRecord


@models.takes_model
def score_command(
    run: Annotated[Path, typer.Argument(help="Folder written by 'doorward audit', 'cleanse' or 'repair'.")],
    truth: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="truth.parquet of the attack; or the poisoned images: a CSV with a column id, or a text file of ids.",
        ),
    ] = None,
    clean: Annotated[bool, typer.Option("--clean", help="The set is a clean control: every flag is false.")] = False,
    test: Annotated[
        str | None,
        typer.Option(
            help="Clean held-out images, to measure models on: the test split where there is one.",
            rich_help_panel=common.PICTURES,
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]MODEL", help="A model to measure; may be repeated.", rich_help_panel=common.MODEL),
    ] = None,
    seed: common.Seed = 0,
    *,
    as_json: common.AsJson = False,
    **opening: Any,
) -> None:
    """Score a run of audit or cleanse against the truth: TPR, FPR, precision, AUROC; attack success of models.

    Of an audit run the model that it trained without the suspects is measured too, on --test.
    Of a repair run: true attack success and clean accuracy of every arm, on --test.
    Writes score.json into the run, for the report.

    Example: doorward score run/ --truth poisoned/truth.parquet --test mnist-5k --model before=model/
    """
    from doorward.core.errors import DoorwardError
    from doorward.scoring.score import score

    if (truth is None) != clean:
        raise DoorwardError("score: expected either --truth FILE (truth.parquet, or a list of ids) or --clean")
    with common.display("score"):
        images, opened = _opened(run, test, model or [], opening)
        found = score(run, truth, test=images, models=opened, seed=seed, device=opening["device"], arch=opening["arch"])
    if as_json:
        common.print_json(found.model_dump(mode="json"))
        return
    told = found.attack.description if found.attack else "clean control"
    common.out.print(common.escape(common.printable(told)))
    show_score(found)


def _opened(
    run: Path, test: str | None, given: Sequence[str], opening: dict[str, Any]
) -> tuple[ImageSet | None, list[tuple[str, Path | str | Classifier]]]:
    """The test images, read as a repair run read its own, and the models by name."""
    from doorward.core.methods import build_settings
    from doorward.core.runs import Run
    from doorward.models.open.together import Opening

    manifest = Run.read(run)
    made = {"model": ""}
    if manifest["verb"] == "repair":
        made = manifest["settings"]
    elif manifest["verb"] == "audit":  # as its set was read; its model need not be there any more
        made |= {name: manifest["settings"].get(name) for name in ("size", "resize", "skip_bad")}
    known = {name: made[name] for name in Opening.model_fields if name in made}
    asked = {**known, **{k: v for k, v in models.as_request(made["model"], opening).items() if v}, "split": None}
    images = None if test is None else build_settings(Opening, "score", asked, options=True).read(test)
    found: list[tuple[str, Path | str | Classifier]] = []
    for text in given:
        name, equals, path = text.partition("=")
        name, path = (name, path) if equals else (Path(text).name, text)
        options = build_settings(Opening, "score", models.as_request(path, opening), options=True)
        foreign = images is not None and not options.has_conventions
        found.append((name, options.open(images) if foreign or options.arch else Path(path)))
    return images, found


def show_score(score: ScoreRecord) -> None:
    """The tables of a score."""
    rows = []
    for name, found in score.methods.items():
        area = "-" if found.auroc is None else f"{found.auroc:.4f}"
        rates = [str(r.rate()) for r in (found.tpr, found.fpr, found.fpr_target, found.precision)]
        rows.append([name, *rates, area])
    if rows:
        columns = ["method", "TPR %", "FPR %", "in target", "precision %", "AUROC"]
        title = "Detection, with 95 % intervals (FPR: of all clean images, and of those in the target class)"
        common.print_table(title, columns, rows)
    if score.models:
        rows = [[m.name, str(m.clean_accuracy.rate()), str(m.asr.rate())] for m in score.models]
        common.print_table("Models", ["model", "clean accuracy %", "attack success rate %"], rows)
