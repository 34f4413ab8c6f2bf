"""How few poisoned images would have been found: which copies are made, what is asked of them, and what is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from doorward.audits import power
from doorward.audits.gathering import Budget
from doorward.audits.parts.anew import Anew
from doorward.audits.parts.kept import Kept
from doorward.audits.parts.trainer import make_trainer
from doorward.audits.power import power_of
from doorward.audits.records import PowerRecord, TrialRecord
from doorward.audits.summary import power_sentence
from doorward.core.images import ImageSet
from doorward.core.results import LEVELS
from tests.audits.records import made_images

Trials = Callable[..., PowerRecord | None]


@pytest.fixture
def images() -> ImageSet:
    return made_images(per_class=100, poisoned=0)


@pytest.fixture
def asked(images: ImageSet, monkeypatch: pytest.MonkeyPatch) -> Trials:
    """`power_of` where a trigger on ``seen`` images and more is found; ``made`` collects the numbers asked for."""

    def ask(seen: int, made: list[int], folder: Path | None = None, budget: Budget | None = None) -> PowerRecord | None:
        def audited(setup: Any, plan: Any, label: int, count: int, kept: Kept) -> dict[str, Any]:
            made.append(count)
            level = LEVELS.index("planted" if count >= seen else "nothing found")
            return {"trial": np.array([0.9, level, count if count >= seen else 0, 0], np.float64)}

        monkeypatch.setattr(power, "_audited", audited)
        trainer = make_trainer(images, None, "cpu")
        stay = np.ones(len(images), bool)
        given = budget or Budget()
        return power_of(images, stay, trainer, None, level=0.05, seed=1, budget=given, kept=Kept(folder))

    return ask


@pytest.mark.parametrize(
    ("seen", "tried", "smallest"),
    [
        (1, [5], 5),
        (5, [5], 5),
        (6, [5, 10], 10),
        (20, [5, 10, 20], 20),
        (40, [5, 10, 20, 40], 40),
        (99, [5, 10, 20, 40], None),
    ],
)
def test_twice_as_many_until_it_is_found(asked: Trials, seen: int, tried: list[int], smallest: int | None) -> None:
    made: list[int] = []
    found = asked(seen, made)
    assert found is not None and made == tried  # of 1,000 images; 4 % of them at most
    assert (None if found.smallest is None else found.smallest.images) == smallest


def test_half_as_many_as_long_as_it_is_found(asked: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power, "SHARE", 0.03)
    made: list[int] = []
    found = asked(8, made)
    assert found is not None and found.smallest is not None
    assert made == [30, 15, 7] and found.smallest.images == 15


def test_a_second_call_reads_what_was_kept(asked: Trials, tmp_path: Path) -> None:
    made: list[int] = []
    first = asked(10, made, tmp_path)
    assert made == [5, 10] and asked(10, made, tmp_path) == first and made == [5, 10]


def test_without_time_nothing_is_tried_and_that_is_noted(asked: Trials) -> None:
    budget, made = Budget(minutes=0.5, training=10.0), list[int]()
    assert asked(5, made, budget=budget) is None and not made
    assert len(budget.left_out) == 1 and "a copy with a known trigger on 5 images" in budget.left_out[0]


def test_a_copy_has_so_many_triggers_and_no_suspect(images: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[ImageSet] = []
    stay = np.arange(len(images)) % 10 != 3
    monkeypatch.setattr(Anew, "train", lambda self, part, seed: SimpleNamespace(part=part))
    monkeypatch.setattr(power, "asr", lambda *given, **more: SimpleNamespace(value=1.0))

    def look(part: ImageSet, *given: Any, **more: Any) -> Any:
        looked.append(part)
        suspects = part.labels == 5  # the class of middle size in a set of equal ones
        return SimpleNamespace(targets=[SimpleNamespace(label=5, level="planted")], suspects=suspects)

    monkeypatch.setattr(power, "look_once", look)
    trainer = make_trainer(images, None, "cpu")
    found = power_of(
        images, stay, trainer, Anew(trainer, None), level=0.05, seed=2, budget=Budget(), kept=Kept(None)
    )  # fmt: skip
    (part,) = looked
    kept = images.subset(stay)
    changed = (part.pixels != kept.pixels).any(axis=(1, 2, 3))
    assert found is not None and found.label == 5 and len(part) == len(kept)
    assert changed.sum() == 5 and (part.labels[changed] == 5).all() and (kept.labels[changed] != 5).all()
    assert (part.labels[~changed] == kept.labels[~changed]).all()
    own = int((kept.labels == 5).sum())
    assert found.trials == (TrialRecord(images=5, success=1.0, level="planted", found=5, false=own),)


def _record(*trials: TrialRecord) -> PowerRecord:
    return PowerRecord(size=3, label=4, class_name="cat", side=(32, 48), trials=trials)


def test_the_sentence_names_the_smallest_that_was_found_and_why_the_next_was_not() -> None:
    trials = (
        TrialRecord(images=20, success=0.9, level="planted", found=20),
        TrialRecord(images=10, success=0.8, level="evidence", found=9, false=1_200),
        TrialRecord(images=5, success=0.1),
    )
    told = power_sentence(_record(*trials))
    assert "3 x 3 pixels in pictures of 48 x 32" in told and "“cat”" in told
    assert "on 10 images" in told and "(evidence; 9 of the 10 and 1,200 others)" in told
    assert "on 5 it would not: a model does not learn it, it works on 10.0 % of pictures." in told
    assert power_sentence(_record(trials[0])).endswith("(planted; 20 of the 20 and no other).")


def test_the_sentence_of_what_was_never_found_names_the_most_images() -> None:
    trials = [TrialRecord(images=n, success=0.99) for n in (20, 40)]
    told = power_sentence(_record(*trials))
    assert "on 40 images of other classes labelled “cat” would not have been found." in told


@pytest.mark.parametrize(
    ("level", "found", "seen"),
    [("planted", 10, True), ("evidence", 10, True), ("planted", 9, False), ("suspicious", 20, False)],
)
def test_found_means_named_and_half_of_the_images(level: str, found: int, *, seen: bool) -> None:
    assert TrialRecord(images=20, level=level, found=found).seen is seen
