"""A closer look: which classes are experimented on with copies of the model, and what counts then."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from doorward.audits import closer
from doorward.audits.closer import Case
from doorward.audits.experiment import Arms, Experiment
from doorward.audits.parts.contradiction import Contradictions
from doorward.audits.parts.kept import Kept
from doorward.core.images import ImageSet
from doorward.core.triggers import Trigger

COUNT = 90
IMAGES = ImageSet(np.zeros((COUNT, 4, 4, 1), np.uint8), np.arange(COUNT) % 3, ("a", "b", "c"))
SUSPECTS = np.arange(COUNT) < 30


def arms(label: int, control: float) -> Arms:
    """Arms of which neither shows anything."""
    rates = np.full(3, control)
    return Arms(label, 10, 0, rates, rates, 60, np.full(3, 0.5), np.full(3, 0.5), np.full(3, 0.9), 1.0, 1.0)


def case(again: tuple[int, ...]) -> Case:
    trigger = Trigger(torch.ones(1, 4, 4), torch.ones(1, 4, 4))
    found = Contradictions(IMAGES.labels.copy(), SUSPECTS, learned=False, looked=False)
    model: Any = type("Model", (), {"predict": staticmethod(len)})()
    features, owned = np.zeros((COUNT, 2), np.float32), np.ones(COUNT, bool)
    triggers: dict[int, closer.Named] = {k: {"transfer": trigger} for k in range(3)}
    trainer: Any = None
    return Case(IMAGES, model, features, owned, found, triggers, trainer, again, np.zeros(COUNT, bool), 0, Kept())


@pytest.mark.parametrize(
    ("again", "works", "control", "copied"),
    [
        ((0, 1, 2), 0.9, {0: 0.05, 1: 0.8, 2: 0.3}, {0, 2}),
        ((1,), 0.9, {0: 0.05, 1: 0.1, 2: 0.3}, {1}),
        ((0, 1, 2), 0.2, {0: 0.05, 1: 0.0, 2: 0.0}, set()),
        ((), 0.9, {0: 0.05, 1: 0.0, 2: 0.0}, set()),
    ],
    ids=["learnt by some nets", "nothing else speaks against the others", "works on no model", "nobody is accused"],
)
def test_copies_are_asked_where_nets_made_anew_did_not_learn_what_works_on_the_model(
    monkeypatch: pytest.MonkeyPatch, again: tuple[int, ...], works: float, control: dict[int, float], copied: set[int]
) -> None:
    asked: list[set[int]] = []

    def experiment(images: ImageSet, suspects: Any, triggers: dict[int, Any], *_: object) -> Experiment:
        asked.append(set(triggers))
        made = {k: arms(k, 0.77) for k in triggers}
        return Experiment(made, np.full(COUNT, 0.9, np.float32), np.ones(COUNT, bool))

    monkeypatch.setattr(closer, "success", lambda *_: works)
    monkeypatch.setattr(closer, "unlearned", lambda *_: None)
    monkeypatch.setattr(closer, "experiment", experiment)
    first = {k: arms(k, rate) for k, rate in control.items()}
    tried = Experiment(first, np.full(COUNT, 0.1, np.float32), np.zeros(COUNT, bool))
    found = closer._on_copies(case(again), SUSPECTS, tried)
    assert set(found.copied) == copied and asked == ([copied] if copied else [])
    for k in range(3):
        own, again_asked = IMAGES.labels == k, k in copied
        assert (found.poisoned[own] == again_asked).all() and found.arms[k].control[0] == (
            0.77 if again_asked else control[k]
        )
        assert np.allclose(found.score[own], 0.9 if again_asked else 0.1)


def test_no_copy_is_asked_of_a_class_that_nets_made_anew_have_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closer, "success", lambda *_: 0.9)
    monkeypatch.setattr(closer, "experiment", lambda *_: pytest.fail("copies were trained"))
    monkeypatch.setattr(closer, "unlearned", lambda *_: pytest.fail("a copy was made to forget"))
    tried = Experiment({0: arms(0, 0.05)}, np.zeros(COUNT, np.float32), np.zeros(COUNT, bool))
    assert closer._on_copies(case((0, 1, 2)), SUSPECTS, tried, {0}) is tried


@pytest.mark.parametrize(
    ("copied", "p_unseen", "flagged"), [({0, 1}, 0.01, {0}), ({1}, 0.01, set()), ({0}, 0.2, set())]
)
def test_suspects_that_teach_copies_their_label_are_flagged_without_their_trigger(
    copied: set[int], p_unseen: float, flagged: set[int]
) -> None:
    one = replace(arms(0, 0.5), p_unseen=p_unseen)
    score = np.where(np.arange(COUNT) < 15, 0.9, 0.3).astype(np.float32)
    tried = Experiment({0: one, 1: arms(1, 0.5)}, score, np.zeros(COUNT, bool), frozenset(copied))
    found = closer.taught(tried, SUSPECTS, IMAGES.labels, 0.05)
    assert set(IMAGES.labels[found].tolist()) == flagged
    assert not (found & ~(SUSPECTS & (score > 0.5))).any() and found.sum() == 5 * len(flagged)
