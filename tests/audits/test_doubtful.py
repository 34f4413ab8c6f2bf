"""Images of accused classes that no experiment shows to be poisoned."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

import doorward.audits.audit as verb
from doorward.audits.audit import _Looked, _per_image
from doorward.audits.evidence import Evidence
from doorward.audits.gathering import Budget
from doorward.audits.parts.kept import Kept
from doorward.audits.records import TargetRecord
from doorward.audits.rounds import Round
from doorward.core.images import ImageSet
from tests.audits.records import TARGET, made_doubtful, made_images


def made_round(count: int, suspects: list[int], doubtful: list[int]) -> Round:
    flags = np.zeros((2, count), bool)
    flags[0, suspects], flags[1, doubtful] = True, True
    row = TargetRecord(label=TARGET, class_name="7", level="suspicious", evidence={"clusters": 0.01, "transfer": 0.4})
    score = np.linspace(1, 0, count).astype(np.float32)
    return Round(Evidence({}, {}, {}), (row,), flags[0], flags[1], score, {}, None, None)


def test_what_a_later_round_shows_is_doubtful_no_more() -> None:
    images = made_images()
    own = np.flatnonzero(images.labels == TARGET)
    everything, rest = np.ones(len(images), bool), np.ones(len(images), bool)
    rest[own[0]] = False
    place = np.flatnonzero(np.flatnonzero(rest) == own[2]).tolist()  # of the third image, where the first is gone
    first = made_round(len(images), [own[0]], [own[1], own[2]])
    second = made_round(len(images) - 1, place, [])
    table = _per_image(images, images.labels, _Looked([first, second], [everything, rest], None), 0.05)
    assert np.flatnonzero(table.suspect).tolist() == [own[0], own[2]]
    assert np.flatnonzero(table.doubtful).tolist() == [own[1]] and table.score[own[1]] > 0
    assert [table.evidence[row] for row in own[:3]] == ["clusters+experiment", "clusters", "clusters+experiment"]
    assert not table.evidence[own[3]] and table.score[own[3]] == 0


def test_they_can_be_left_out_as_well() -> None:
    found = made_doubtful()
    whole = made_images()
    assert len(found.cleaned()) == len(whole) and len(found.cleaned(doubtful=True)) == len(whole) - 20


def test_a_round_that_lacked_the_time_for_an_experiment_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    images, asked = made_images(), list[bool]()

    def look(part: ImageSet, *_: object, budget: Budget, plainly: bool, **__: object) -> Round:
        asked.append(plainly)
        if minutes is not None:
            budget.left_out.append("the experiment")
        return replace(made_round(len(part), [], [0]), plainly=plainly)

    monkeypatch.setattr(verb, "look_once", look)
    for minutes, looks in ((1.0, [True]), (None, [True, False])):
        asked.clear()
        nobody = cast("Any", None)
        verb._rounds(images, nobody, nobody, None, None, 0.05, 0, Budget(minutes), Kept())
        assert asked == looks
