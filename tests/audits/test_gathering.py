"""Which groups an audit begins with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from doorward.audits import gathering
from doorward.audits.gathering import ALSO, Budget, plain_groups
from doorward.audits.parts.kept import Kept
from doorward.cleansers.parts.carried import Carrier
from doorward.core.images import ImageSet
from doorward.core.triggers import Trigger

LABELS = np.repeat(np.arange(5), 10)


def begun_with(success: dict[int, float], p_values: dict[int, float]) -> list[int]:
    """Classes that are begun with, of five of which some have a group of four images that carries something."""
    scores = np.zeros(len(LABELS), np.float32)
    for label, value in success.items():
        scores[10 * label : 10 * label + 4] = value
    row = SimpleNamespace(class_p_values=tuple(p_values.get(k, 1.0) for k in range(5)))
    samples = SimpleNamespace(label=LABELS, scores={"transfer": scores}, flags={"transfer": scores >= 0.5})
    cleansing: Any = SimpleNamespace(samples=samples, record=SimpleNamespace(methods={"transfer": row}))
    rows = plain_groups(cleansing, 0.05)
    assert (rows <= (scores >= ALSO)).all()
    return np.unique(LABELS[rows]).tolist()


@pytest.mark.parametrize(
    ("success", "p_values", "classes"),
    [
        ({}, {}, []),
        ({1: 0.9}, {}, [1]),
        ({1: 0.9, 2: 0.4}, {}, [1, 2]),
        ({1: 0.4, 2: 0.4}, {}, []),
        ({1: 0.9, 2: 0.6, 3: 0.4}, {}, []),
        ({1: 0.9, 2: 0.6, 3: 0.4}, {1: 0.001}, [1]),
        ({0: 0.9, 1: 0.9, 2: 0.9}, {0: 0.01, 1: 0.01, 2: 0.01}, []),
    ],
)
def test_of_many_classes_with_groups_the_accused_ones_are_begun_with(
    success: dict[int, float], p_values: dict[int, float], classes: list[int]
) -> None:
    assert begun_with(success, p_values) == classes


def test_all_groups_that_bear_a_shown_trigger_are_suspects_whatever_their_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each image is in one group of four; the one that the model decides otherwise is none of its own."""
    images = ImageSet(np.zeros((len(LABELS), 4, 4, 1), np.uint8), LABELS, tuple("abcde"))
    logits = np.eye(5, dtype=np.float32)[LABELS]
    logits[10] = np.eye(5)[0]
    seen = SimpleNamespace(logits=logits, features=np.zeros((len(LABELS), 2), np.float32))
    samples = SimpleNamespace(label=LABELS, scores={"transfer": np.zeros(50)}, flags={"transfer": np.zeros(50, bool)})
    cleansing = SimpleNamespace(observations=seen, samples=samples)
    monkeypatch.setattr(gathering, "cleanse", lambda *_, **__: cleansing)
    monkeypatch.setattr(gathering, "learns", lambda *_: False)
    trigger = Trigger(torch.ones(1, 4, 4), torch.ones(1, 4, 4))
    known = [Carrier(k, np.arange(10 * k, 10 * k + 3), trigger, 0.1, 0.1) for k in range(1, 5)]
    unasked: Any = None
    found = gathering.gathered(
        images, unasked, unasked, None, 0.05, 2, 0, Budget(), Kept(), [], plainly=False, known=known
    )
    wanted = sorted(set(np.concatenate([one.rows for one in known]).tolist()) - {10})
    assert np.flatnonzero(found.found.suspects).tolist() == wanted and found.carried == known
