import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from doorward.core import text
from doorward.reports.page import finalize


@given(st.text() | st.text(alphabet="\x00\x1b\u202e\u2066\ufeff\ud800\x7fa\n"))
def test_visible_text_holds_nothing_hidden_and_can_be_written(value: str) -> None:
    shown = text.visible(value)
    shown.encode()  # an unpaired surrogate would raise
    hidden = {c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert hidden <= set("\n\t\u200c\u200d\u00ad")


def test_visible_names_what_was_hidden_and_leaves_other_scripts_alone() -> None:
    assert text.visible("a\x1b[31m\u202eb") == "a\\x1b[31m\\u202eb"
    assert text.visible("卵 émoji 👩‍🚀") == "卵 émoji 👩‍🚀"


def test_a_name_is_one_short_line() -> None:
    assert text.name(" a\n\n b\t") == "a b"
    assert text.name("") == "(no name)"
    assert len(text.name("x" * 1000)) == text.LONGEST_NAME


def test_finalize_leaves_own_markup_alone() -> None:
    own = Markup("<b>\x07</b>")
    assert finalize(own) is own
    assert finalize("\x07") == "\\x07"
    assert finalize(3) == 3


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0.0 %"), (1.0, "100.0 %"), (0.9375, "93.8 %"), (0.0001, "< 0.1 %"), (0.9999, "> 99.9 %"), (None, "–")],
)
def test_percent_never_rounds_to_none_or_all(value: float | None, shown: str) -> None:
    assert text.percent(value) == shown
    assert text.percent(float("nan")) == "–"


def test_numbers() -> None:
    assert [text.number(v) for v in (0, 1.5, 1234.5, 2.5e-7, 3e9, None, float("inf"))] == [
        "0", "1.5", "1,234", "2.5 × 10^-7", "3.0 × 10^9", "–", "–",
    ]  # fmt: skip
    assert [text.auroc(v) for v in (1.0, 0.99996, 0.5, None)] == ["1.000", "> 0.999", "0.500", "–"]


def test_words() -> None:
    assert text.plural(1, "class") == "1 class"
    assert text.plural(4000, "image") == "4,000 images"
    assert text.plural(2, "class") == "2 classes"
    assert [text.listing(x) for x in ([], ["a"], ["a", "b"], list("abc"))] == ["none", "a", "a and b", "a, b and c"]
    assert text.listing(list("abcd"), 2) == "a, b and 2 more"


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("classes 0, 2: fewer than 3 images", "classes cat, fox: fewer than 3 images"),
        ("class 1: too few", "class dog: too few"),
        ("classes 0, 1 and 7 more: too few", "classes cat, dog and 7 more: too few"),
        ("classes 0, 9: of another set", "classes 0, 9: of another set"),
        ("1 classes to compare; expected at least 4", "1 classes to compare; expected at least 4"),
    ],
)
def test_class_numbers_become_names(told: str, expected: str) -> None:
    assert text.with_class_names(told, ("cat", "dog", "fox")) == expected
