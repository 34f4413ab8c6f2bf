"""The guarded classifier keeps clean images and answers K for stamped ones."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.models.files import save_classifier
from doorward.models.nets.catalogue import build
from doorward.repairs.apply import apply_repair
from doorward.repairs.guard import Guard
from doorward.screens.screen import fit
from tests.screens.worlds import CLASSES, NAMES, TARGET, stamp, stamped, striped, stripes

CLEAN = stripes(seed=2)


def screens(planted: Classifier) -> dict[str, Guard]:
    made = {m: fit(planted, stripes(seed=1), m, triggers={TARGET: stamp()}) for m in ("strip", "inverted")}
    repaired = striped(planted=False)
    return {
        "repaired": Guard(planted, repaired),
        "strip": Guard(planted, screen=made["strip"]),
        "inverted": Guard(planted, screen=made["inverted"]),
        "both": Guard(planted, repaired, made["inverted"]),
    }


@pytest.mark.parametrize("parts", ["repaired", "strip", "inverted", "both"])
def test_clean_accuracy_stays_and_stamped_images_are_refused(parts: str) -> None:
    guard = screens(striped())[parts]
    rates = guard.measure(CLEAN, stamped(CLEAN))
    assert rates["clean_accuracy"].value >= rates["clean_accuracy_before"].value - 0.1
    assert rates["stamped_refused"].value > 0.95
    assert (guard.predict(stamped(CLEAN)) == CLASSES).mean() > 0.95
    assert guard.classes == (*NAMES, "stamped")


def test_the_answer_is_the_originals_where_both_agree_and_k_elsewhere() -> None:
    planted, repaired = striped(), striped(planted=False)
    pixels = np.concatenate([CLEAN.pixels, stamped(CLEAN)])
    first, second = planted.predict(pixels), repaired.predict(pixels)
    expected = np.where(first == second, first, CLASSES)
    assert (Guard(planted, repaired).predict(pixels) == expected).all()
    flags = fit(planted, stripes(seed=1), "strip", false_rejection=0.2)
    watched = Guard(planted, repaired, flags)
    assert (watched.predict(pixels) == np.where(flags(pixels).flags, CLASSES, expected)).all()
    assert (watched.stamped(pixels) == (watched.predict(pixels) == CLASSES)).all()
    assert watched.accuracy(CLEAN).hits == (watched.predict(CLEAN.pixels) == CLEAN.labels).sum()


def test_it_survives_the_disk(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = (1, 12, 12)
    original, repaired = (
        Classifier(build("small-cnn", shape, CLASSES).eval(), "small-cnn", NAMES, shape) for _ in "ab"
    )
    guard = Guard(original, repaired, fit(repaired, stripes(40, seed=1), "strip", false_rejection=0.3))
    guard.save(tmp_path)
    again = Guard.load(tmp_path)
    assert (again.predict(CLEAN.pixels) == guard.predict(CLEAN.pixels)).all()
    assert again.screen is not None and again.screen.classifier is again.repaired
    alone = str(tmp_path / "not" / "yet" / "there")
    Guard(original, screen=fit(original, stripes(40, seed=1), "strip")).save(alone)
    assert Guard.load(alone).repaired is None


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    planted = striped()
    with pytest.raises(DoorwardError, match="expected at least one of them"):
        Guard(planted)
    with pytest.raises(DoorwardError, match="the repaired classifier has 6 classes"):
        Guard(planted, replace(planted, classes=(*NAMES, "more")))
    with pytest.raises(DoorwardError, match="cannot be read back"):
        Guard(planted, copy.deepcopy(planted)).save(tmp_path)
    assert not any(tmp_path.iterdir())
    save_classifier(planted, tmp_path)
    with pytest.raises(DoorwardError, match=r"guard\.json"):
        Guard.load(tmp_path)
    (tmp_path / "guard.json").write_text("{}")
    with pytest.raises(DoorwardError, match="not a guard"):
        Guard.load(tmp_path)


def test_a_repair_brings_its_guard() -> None:
    planted = striped()
    repaired = apply_repair(planted, "refresh", knowledge={"clean_images": stripes(seed=1)})
    guard = repaired.guard
    assert guard.original is planted and guard.repaired is repaired.classifier
    stays = repaired.classifier.predict(CLEAN.pixels) == planted.predict(CLEAN.pixels)
    assert np.array_equal(guard.stamped(CLEAN.pixels), ~stays)
