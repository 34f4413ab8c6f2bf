"""The whole loop on a few hundred digits, with its trainings cut short."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import doorward as dw
from doorward.attacks.rate import asr
from doorward.audits.audit import audit
from doorward.audits.parts import copies
from doorward.audits.parts.afterwards import unlearned
from doorward.audits.parts.copies import Copies
from doorward.audits.results import Audit
from doorward.cleansers.observe import observe
from doorward.cleansers.parts.likeness import as_stamped
from doorward.core.classifier import Classifier, measure_accuracy
from doorward.core.errors import DoorwardError
from tests.light import audit_briefly, lighten


@dataclass
class Untouched:
    """A training that does nothing."""

    classifier: Classifier


@pytest.fixture(scope="module")
def digits() -> dw.ImageSet:
    images = dw.load_images("mnist-5k")
    return images.subset(np.flatnonzero(images.labels < 5)[::3])  # 700 of five classes


@pytest.fixture(scope="module")
def poisoned(digits: dw.ImageSet):
    return dw.attack(digits, "patch", target=1, rate=0.06, seed=7, settings={"size": 3})


@pytest.fixture(scope="module")
def found(poisoned, tmp_path_factory: pytest.TempPathFactory) -> Audit:
    with pytest.MonkeyPatch.context() as patch:
        lighten(patch)
        audit_briefly(patch)
        return audit(poisoned.images, seed=3, folder=tmp_path_factory.mktemp("steps"))


def test_a_patch_is_shown_to_be_planted_and_its_images_are_named(found: Audit, poisoned) -> None:
    assert found.verdict == "planted" and found.targets == ("1",)
    suspects = found.suspected()
    assert suspects[poisoned.truth.poisoned].mean() > 0.9
    assert suspects[~poisoned.truth.poisoned].mean() < 0.01
    (target,) = found.record.targets_looked_into
    assert target.experiment is not None and target.experiment.stops
    assert "its trigger works on" in found.record.judgement.reasons[0]


def test_the_retrained_model_has_no_backdoor(found: Audit, poisoned) -> None:
    test = dw.load_images("mnist-5k", split="test")
    test = test.subset(test.labels < 5)
    assert found.model is not None and found.repaired is not None
    small = dw.ImageSet(test.pixels, test.labels, found.model.classes)
    assert asr(found.model, small, poisoned.attack).value > 0.8
    assert asr(found.repaired, small, poisoned.attack).value < 0.1


def test_poisoned_images_lie_with_stamped_pictures_in_feature_space(found: Audit, poisoned) -> None:
    images, bad, model = poisoned.images, poisoned.truth.poisoned, found.model
    assert model is not None
    features, nobody = observe(images, model).features, np.zeros(len(images), bool)
    stamps = {label: [trigger] for label, trigger in found.triggers.items()}
    marked = as_stamped(images, model, features, nobody, stamps, 0)
    assert marked[bad].mean() > 0.9 and marked[~bad].mean() < 0.02
    other = {2: stamps[1]}  # a trigger that does not lead to this class marks nobody in it
    assert not as_stamped(images, model, features, nobody, other, 0).any()


def test_a_copy_forgets_the_trigger_and_what_it_was_copied_from_does_not(found: Audit, poisoned) -> None:
    images, model = poisoned.images, found.model
    assert model is not None
    test = dw.load_images("mnist-5k", split="test")
    small = dw.ImageSet(test.pixels[test.labels < 5], test.labels[test.labels < 5], model.classes)
    before = measure_accuracy(model, small).value
    stamps = {label: [trigger] for label, trigger in found.triggers.items()}
    copy = unlearned(images, model, found.suspected(), stamps, 0)
    assert asr(copy, small, poisoned.attack).value < 0.1
    assert measure_accuracy(copy, small).value > before - 0.03
    assert asr(model, small, poisoned.attack).value > 0.8 and measure_accuracy(model, small).value == before


def test_a_copy_is_trained_on_what_must_be_among_its_images(found: Audit, poisoned, monkeypatch) -> None:
    images, seen = poisoned.images, list[dw.ImageSet]()
    monkeypatch.setattr(copies, "_FEWEST", 30)
    monkeypatch.setattr(copies, "tune", lambda what, start, part, s, seed: seen.append(part) or Untouched(start))
    among = np.zeros(len(images), bool)
    among[:3] = True
    keep = np.ones(len(images), bool)
    keep[2] = False
    Copies(found.model).fit(images, keep, 5, images.subset(np.arange(len(images))), among)
    (part,) = seen
    drawn, more = part.pixels[:42], part.pixels[42:]  # two that must be, twenty for each of them; half as many more
    assert len(more) == 21
    assert (drawn[:2] == images.pixels[:2]).all() and not (drawn == images.pixels[2]).all(axis=(1, 2, 3)).any()


def test_a_saved_audit_reads_back_as_it_was(found: Audit, poisoned, tmp_path: Path) -> None:
    again = Audit.load(found.save(tmp_path / "run"))
    assert again.record == found.record
    assert again.suspects() == found.suspects() and again.triggers.keys() == found.triggers.keys()
    assert len(again.cleaned(poisoned.images)) == len(poisoned.images) - len(found.suspects())
    lines = (tmp_path / "run" / "suspects.csv").read_text().splitlines()
    assert lines[0] == "id,class,predicted,evidence,score" and len(lines) == 1 + len(found.suspects())
    scores = [float(line.rsplit(",", 1)[1]) for line in lines[1:]]
    assert scores == sorted(scores, reverse=True)


def test_an_audit_has_something_to_audit(digits: dw.ImageSet) -> None:
    with pytest.raises(DoorwardError, match="no training set"):
        audit(None)
    with pytest.raises(DoorwardError, match="level 2"):
        audit(digits, level=2)
