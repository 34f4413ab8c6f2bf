"""``doorward screen``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doorward.cli import common, models

if TYPE_CHECKING:
    from doorward.core.triggers import Trigger
    from doorward.screens.results import Screening

_NAMED = 10  # flagged images that the terminal names


@models.takes_model
def screen_command(
    model: models.Model,
    output: common.Output,
    images: Annotated[str, typer.Option(help="Images to be screened.", rich_help_panel=common.PICTURES)],
    clean: Annotated[
        str,
        typer.Option(
            help="Images known to be clean, others than those; labelled for ada.", rich_help_panel=common.PICTURES
        ),
    ],
    method: Annotated[str, typer.Option(help="See 'doorward methods screen'.")] = "strip",
    triggers: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN", help="Folder written by 'doorward invert', 'cleanse' or 'audit': what inverted uses."
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(metavar="CLASS", help="Class whose triggers to use, instead of the verdict's; may be repeated."),
    ] = None,
    trigger_method: Annotated[str | None, typer.Option(help="Inversion whose triggers to use, such as mask.")] = None,
    rate: Annotated[float, typer.Option(help="Share of clean images that may be flagged.")] = 0.05,
    setting: common.Set = None,
    seed: common.Seed = 0,
    *,
    overwrite: common.Overwrite = False,
    as_json: common.AsJson = False,
    **opening: Any,
) -> None:
    """Say of single images whether they are stamped.

    Ends with exit code 1 when more images are flagged than --rate explains, else 0.

    Example: doorward screen model/ --images incoming/ --clean mnist-5k -o run/
    """
    from doorward.core.errors import DoorwardError
    from doorward.core.methods import build_settings
    from doorward.inversion.triggers import load_patches
    from doorward.screens.job import ScreenRequest, screen_to_folder

    asked = {
        **models.as_request(model, opening),
        "source": images,
        "clean": clean,
        "method": method,
        "settings": common.parse_settings(setting),
        "triggers": None if triggers is None else str(triggers),
        "targets": tuple(target or ()),
        "trigger_method": trigger_method,
        "rate": rate,
        "seed": seed,
    }
    request = build_settings(ScreenRequest, "screen", asked, options=True)
    if triggers is None and (target or trigger_method):
        raise DoorwardError("screen: a target or an inversion without triggers; expected --triggers RUN with it")

    def read(classes: Sequence[str]) -> Mapping[int, Trigger]:
        return load_patches(Path(str(triggers)), classes, targets=request.targets, method=trigger_method)

    with common.display("screen") as progress:
        found = screen_to_folder(
            request,
            output,
            read_triggers=read if triggers else None,
            overwrite=overwrite,
            command=common.command_line(),
            progress=progress,
        )
    if as_json:
        common.print_json(found.record.model_dump(mode="json"))
    else:
        _show(found, output)
    raise typer.Exit(common.exit_code(found.verdict))


def _show(found: Screening, output: Path) -> None:
    record, flagged = found.record, found.flagged()
    classes = record.classifier.classes if record.classifier else ()
    counts = zip(classes, record.flagged_by_decision, strict=True)
    rows = [[name, f"{count:,}"] for name, count in sorted(counts, key=lambda row: -row[1])[:10] if count]
    title = f"{record.method}: {record.flagged:,} of {record.screened:,} images flagged"
    if rows:
        common.print_table(title, ["decided as", "flagged"], rows)
    else:
        common.out.print(title)
    common.show_notes(record.warnings)
    common.show_verdict(record.judgement)
    for name, decided, score in flagged[:_NAMED]:
        told = common.printable(f"flagged: {name} (decided as {decided}, score {score:.3g})")
        common.out.print(common.escape(told), soft_wrap=True)
    if len(flagged) > _NAMED:
        common.out.print(f"and {len(flagged) - _NAMED:,} more")
    where = f"written to {output}" + (f"; all flagged images by name: {output / 'flagged.csv'}" if flagged else "")
    common.out.print(common.escape(common.printable(where)), soft_wrap=True)
