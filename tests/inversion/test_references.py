"""References are of the suspect's own kind, and what is trained of them outlives an interruption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from doorward.core import runs
from doorward.core.classifier import Classifier, measure_accuracy
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.runs import Run
from doorward.inversion.job import InvertRequest, invert_to_folder
from doorward.inversion.judge.references import like, train_references
from doorward.inversion.results import InvertRecord
from doorward.inversion.search import loop
from doorward.models.train import loop as training
from tests.inversion.worlds import row_classifier, row_images

FACTORY = """
import torch
class Rows(torch.nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Conv2d(1, 6, 3, padding=1), torch.nn.BatchNorm2d(6), torch.nn.ReLU())
        self.head = torch.nn.Linear(6 * 36, classes)
    def forward(self, x):
        return self.head(self.body(x).flatten(1))
def rows(classes):
    return Rows(classes)
"""


@pytest.fixture(scope="module")
def suspect(tmp_path_factory: pytest.TempPathFactory) -> InvertRequest:
    """A net of the user's own, and clean images."""
    tmp_path = tmp_path_factory.mktemp("suspect")
    (tmp_path / "rows.py").write_text(FACTORY)
    (tmp_path / "images").mkdir()
    images = row_images(96)
    images.save(tmp_path / "images")
    arch = f"{tmp_path / 'rows.py'}:rows"
    made = training.train(images, arch, seed=3, device="cpu")
    torch.save(made.net.state_dict(), tmp_path / "rows.pth")
    return InvertRequest(
        model=str(tmp_path / "rows.pth"),
        arch=arch,
        mean=made.mean,
        std=made.std,
        source=str(tmp_path / "images"),
        methods=("margin",),
        settings={"margin": {"precision": "fp32"}},
        train_references=2,
        device="cpu",
    )


def test_references_are_of_the_suspects_own_architecture_and_learn(
    suspect: InvertRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Classifier] = []
    whole = training.train
    monkeypatch.setattr(
        "doorward.inversion.judge.references.train", lambda *a, **k: made.append(whole(*a, **k)) or made[-1]
    )
    record = invert_to_folder(suspect, tmp_path / "run").record
    assert record.references == (suspect.arch, suspect.arch) and not record.warnings
    assert [type(one.net).__name__ for one in made] == ["Rows", "Rows"]
    assert all(measure_accuracy(one, row_images(96)).value > 0.95 for one in made)
    assert not torch.equal(made[0].net.head.weight, made[1].net.head.weight)  # type: ignore[union-attr, arg-type]
    other = suspect.model_copy(update={"reference_net": "two-layer"})
    assert invert_to_folder(other, tmp_path / "other").record.references == ("two-layer", "two-layer")


def test_a_factory_and_a_module_of_ones_own_start_from_fresh_weights() -> None:
    images = row_images(96)
    module = nn.Sequential(nn.Flatten(), nn.Linear(36, 6))
    nn.init.constant_(module[1].weight, 1e6)  # type: ignore[arg-type]
    (of_module,), told = train_references(images, 1, net=module, device="cpu")
    assert not told and measure_accuracy(of_module, images).value > 0.95
    assert float(module[1].weight.detach().min()) == 1e6 and float(of_module.net[1].weight.detach().abs().max()) < 10  # type: ignore[index, union-attr, arg-type, operator]
    (of_factory,), _ = train_references(
        images, 1, net=lambda classes: nn.Sequential(nn.Flatten(), nn.Linear(36, classes))
    )
    assert measure_accuracy(of_factory, images).value > 0.95

    class Held(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(36, 6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1) @ self.weight

    with pytest.raises(DoorwardError, match="Held '' has weights and no reset_parameters.*expected a factory"):
        train_references(images, 1, net=Held())


def test_a_net_that_nobody_says_how_to_make_is_refused() -> None:
    with pytest.raises(
        DoorwardError, match=r"how another rows is made; expected clean models \(--reference\), or the net"
    ):
        like(row_classifier())
    assert like(row_classifier(), "nets.py:rows") == "nets.py:rows"


def test_references_that_did_not_learn_are_told_of() -> None:
    images = row_images(96)
    shuffled = ImageSet(images.pixels, np.random.default_rng(0).permutation(images.labels), images.classes)
    _, told = train_references(shuffled, 1, net=lambda classes: nn.Sequential(nn.Flatten(), nn.Linear(36, classes)))
    assert len(told) == 1 and "of the clean images only; it says little" in told[0]


@pytest.fixture(scope="module")
def whole(suspect: InvertRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[InvertRecord, int]:
    """The inversion that nobody interrupts, and how many epochs it trains."""
    epochs: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        count_epochs(patch, epochs)
        record = invert_to_folder(suspect, tmp_path_factory.mktemp("whole") / "run").record
    return record, len(epochs)


def count_epochs(patch: pytest.MonkeyPatch, epochs: list[int]) -> None:
    """Each epoch that is trained is noted, and each state that can be saved is."""
    run_epoch = training.run_epoch

    def counted(*arguments: Any) -> Any:
        epochs.append(arguments[4])
        return run_epoch(*arguments)

    patch.setattr(loop.Watch, "due", lambda self: self.checkpoint is not None)
    patch.setattr(training, "run_epoch", counted)


@pytest.mark.parametrize("stop", [("references", 0, 5), ("references", 1, 0), ("margin", 0, 20)])
def test_an_interrupted_inversion_keeps_the_references_it_trained(
    stop: tuple[str, int, int],
    suspect: InvertRequest,
    whole: tuple[InvertRecord, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runs, "_left", [])
    monkeypatch.setattr(runs, "_whole", [])
    epochs: list[int] = []
    count_epochs(monkeypatch, epochs)

    def interrupting(stage: str, done: int, total: int, note: str = "") -> None:
        name, number, at = stop
        if name == "references" == stage and done == number and (not at or note.startswith(f"epoch {at} of")):
            raise KeyboardInterrupt
        if name == stage == "margin" and done >= at:
            raise KeyboardInterrupt

    once, needed = whole
    with pytest.raises(KeyboardInterrupt):
        invert_to_folder(suspect, tmp_path / "run", progress=interrupting)
    assert runs.after_interrupt() == "the same command goes on from here"
    again = invert_to_folder(suspect, tmp_path / "run").record
    assert len(epochs) == needed, "no epoch is trained twice"
    assert again.methods["margin"].classes == once.methods["margin"].classes
    assert not (tmp_path / "run" / "references").exists() and Run.read(tmp_path / "run")["verb"] == "invert"
