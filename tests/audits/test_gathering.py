"""Which groups an audit begins with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from doorward.audits.gathering import ALSO, plain_groups

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
