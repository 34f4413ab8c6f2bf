"""An input range that does not fit is found, with labels and without, and one that fits is left alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.stats import Rate
from doorward.models.open import conventions
from doorward.models.open.conventions import check_conventions, measure_fit
from doorward.models.train.loop import train
from doorward.models.train.settings import TrainSettings
from tests.conftest import make_images


@pytest.fixture(scope="module")
def trained() -> tuple[ImageSet, Classifier]:
    images = make_images(400, classes=5)
    return images, train(images, "small-cnn", TrainSettings(epochs=6, batch=32, lr=0.05))


@pytest.mark.parametrize("labelled", [True, False])
def test_what_fits_passes(trained: tuple[ImageSet, Classifier], labelled: bool) -> None:
    images, classifier = trained
    assert check_conventions(classifier, images, labelled=labelled, name="model") == ()


@pytest.mark.parametrize("labelled", [True, False])
def test_pixels_of_0_to_255_for_a_net_of_0_to_1(trained: tuple[ImageSet, Classifier], labelled: bool) -> None:
    images, classifier = trained
    wrong = replace(classifier, mean=(0.0,), std=(1 / 255,))
    with pytest.raises(DoorwardError, match=r"model: .* expected the range that it was|model: its decisions tell"):
        check_conventions(wrong, images, labelled=labelled, name="model")


def test_pixels_of_0_to_1_for_a_net_of_0_to_255(trained: tuple[ImageSet, Classifier]) -> None:
    images, classifier = trained

    class Bytes(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = classifier.net

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(classifier.normalise(x / 255))  # type: ignore[no-any-return]

    bytes_net = replace(classifier, net=Bytes(), mean=(0.0,), std=(1 / 255,))
    assert check_conventions(bytes_net, images, labelled=True, name="model") == ()
    with pytest.raises(DoorwardError, match=r"100 % with --range 0,255"):
        check_conventions(replace(bytes_net, std=(1.0,)), images, labelled=True, name="model")
    with pytest.raises(DoorwardError, match="with --range 0,255"):
        check_conventions(replace(bytes_net, std=(1.0,)), images, labelled=False, name="model")


def test_a_net_that_guesses_is_warned_of(trained: tuple[ImageSet, Classifier]) -> None:
    images, classifier = trained
    shuffled = ImageSet(images.pixels, (images.labels + 1) % 5, images.classes)
    (told,) = check_conventions(classifier, shuffled, labelled=True, name="model")
    assert "hardly more than by guessing" in told


def test_information_of_certain_and_of_constant_answers(trained: tuple[ImageSet, Classifier]) -> None:
    images, classifier = trained

    class Constant(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.weight + torch.tensor([9.0, 0, 0, 0, 0]).expand(len(x), 5)

    assert measure_fit(replace(classifier, net=Constant()), images, False, "").information == pytest.approx(0, abs=1e-4)
    assert measure_fit(classifier, images, False, "").information > 1.4  # log 5 = 1.61 at most


def test_a_net_that_no_convention_could_beat_is_asked_once(
    trained: tuple[ImageSet, Classifier], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def counted(classifier: Classifier, images: ImageSet, labelled: bool, convention: str) -> conventions.Fit:
        asked.append(convention)
        return measure_fit(classifier, images, labelled, convention)

    monkeypatch.setattr(conventions, "measure_fit", counted)
    images, classifier = trained
    assert measure_fit(classifier, images, True, "as given").accuracy == Rate(400, 400)
    check_conventions(classifier, images, labelled=True, name="model")
    assert asked == ["as given"]
    check_conventions(classifier, images.subset(np.arange(3)), labelled=True, name="model")
    assert len(asked) > 2  # three right answers are hardly more than a guess: all are asked
