"""Images of accused classes that no experiment shows to be poisoned."""

from __future__ import annotations

import numpy as np

from doorward.audits.audit import _Looked, _per_image
from doorward.audits.evidence import Evidence
from doorward.audits.records import TargetRecord
from doorward.audits.rounds import Round
from tests.audits.records import TARGET, made_images


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
