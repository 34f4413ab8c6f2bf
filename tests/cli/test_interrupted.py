"""What an interrupted command says of what it kept is true."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from doorward.cleansers import job as cleansing
from doorward.cli import common
from doorward.core import runs
from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.progress import Progress
from doorward.models.files import save_classifier
from doorward.models.nets.catalogue import build
from tests.cli.conftest import Call

KEPT, NOT_KEPT = "the same command goes on from here", "nothing of this call is kept"
Stop = Callable[[str, int], None]


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Stop:
    """Interrupts the next command at that stage, once so much of it is done; with an empty stage not at all."""

    def at(name: str, reached: int) -> None:
        def interrupting(stage: str, done: int, total: int, note: str = "") -> None:
            if stage == name and done >= reached:
                raise KeyboardInterrupt

        @contextmanager
        def display(_: str = "") -> Iterator[Progress]:
            yield interrupting

        monkeypatch.setattr(common, "display", display)
        monkeypatch.setattr(runs, "_left", [])
        monkeypatch.setattr(runs, "_whole", [])

    return at


@pytest.fixture
def model(tmp_path: Path, digits: tuple[ImageSet, ImageSet]) -> Path:
    """An untrained net; clean images beside it."""
    images = digits[0].portion(0.05, 0)
    for name in ("model", "images"):
        (tmp_path / name).mkdir()
    images.save(tmp_path / "images")
    net = build("small-cnn", images.shape, len(images.classes))
    save_classifier(Classifier(net, "small-cnn", images.classes, images.shape), tmp_path / "model")
    return tmp_path / "model"


def test_a_repair_keeps_finished_arms(model: Path, stop: Stop, call: Call, tmp_path: Path) -> None:
    quick = ("--set", "fine-tune.epochs=1", "--method", "fine-tune", "--method", "refresh", "--no-controls")
    asked = ("repair", model, "--images", tmp_path / "images", *quick, "-o", tmp_path / "out")
    stop("fine-tune", 0)
    answer = call(*asked)
    assert answer.code == 130 and KEPT in answer.err  # the model as given was measured
    assert list((tmp_path / "out.partial").glob("*given*")) and not (tmp_path / "out").exists()
    stop("refresh", 1)
    answer = call(*asked)
    assert answer.code == 130 and KEPT in answer.err and (tmp_path / "out.partial" / "arms" / "fine-tune").is_dir()
    stop("", 0)
    assert call(*asked).code == 3 and (tmp_path / "out" / "run.json").exists()


@pytest.mark.parametrize("in_memory", [1 << 20, 10])
def test_a_cleansing_starts_over_and_leaves_nothing(
    in_memory: int, model: Path, stop: Stop, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleansing, "_IN_MEMORY", in_memory)
    stop("features", 1)
    answer = call("cleanse", tmp_path / "images", "--model", model, "-o", tmp_path / "out")
    assert answer.code == 130 and NOT_KEPT in answer.err and KEPT not in answer.err, answer.err
    assert not list(tmp_path.glob("out*"))


def test_an_inversion_is_kept_once_it_wrote_something(model: Path, stop: Stop, call: Call, tmp_path: Path) -> None:
    asked = ("invert", model, "--images", tmp_path / "images", "--method", "margin", "-o", tmp_path / "out")
    stop("margin", 0)
    answer = call(*asked)
    assert answer.code == 130 and NOT_KEPT in answer.err and not list(tmp_path.glob("out*"))
    stop("references", 1)
    answer = call(*asked, "--train-references", 2)
    assert answer.code == 130 and KEPT in answer.err, answer.err
    assert [p.name for p in (tmp_path / "out.partial" / "references").iterdir()] == ["1.safetensors"]


def test_a_command_of_many_stages_goes_on_from_those_that_are_finished(
    stop: Stop, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    stop("", 0)
    monkeypatch.setattr("doorward.demo.run.demo", interrupted)
    answer = call("demo", "-o", tmp_path / "out")
    assert answer.code == 130 and "the same command goes on from what is finished" in answer.err
