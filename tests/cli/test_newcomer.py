"""Somebody comes with a folder of pictures, a net in a file and its weights: one line says what is wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from doorward import cleanse, load_images, load_model
from doorward.cli import common
from tests.cli.conftest import Call

OWN = """
from torch import nn
class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(8, classes)
    def forward(self, x):
        return self.head(self.body(x))
def counted(classes): return Net(classes)
def five(): return Net(5)
def three(a, b, c): return Net(3)
def named(*, depth): return Net(3)
def nothing(classes): pass
def raising(classes): raise ValueError("no checkpoint in /a/very/long/folder " * 12 + "the end of it")
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty pictures of three classes, an own net, and weights for three classes, for five, and of another net."""
    folder, rng = tmp_path_factory.mktemp("newcomer"), np.random.default_rng(0)
    for label, name in enumerate(("cat", "dog", "fox")):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(0, 80, (24, 24, 3)) + 120 * (np.arange(3) == label)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "photos" / name / f"{name}{number:02}.png")
    (folder / "own.py").write_text(OWN)
    scope: dict[str, type[torch.nn.Module]] = {}
    exec(OWN, scope)  # the fixture's own text
    for name, classes in (("w3.pth", 3), ("w5.pth", 5)):
        torch.save(scope["Net"](classes).state_dict(), folder / name)
    torch.save(torch.nn.Linear(3, 4).state_dict(), folder / "other.pth")
    return folder


@pytest.mark.parametrize(
    ("weights", "factory", "told"),
    [
        ("w3.pth", "three", "own.py:three: must be given a, b, c; expected f(), f(classes) or f(shape, classes)"),
        ("w3.pth", "named", "own.py:named: must be given depth=; expected f(), f(classes) or f(shape, classes)"),
        ("w3.pth", "nothing", "own.py:nothing: gave nothing (is a return missing?); expected a torch.nn.Module"),
        ("w3.pth", "raising", "folder the end of it; expected a net"),
        ("w3.pth", "absent", "has no function 'absent'; expected one of Net, counted, five, three"),
        ("w3.pth", "five", "w3.pth: weights for 3 classes; "),
        ("w5.pth", "counted", "w5.pth: weights for 5 classes; photos with 3 classes: cat, dog, fox; expected as many"),
        ("w5.pth", "five", "w5.pth: weights for 5 classes; photos with 3 classes: cat, dog, fox; expected as many"),
        ("other.pth", "counted", "lacks 4 tensors ('body.0.weight', 'body.0.bias', 'head.weight', ...) and holds 2"),
    ],
)
def test_a_net_that_does_not_fit(
    place: Path, call: Call, tmp_path: Path, weights: str, factory: str, told: str
) -> None:
    arch = f"{place / 'own.py'}:{factory}"
    answer = call("cleanse", place / "photos", "--model", place / weights, "--arch", arch, "-o", tmp_path / "out")
    assert answer.code == 2 and told in answer.err and len(answer.err.splitlines()) == 1, answer.err
    assert "logits" not in answer.err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--set", "learning_rate=0.1"), "train: no setting 'learning_rate'; did you mean 'lr'? settings: epochs,"),
        (("--set", "lr=fast"), "train: setting 'lr' = 'fast'; expected a number above 0"),
        (("--augment", "much"), "train: --augment much; expected none or imagenet"),
        (("--net", "own.py:five"), "own.py:five: decides between 5 classes; expected 3"),
        (("--net", "own.py:counted", "--size", "5"), "does not take images of 3x5x5 ("),
    ],
)
def test_a_training_that_cannot_be(
    place: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], told: str
) -> None:
    monkeypatch.chdir(place)
    answer = call("train", "photos", *arguments, "-o", tmp_path / "out")
    lines = [line for line in answer.err.splitlines() if line.startswith("doorward: ")]
    assert answer.code == 2 and len(lines) == 1 and told in lines[0], answer.err
    assert not list(tmp_path.iterdir())


def test_weights_alone_are_asked_for_their_architecture(place: Path, call: Call, tmp_path: Path) -> None:
    answer = call("invert", place / "w3.pth", "--mean", "0.5", "--images", place / "photos", "-o", tmp_path / "out")
    assert answer.code == 2 and "weights alone; expected --arch with them" in answer.err and "mean" not in answer.err


def test_nothing_said_shows_the_help_alone(call: Call) -> None:
    answer = call()
    assert answer.code == 2 and "Usage" in answer.out and answer.err == ""


def test_settings_of_a_training_are_listed_and_no_verb_lists_all(call: Call) -> None:
    listed = call("methods", "train")
    assert listed.code == 0 and "lr=0.1  largest learning rate" in listed.out
    assert "batch" in call("methods", "train", "--json").json["settings"]
    every = call("methods")
    heads = [line.removeprefix("doorward ") for line in every.out.splitlines() if line.startswith("doorward ")]
    assert heads == ["attack", "cleanse", "invert", "repair", "screen", "certify", "train"]
    assert [row["verb"] for row in call("methods", "--json").json["verbs"]] == heads


@pytest.fixture(scope="module")
def run(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cleanse run of two methods on the pictures."""
    out = tmp_path_factory.mktemp("run") / "run"
    images = load_images(place / "photos")
    model = load_model(place / "w3.pth", arch=f"{place / 'own.py'}:counted", like=images)
    found = cleanse(images, model, ("spectral", "activation"))
    found.save(out)
    return out


