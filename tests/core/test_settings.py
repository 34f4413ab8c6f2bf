"""A wrong setting is told in plain words: the name, the value, what was expected."""

from __future__ import annotations

import re
from typing import Any, Literal

import pytest
from pydantic import Field, field_validator

from doorward.core import methods
from doorward.core.errors import DoorwardError
from doorward.core.settings import Settings, build_settings, option_name
from doorward.models.train.settings import TrainSettings

ALL = [TrainSettings, *(methods.get(verb, name).settings for verb in methods.VERBS for name in methods.names(verb))]


class Inner(Settings):
    share: float = Field(0.5, ge=0, le=1)


class Example(Settings):
    lr: float = Field(0.1, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    count: int | None = Field(None, ge=1, le=9)
    kind: Literal["one", "two", "three"] = "one"
    flip: bool = False
    value_range: tuple[float, float] | None = None
    steps: tuple[int, ...] = ()
    inner: Inner = Inner()
    even: int = 2

    @field_validator("even")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("expected an even number")
        return value


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"lr": "fast"}, "setting 'lr' = 'fast'; expected a number above 0"),
        ({"lr": -1}, "setting 'lr' = -1; expected a number above 0"),
        ({"lr": float("nan")}, "setting 'lr' = nan; expected a finite number above 0"),
        ({"momentum": 1}, "setting 'momentum' = 1; expected a number of 0 or more and below 1"),
        ({"count": 10}, "setting 'count' = 10; expected a whole number from 1 to 9"),
        ({"count": 1.5}, "setting 'count' = 1.5; expected a whole number from 1 to 9"),
        ({"kind": "four"}, "setting 'kind' = 'four'; expected one, two or three"),
        ({"flip": "perhaps"}, "setting 'flip' = 'perhaps'; expected true or false"),
        ({"value_range": (1,)}, "setting 'value_range' = (1,); expected 2 numbers, as [A, B, ...]"),
        ({"steps": [1, "x"]}, "setting 'steps' = [1, 'x']; expected whole numbers, as [A, B, ...]"),
        ({"inner": {"share": 2}}, "setting 'inner.share' = 2; expected a number from 0 to 1"),
        ({"inner": {"shares": 2}}, "no setting 'inner.shares'; did you mean 'share'? settings: share"),
        ({"even": 3}, "setting 'even' = 3; expected an even number"),
        ({"learning": 3}, "no setting 'learning'; settings: lr, momentum, count,"),
        ({"learning_rate": 3}, "no setting 'learning_rate'; did you mean 'lr'? settings: lr, momentum"),
        ({"Momentun": 3}, "no setting 'Momentun'; did you mean 'momentum'? settings: lr, momentum"),
    ],
)
def test_what_is_wrong_is_named_with_what_was_expected(values: dict[str, Any], told: str) -> None:
    with pytest.raises(DoorwardError, match=f"^train: {re.escape(told)}"):
        build_settings(Example, "train", values)


def test_options_are_called_as_the_command_line_spells_them() -> None:
    with pytest.raises(DoorwardError, match=r"^train: --range \(1,\); expected 2 numbers"):
        build_settings(Example, "train", {"value_range": (1,)}, options=True)
    assert option_name("skip_bad") == "--skip-bad" and option_name("methods") == "--method"


def test_settings_that_are_no_names_with_values_are_refused() -> None:
    with pytest.raises(DoorwardError, match="^train: settings 3; expected names with values"):
        build_settings(Example, "train", 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ALL, ids=lambda k: k.__name__)
def test_every_setting_there_is_says_what_it_takes(kind: type[Settings]) -> None:
    required = {name: "x" for name, field in kind.model_fields.items() if field.is_required()}
    for name in kind.model_fields:
        with pytest.raises(DoorwardError) as told:
            build_settings(kind, "verb", {**required, name: object()})
        line = str(told.value)
        assert re.match(rf"verb: setting '{name}' = <object.*; expected \w", line), line
        assert "Input should" not in line and "another value" not in line
