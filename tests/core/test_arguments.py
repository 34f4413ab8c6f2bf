"""What is no image set and no classifier is told in one line, with how one is made, by every verb."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

import doorward as dw
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet


class Net(nn.Module):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 12 * 10, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1))  # type: ignore[no-any-return]


MODULE = "model is a torch module (Net); expected a Classifier: doorward.Classifier.from_module(net, images,"
MODEL = "model is a path ('model/'); expected a Classifier: doorward.load_model(PATH)"
IMAGES = "is a path ('photos/'); expected an ImageSet: doorward.load_images(PATH)"
Verb = Callable[[ImageSet, dw.Classifier], object]
wrong: Any = "photos/"
module: Any = Net()
path: Any = "model/"


@pytest.mark.parametrize(
    ("verb", "told"),
    [
        (lambda i, m: dw.train(wrong), f"train: images {IMAGES}"),
        (lambda i, m: dw.cleanse(wrong, m), f"cleanse: images {IMAGES}"),
        (lambda i, m: dw.cleanse(i, module), f"cleanse: {MODULE}"),
        (lambda i, m: dw.cleanse(i, path), f"cleanse: {MODEL}"),
        (lambda i, m: dw.cleanse(m, i), "cleanse: images is of type Classifier; expected an ImageSet"),
        (lambda i, m: dw.cleanse(i, m, 3), "methods of type int; expected a name"),
        (lambda i, m: dw.invert(module, i), f"invert: {MODULE}"),
        (lambda i, m: dw.invert(m, wrong), f"invert: images {IMAGES}"),
        (lambda i, m: dw.repair(module, i), f"repair: {MODULE}"),
        (lambda i, m: dw.repair(m, wrong), f"repair: images {IMAGES}"),
        (lambda i, m: dw.repair(m, i, 7), "repair: triggers of type int; expected what doorward.invert returned"),
        (lambda i, m: dw.screen(module, i, i), f"screen: {MODULE}"),
        (lambda i, m: dw.screen(m, wrong, i), f"screen: images {IMAGES}"),
        (lambda i, m: dw.screen(m, i, wrong), f"screen: clean {IMAGES}"),
        (lambda i, m: dw.certify(wrong, i), f"certify: train {IMAGES}"),
        (lambda i, m: dw.attack(wrong, "patch"), f"attack: images {IMAGES}"),
        (lambda i, m: dw.score(i, None), "score: run is of type ImageSet; expected the path of a saved run"),
        (lambda i, m: dw.report(7, "x/p.html"), "report: a result of type int; expected what a verb returned"),
        (lambda i, m: dw.load_model(module), "load_model: a Net; expected a path: doorward.Classifier.from_module"),
        (lambda i, m: dw.load_model("w.pth", like=wrong), f"load_model: like {IMAGES}"),
        (lambda i, m: dw.Classifier.from_module(Net(), wrong), "Net: like is of type str; expected an ImageSet"),
        (lambda i, m: dw.train(i, 7), "net of type int; expected two-layer,"),
        (lambda i, m: dw.train(i, Net(5)), "Net: decides between 5 classes; expected 3"),
    ],
)
def test_what_is_in_the_wrong_place_is_told_in_one_line(images: ImageSet, verb: Any, told: str) -> None:
    model = dw.Classifier.from_module(Net(), images)
    with pytest.raises(DoorwardError, match=re.escape(told)) as error:
        verb(images, model)
    assert "\n" not in str(error.value)


def test_own_nets_train_and_are_cleansed_and_reported(
    images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for net in (Net(), Net, lambda shape, classes: Net(classes)):
        model = dw.train(images, net, {"epochs": 1})
        assert model.predict(images.pixels).shape == (60,)
    found = dw.cleanse(images, model, "spectral")
    assert dw.report(found) == Path("report.html") and (tmp_path / "report.html").is_file()
