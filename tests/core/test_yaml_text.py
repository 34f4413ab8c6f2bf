"""YAML of others: plain values, and none that multiply themselves."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from doorward.attacks.job import AttackRequest, build_attack
from doorward.cli.common import parse_settings
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.yaml_text import parse_yaml

NAMES = list(zip("abcdefghij", "bcdefghijk", strict=True))
LAUGHS = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in NAMES)


def test_plain_values_are_what_they_look() -> None:
    text = "- recipe: patch\n  target: 7\n  rate: 0.5\n  on: [1, two, null]\n"
    assert parse_yaml(text, "plan") == [{"recipe": "patch", "target": 7, "rate": 0.5, True: [1, "two", None]}]
    assert parse_settings(["a=1", "b=yes", "c=[1, 2]", "d=x: : y", "e=0.48"]) == {
        "a": 1, "b": True, "c": [1, 2], "d": "x: : y", "e": 0.48,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (LAUGHS, "alias"),
        ("&a [*a]", "alias"),
        ("a: 1\na: 2", "'a' comes twice"),
        ("[" * 5000 + "]" * 5000, "in each other"),
        ("9" * 5000, "digits"),
        ("2001-99-99", "month"),
        ("? [a]\n: 1", "while constructing a mapping"),
        ("!!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("{", "while parsing"),
    ],
)
def test_others_are_one_line(text: str, told: str, images: ImageSet, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(DoorwardError, match=told) as error:
        parse_yaml(text, "plan")
    assert "\n" not in str(error.value) and time.monotonic() - started < 2
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(DoorwardError, match="plan.yaml: .*expected"):
        build_attack(AttackRequest(source="x", plan=str(tmp_path / "plan.yaml")), images)


def test_a_plan_is_utf_8_and_a_file(images: ImageSet, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_bytes(b"- recipe: \xff\xfe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name, told in (("plan.yaml", "expected UTF-8"), ("zero", "is a device"), ("", "is a folder")):
        place = tmp_path / name
        with pytest.raises(DoorwardError, match=told):
            build_attack(AttackRequest(source="x", plan=str(place)), images)


def test_options_multiply_nothing() -> None:
    with pytest.raises(DoorwardError, match="--set x: an alias"):
        parse_settings(["x=[&a [1, 1], *a, *a]"])
