"""Suspects: what accusing methods flag, less what a found trigger speaks against."""

from __future__ import annotations

import numpy as np

from doorward.cleansers.suspects import agreement, suspected_images

KINDS = {"t": "triggers", "i": "filter", "a": "features", "s": "features"}
LABELS = np.repeat(np.arange(2), 20)


def rows(*some: int) -> np.ndarray:
    return np.isin(np.arange(len(LABELS)), some)


def named(flags: dict[str, np.ndarray], accusing: dict[int, list[str]]) -> list[int]:
    return np.flatnonzero(suspected_images(LABELS, flags, accusing, KINDS)).tolist()


def test_without_a_trigger_all_that_accusing_methods_flag_is_suspected() -> None:
    flags = {"i": rows(0, 1, 2, 25), "a": rows(2, 3)}
    assert named(flags, {0: ["i", "a"]}) == [0, 1, 2, 3], "and nothing in a class that nobody accuses"
    assert named(flags, {0: ["a"]}) == [2, 3] and named(flags, {}) == []


def test_what_one_other_method_alone_adds_to_a_found_trigger_is_its_error() -> None:
    flags = {"t": rows(*range(8)), "i": rows(*range(10)), "a": rows(*range(2, 9), 11)}
    assert named(flags, {0: ["t", "i"]}) == list(range(8))
    assert named(flags, {0: ["t", "i", "a"]}) == list(range(9)), "two kinds say that 8 belongs there"
    assert named({**flags, "s": flags["a"]}, {0: ["t", "a", "s"]}) == list(range(8)), "two of one kind are one"


def test_a_method_that_sees_something_else_keeps_what_it_flags() -> None:
    flags = {"t": rows(0, 1, 2, 3), "i": rows(*range(3, 15))}
    assert named(flags, {0: ["t", "i"]}) == list(range(15))


def test_agreement_by_hand() -> None:
    assert agreement(rows(0, 1, 2), rows(1, 2, 3)) == 0.5 and agreement(rows(), rows()) == 0.0
