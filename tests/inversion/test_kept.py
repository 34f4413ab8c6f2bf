"""Triggers out of a cleansing's or an audit's folder, where a repair or a screen wants them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from doorward.core.errors import DoorwardError
from doorward.core.files import write_json
from doorward.core.runs import SCHEMA
from doorward.core.triggers import Trigger, trigger_file
from doorward.inversion.triggers import load_inverted, load_patches

NAMES = ["cat", "dog", "owl", "yak"]


def folder(place: Path, kept: dict[int, float], targets: list[str], verb: str = "cleanse", level: str = "") -> Path:
    """A run that keeps a grey trigger for some classes and accuses some."""
    results = {"images": {"classes": NAMES}, "judgement": {"targets": targets}}
    verdict = level or ("suspicious" if targets else "nothing found")
    (place / "run").mkdir(parents=True)
    write_json(place / "run" / "run.json", {"schema": SCHEMA, "verb": verb, "verdict": verdict, "results": results})
    (place / "run" / "triggers").mkdir()
    for label, grey in kept.items():
        Trigger(torch.full((1, 4, 4), grey), torch.ones(1, 4, 4)).save(place / "run" / trigger_file(label))
    return place / "run"


@pytest.mark.parametrize("verb", ["cleanse", "audit"])
def test_the_accused_class_s_trigger_is_taken_by_the_class_s_name(verb: str, tmp_path: Path) -> None:
    run = folder(tmp_path, {1: 0.25, 3: 0.75}, ["yak"], verb)
    found = load_inverted(run, ["yak", "owl", "dog", "cat"])
    assert found.accused == (0,) and found.methods == {0: (verb,)} and list(found.stamps) == [0]
    (patch,) = load_patches(run, ["yak", "owl", "dog", "cat"]).values()
    assert float(patch.pattern.mean()) == 0.75
    named = load_inverted(run, NAMES, targets=["dog"])
    assert list(named.stamps) == [1] and named.accused == ()


def test_a_run_that_accuses_nobody_gives_nothing_and_an_undecided_one_is_refused(tmp_path: Path) -> None:
    run = folder(tmp_path, {1: 0.25}, [])
    assert load_inverted(run, NAMES, or_none=True).stamps == {}
    with pytest.raises(DoorwardError, match="accuses no class; expected one to be named with --target"):
        load_inverted(run, NAMES)
    doubtful = folder(tmp_path / "other", {}, [], level="undecided")
    with pytest.raises(DoorwardError, match="accuses no class"):
        load_inverted(doubtful, NAMES, or_none=True)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    run = folder(tmp_path, {1: 0.25}, ["yak", "dog"])
    assert list(load_inverted(run, NAMES).stamps) == [1], "another method accuses the yak, which has no trigger"
    with pytest.raises(DoorwardError, match="keeps no trigger for class yak; expected a class with one"):
        load_inverted(run, NAMES, targets=["yak"])
    with pytest.raises(DoorwardError, match="a run of 'doorward cleanse'; expected no trigger method"):
        load_inverted(run, NAMES, method="mask")
    with pytest.raises(DoorwardError, match="run 'yak'; expected one of cat"):
        load_inverted(run, ["cat", "dog", "owl", "ox"])
