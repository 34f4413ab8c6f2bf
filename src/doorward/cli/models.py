"""The options by which ``invert``, ``repair`` and ``screen`` are given a model, the user's own or one of others."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from doorward.core.errors import DoorwardError

Model = Annotated[Path, typer.Argument(help="Folder written by 'doorward train', or a file of weights.")]
Arch = Annotated[
    str | None,
    typer.Option("--arch", help="For weights of others: a net's name, or your own FILE.py:factory (is run)."),
]
Mean = Annotated[str | None, typer.Option("--mean", metavar="A,B,...", help="Per channel, on the scale of --range.")]
Std = Annotated[str | None, typer.Option("--std", metavar="A,B,...", help="Per channel, on the scale of --range.")]
Range = Annotated[
    str | None,
    typer.Option("--range", metavar="LOW,HIGH", help="Black and white to the net: 0,1 or 0,255 or -1,1."),
]
Split = Annotated[str | None, typer.Option("--split", help="train or test; default test where the source has both.")]


def of_model(
    model: Path, arch: str | None, mean: str | None, std: str | None, value_range: str | None
) -> dict[str, Any]:
    """The fields of a request that say which model it is and how images go in."""
    return {
        "model": str(model),
        "arch": arch,
        "mean": parse_numbers("--mean", mean),
        "std": parse_numbers("--std", std),
        "value_range": parse_numbers("--range", value_range, count=2),
    }


def parse_numbers(name: str, text: str | None, *, count: int = 0, whole: bool = False) -> tuple[float, ...] | None:
    """Finite numbers of an option, separated by commas; so many of them, or any number for a ``count`` of 0."""
    if text is None:
        return None
    try:
        numbers = tuple(int(part) if whole else float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or (count and len(numbers) != count) or not all(map(math.isfinite, numbers)):
        many, kind = f"{count} " if count else "", "whole numbers" if whole else "numbers"
        raise DoorwardError(f"{name} {text!r}; expected {many}{kind} separated by commas")
    return numbers
