"""Options made from the fields of a request."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
import typer
from pydantic import Field
from typer.testing import CliRunner

from doorward.certification.request import CertifyRequest
from doorward.cli.options import options_of
from doorward.core.settings import Settings


class Wish(Settings):
    """What the command of the tests is asked for."""

    source: str
    count: int | None = Field(3, ge=1, le=9, description="How many pieces.")
    kinds: tuple[str, ...] = Field((), description="Of which kinds.")
    engine: Literal["local", "ray"] = Field("local", description="Which engine.")
    settings: dict[str, Any] = Field(default_factory=dict)
    deep: bool | None = Field(None, description="Look closely.")


given: list[dict[str, Any]] = []
app = typer.Typer()


@app.command()
@options_of(Wish, settings=Annotated[list[str] | None, typer.Option("--set", help="By hand.")])
def wish(source: str, *, loud: bool = False, **asked: Any) -> None:
    """Take note of a wish."""
    given.append({"source": source, "loud": loud, **asked})


def test_fields_become_options_with_their_defaults_and_bounds() -> None:
    ran = CliRunner().invoke(app, ["here"])
    assert ran.exit_code == 0, ran.output
    plain = {"count": 3, "kinds": "", "engine": "local", "settings": None, "deep": None}
    assert given.pop() == {"source": "here", "loud": False, **plain}
    ran = CliRunner().invoke(
        app,
        [
            "here",
            "--loud",
            "--count",
            "9",
            "--kinds",
            "a,b",
            "--engine",
            "gpu",
            "--set",
            "x=1",
            "--set",
            "y=2",
            "--no-deep",
        ],
    )
    assert ran.exit_code == 0, ran.output
    asked = {"count": 9, "kinds": "a,b", "engine": "gpu", "settings": ["x=1", "y=2"], "deep": False}
    assert given.pop() == {"source": "here", "loud": True, **asked}
    for wrong in ("0", "10", "x"):
        assert CliRunner().invoke(app, ["here", "--count", wrong]).exit_code == 2


def test_help_is_the_fields_description_in_their_order() -> None:
    told = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    words = [
        "--count",
        "1<=x<=9",
        "How many pieces. [default: 3]",
        "Of which kinds.",
        "Which engine.",
        "By hand.",
        "Look",
    ]
    places = [told.index(word) for word in words]
    assert places == sorted(places), told


@pytest.mark.parametrize(("typed", "classes"), [("", ()), ("1, 7", ("1", "7")), (("a,b", "c"), ("a,b", "c"))])
def test_class_names_come_as_text_or_as_names(typed: Any, classes: tuple[str, ...]) -> None:
    assert CertifyRequest(source="x", classes=typed).classes == classes


def test_0_says_that_pixels_keep_their_256_values() -> None:
    assert [CertifyRequest(source="x", binarise=n).binarise for n in (0, None, 7)] == [None, None, 7]
