"""The page of the three sources: it is made from what lies in results/, and misses no published number."""

from __future__ import annotations

import re

import pytest
from benchmarks import sources
from benchmarks.published import judge
from benchmarks.table import RESULTS

from doorward.core.stats import Rate
from doorward.papers.cluster_impurity.trainers import TABLE_2
from doorward.papers.mesa.profiles import PUBLISHED, PUBLISHED_CIFAR100

PAGE = (RESULTS / "sources.md").read_text()


@pytest.mark.parametrize(
    ("published", "ours", "digits", "higher", "scale", "state"),
    [
        (0.991, 0.958, 3, True, 1, "missed by 0.033"),
        (0.991, 0.9906, 3, True, 1, "reached"),  # rounded as the source is
        (0.001, 0.0014, 3, False, 1, "reached"),
        (0.1, 0.462, 3, False, 1, "missed by 0.362"),
        (36, 0.815, 0, True, 100, "reached"),
        (3.4, Rate(49, 1000), 1, False, 100, "missed by 1.5"),
        (4.9, Rate(52, 1000), 1, False, 100, "missed by 0.3, inside the interval"),
        (5.0, Rate(50, 1000), 1, False, 100, "reached"),
    ],
)
def test_states(published: float, ours: Rate | float, digits: int, higher: bool, scale: int, state: str) -> None:
    assert judge(published, ours, digits, higher=higher, scale=scale) == state


def test_the_page_is_made_from_the_results() -> None:
    assert sources.page() == PAGE, "results/ has changed: python -m benchmarks sources"


def test_no_published_number_is_missing() -> None:
    lines = [line.split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
    published = {(cells[0].removeprefix("| "), cells[1]) for cells in lines}
    for size, row in TABLE_2.items():
        for name, rates in row.items():
            for rate, value in zip(("TPR", "FPR"), rates, strict=True):
                assert (f"{size:.2f}, {name}, {rate}", f"{value:.3f}") in published
    read_off = [value for kind in PUBLISHED.values() for pair in kind.values() for value in pair if value is not None]
    shown = [float(value) for _, value in published if re.fullmatch(r"[0-9.]+", value)]
    assert {*read_off, *PUBLISHED_CIFAR100.values()} <= set(shown)


def test_the_index_tells_the_same_counts() -> None:
    (counts,) = [line.split(" | ")[1:] for line in PAGE.splitlines() if line.startswith("| all results | ")]
    words = [f"{number.strip(' |')} {state}" for number, state in zip(counts, sources.STATES, strict=True)]
    assert ", ".join(words) in (RESULTS / "README.md").read_text()