def test_images_without_suspects_of_which_method(place: Path, run: Path, call: Call, tmp_path: Path) -> None:
    without = ("train", place / "photos", "--without", run, "-o", tmp_path / "out")
    told = "; expected --by with one of spectral, activation"
    assert f"several methods ran (spectral, activation){told}" in call(*without).err
    assert f"no method 'impurity' ran{told}" in call(*without, "--by", "impurity").err


def test_a_list_of_ids_scores_a_run(place: Path, run: Path, call: Call, tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text("cat/cat00.png\ncat/cat03.png\n")
    model = ("--model", f"mine={place / 'w3.pth'}", "--arch", f"{place / 'own.py'}:counted", "--test", place / "photos")
    answer = call("score", run, "--truth", tmp_path / "bad.txt", *model, "--json")
    assert answer.code == 0 and answer.json["methods"]["spectral"]["tpr"]["trials"] == 2
    assert (
        answer.json["models"][0]["asr"]["value"] is None and answer.json["models"][0]["clean_accuracy"]["trials"] == 60
    )
    shown = call("score", run, "--truth", tmp_path / "bad.txt", *model)
    assert "poisoned images as bad.txt lists them" in shown.out
    assert call("report", run, "-o", tmp_path / "page.html").code in (0, 1, 3)
    assert "poisoned images as bad.txt lists them" in (tmp_path / "page.html").read_text()
    (tmp_path / "bad.txt").write_text("cat/cat00.png\ncat/none.png\n")
    refused = call("score", run, "--truth", tmp_path / "bad.txt")
    assert refused.code == 2 and "'cat/none.png' is no image of the run; expected names such as" in refused.err


def test_warnings_name_classes_rather_than_number_them(place: Path, run: Path, call: Call, tmp_path: Path) -> None:
    answer = call("cleanse", place / "photos", "--model", place / "w3.pth", "--arch", f"{place / 'own.py'}:counted",
                  "--method", "activation", "--set", "activation.dimensions=11", "-o", tmp_path / "run")  # fmt: skip
    assert "activation: classes cat, dog, fox: fewer than 22 images" in answer.err
    call("report", tmp_path / "run", "-o", tmp_path / "page.html")
    assert "classes cat, dog, fox: fewer than 22 images" in (tmp_path / "page.html").read_text()
    assert "activation: no p-value: " in answer.err and "expected at least 4" not in answer.out


def test_files_that_are_no_pictures_are_named_or_left_out(place: Path, call: Call, tmp_path: Path) -> None:
    shutil.copytree(place / "photos", tmp_path / "photos")
    for name in ("a.png", "b.png"):
        (tmp_path / "photos" / "cat" / name).write_text("no picture")
    train = ("train", tmp_path / "photos", "--epochs", 1, "-o", tmp_path / "out")
    refused = call(*train)
    assert refused.code == 2 and len(refused.err.splitlines()) == 1 and not (tmp_path / "out").exists()
    assert "cat/a.png" in refused.err and "cat/b.png" in refused.err and "--skip-bad" in refused.err
    assert call(*train, "--skip-bad").code == 0


def test_a_net_of_ones_own_is_opened_with_its_file_again(
    place: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    trained = call("train", "photos", "--net", "own.py:counted", "--epochs", 1, "-o", tmp_path / "model")
    assert "; open it with --arch own.py:counted" in trained.out
    refused = call("invert", tmp_path / "model", "--images", "photos", "--method", "margin", "-o", tmp_path / "run")
    assert refused.code == 2 and "expected --arch FILE.py:factory" in refused.err
    opened = call("invert", tmp_path / "model", "--arch", "own.py:counted", "--images", "photos", "--method", "margin",
                  "-o", tmp_path / "run")  # fmt: skip
    assert opened.code in (0, 1, 3), opened.err


@pytest.mark.parametrize("verb", ["cleanse", "invert", "repair", "screen", "train"])
def test_options_stand_in_panels_below_an_example(verb: str, call: Call) -> None:
    shown = call(verb, "--help").out
    assert f"Example: doorward {verb} " in shown
    assert all(f"─ {panel} ─" in shown for panel in ("Model", "Pictures", "Run"))


def test_a_title_stays_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    common.print_table("a title that is much wider than its table", ["x"], [["1"]])
    assert capsys.readouterr().out.splitlines()[0] == "a title that is much wider than its table"
