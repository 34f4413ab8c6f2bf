"""What all commands share: options, output, errors. Imports nothing heavy."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape as escape
from rich.table import Table

from doorward.core.errors import DoorwardError
from doorward.core.progress import display as display
from doorward.core.progress import printable as printable

if TYPE_CHECKING:
    from doorward.core.plan import Plan
    from doorward.core.results import Judgement

out = Console(highlight=False, emoji=False)  # own.py:three is a factory, no picture of a 3
err = Console(stderr=True, highlight=False, emoji=False)

FOUND_NOTHING, FOUND_SOMETHING, WENT_WRONG, UNDECIDED, INTERRUPTED = 0, 1, 2, 3, 130

MODEL, PICTURES, RUN = "Model", "Pictures", "Run"  # panels of --help

Output = Annotated[
    Path, typer.Option("--output", "-o", help="Folder of the run; must not exist yet.", rich_help_panel=RUN)
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace a finished run of that name.", rich_help_panel=RUN)
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Decides everything random.", rich_help_panel=RUN)]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.", rich_help_panel=RUN)]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.", rich_help_panel=RUN)
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Say what would be done and how long it takes; end there.", rich_help_panel=RUN),
]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting; may be repeated.")]
Split = Annotated[
    str, typer.Option("--split", help="train or test, for sets that have both.", rich_help_panel=PICTURES)
]
# How pictures are read; the fields of `doorward.data.reading.Reading`.
Size = Annotated[
    int | None,
    typer.Option(
        "--size",
        min=1,
        metavar="N",
        help="Make every picture N x N, as the net takes them; needed where sizes differ.",
        rich_help_panel=PICTURES,
    ),
]
Resize = Annotated[
    str,
    typer.Option(
        "--resize", help="crop: shorter side to N, then the centre; squash: both sides to N.", rich_help_panel=PICTURES
    ),
]
SkipBad = Annotated[
    bool,
    typer.Option(
        "--skip-bad",
        help="Leave out files that cannot be read, and list them.",
        show_default=False,
        rich_help_panel=PICTURES,
    ),
]


def command_line() -> str:
    """The command as it was typed, to be repeated."""
    return shlex.join(["doorward", *sys.argv[1:]])


def parse_settings(pairs: Sequence[str] | None, what: str = "--set") -> dict[str, Any]:
    """``NAME=VALUE`` pairs to a dictionary; values are YAML scalars, so numbers and true/false are what they look."""
    from doorward.core.yaml_text import NotYamlError, parse_yaml

    values: dict[str, Any] = {}
    for pair in pairs or []:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise DoorwardError(f"{what} {pair!r}; expected NAME=VALUE")
        try:
            values[name] = parse_yaml(text, f"{what} {name}", "a number, a word, true or false, or [A, B, ...]")
        except NotYamlError:
            values[name] = text
    return values


def parse_knowledge(pairs: Sequence[str] | None) -> dict[str, Any]:
    """``NAME=VALUE`` pairs of declared knowledge; a class stays text, since a class may be called 7 or no."""
    values = parse_settings(pairs, "--know")
    as_typed = {name: text for name, _, text in (pair.partition("=") for pair in pairs or [])}
    return {name: as_typed[name] if name == "target_class" else value for name, value in values.items()}


def parse_method_settings(pairs: Sequence[str] | None) -> dict[str, dict[str, Any]]:
    """``METHOD.NAME=VALUE`` pairs to settings per method."""
    values: dict[str, dict[str, Any]] = {}
    for name, value in parse_settings(pairs).items():
        method, dot, setting = name.partition(".")
        if not dot:
            raise DoorwardError(f"--set {name!r}; expected METHOD.NAME=VALUE, such as impurity.threshold=0.6")
        values.setdefault(method, {})[setting] = value
    return values


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(json.dumps(value, allow_nan=False) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, empty: bool = True) -> None:
    """A table; cells are shown as they are, never as markup.

    Args:
        empty: whether columns in which nothing stands but ``-`` are shown.
    """
    if not empty:
        told = [k for k in range(len(columns)) if any(row[k] != "-" for row in rows)]
        columns, rows = [columns[k] for k in told], [[row[k] for k in told] for row in rows]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, column in enumerate(columns):
        words = all(not any(c.isdigit() for c in row[number]) or number == 0 for row in rows)
        table.add_column(
            escape(column), justify="left" if words else "right", no_wrap=number == 0 or column == "method"
        )
    for row in rows:
        table.add_row(*(escape(printable(cell)) for cell in row))
    out.print(f"[bold]{escape(printable(title))}[/bold]", soft_wrap=True)  # a title of the table wraps at its width
    out.print(table)


def exit_code(verdict: str) -> int:
    """0 nothing found, 1 findings, 3 undecided."""
    from doorward.core.results import FINDINGS

    return UNDECIDED if verdict == "undecided" else FOUND_SOMETHING if verdict in FINDINGS else FOUND_NOTHING


def show_verdict(judgement: Judgement) -> None:
    """The verdict with its p-value, and its reasons."""
    p = "" if judgement.p_value is None else f", p {probability(judgement.p_value)}"
    out.print(
        f"verdict: {escape(printable(judgement.level))} - {escape(printable(judgement.headline))}{p}", soft_wrap=True
    )
    for reason in judgement.reasons:
        out.print(f"  {escape(printable(reason))}", soft_wrap=True)


def show_notes(notes: Sequence[str]) -> None:
    """What was understood, converted or doubted, on stderr."""
    for note in notes:
        err.print(f"note: {escape(printable(note))}", soft_wrap=True)


def show_plan(plan: Plan, as_json: bool) -> None:
    """The plan of a dry run; ends the command."""
    if as_json:
        print_json({"plan": list(plan.lines), "seconds": plan.seconds})
    else:
        for line in plan.told:
            out.print(escape(printable(line)), soft_wrap=True)
    raise typer.Exit(FOUND_NOTHING)


def probability(value: float | None) -> str:
    """A p-value: four decimals, or that it is smaller."""
    return "-" if value is None else "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def fail(message: str) -> int:
    """Print one line on stderr; the exit code for an error."""
    err.print(f"doorward: {escape(printable(message))}", soft_wrap=True)
    return WENT_WRONG
