"""Python blocks of README.md and docs/ run, in order, as a reader would run them."""

from __future__ import annotations

import copy
import inspect
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import doorward as dw
from doorward.cleansers.observe import _weights_hash
from tests.light import lighten, look_briefly

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>.*?) -->\s*)?^```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
MADE = {
    "quickstart.md": "better",
    "inversion.md": "trigger",
    "repair.md": "better",
    "faces.md": "ranked",
}  # in a branch
FEWER = {"mask": {"batch": 16}}  # images per step than the pages' calls take, where they say nothing
MINE = """
import torch

def make_net(shape, classes):
    return Net()

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, stride=4), torch.nn.ReLU(), torch.nn.Flatten())
        self.head = torch.nn.Linear(8 * 8 * 8, 4)

    def forward(self, images):
        return self.head(self.body(images))
"""


def blocks(page: Path) -> list[re.Match[str]]:
    return list(BLOCK.finditer(page.read_text()))


def write_folder(images: dw.ImageSet, folder: Path) -> None:
    """One subfolder per class, as a reader has it."""
    for number, (pixels, label) in enumerate(zip(images.pixels, images.labels, strict=True)):
        place = folder / images.classes[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[:, :, 0]).save(place / f"{number:04}.png")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders that the pages speak of: a training set with a patch on 8 % of it, clean images, incoming ones."""
    place = tmp_path_factory.mktemp("pictures")
    digits, others = dw.load_images("mnist-5k"), dw.load_images("mnist-5k", split="test")
    write_folder(dw.attack(digits.portion(0.25, seed=1), "patch", target=0, rate=0.08, seed=1).images, place / "photos")
    clean, incoming = others.split(0.6, seed=1)
    write_folder(clean, place / "clean")
    write_folder(incoming, place / "incoming")
    return place


def _key(value: Any) -> Any:
    """What decides a result, of an argument; the argument itself where nothing stands for it."""
    if isinstance(value, dw.ImageSet):
        return value.hash
    if isinstance(value, dw.Classifier):
        return _weights_hash(value)
    return tuple(map(_key, value)) if isinstance(value, list | tuple) else value


@pytest.fixture(scope="module")
def once() -> dict[str, Callable[..., Any]]:
    """`train` and `invert` that hand out a copy of what they made before: many pages begin with the same lines."""
    made: dict[Any, Any] = {}

    def remembering(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def asked(*given: Any, **more: Any) -> Any:
            bound = inspect.signature(function).bind(*given, **more)
            bound.apply_defaults()  # a default that is said is the same
            key = (name, *map(_key, bound.arguments.values()))
            if name == "invert" and "mask" in bound.arguments["methods"] and not bound.arguments["settings"]:
                bound.arguments["settings"] = FEWER
            if key not in made:
                made[key] = function(*bound.args, **bound.kwargs)
            return copy.deepcopy(made[key])

        return asked

    return {name: remembering(name, getattr(dw, name)) for name in ("train", "invert")}


def make_scored_run() -> None:
    """What the page about score tells to make on the command line."""
    from doorward.attacks.job import AttackRequest, attack_to_folder
    from doorward.cleansers.job import CleanseRequest, cleanse_to_folder
    from doorward.models.train.job import TrainRequest, train_to_folder

    attack_to_folder(AttackRequest(source="mnist-5k", recipe="patch", target="0", rate=0.02), Path("poisoned"))
    train_to_folder(TrainRequest(source="poisoned", training={"epochs": 2}), Path("model"))
    cleanse_to_folder(CleanseRequest(source="poisoned", model="model", methods=("impurity",)), Path("run"))


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda p: p.name)
def test_blocks_run(
    page: Path,
    pictures: Path,
    once: dict[str, Callable[..., Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(pictures, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    lighten(monkeypatch)
    look_briefly(monkeypatch)
    for name, function in once.items():
        monkeypatch.setattr(dw, name, function)
    Path("mine.py").write_text(MINE)
    if page.name == "score.md":
        make_scored_run()
    namespace: dict[str, Any] = {"__name__": page.stem}
    for block in blocks(page):
        if not block["reason"]:
            line = page.read_text()[: block.start("code")].count("\n")
            exec(compile("\n" * line + block["code"], str(page), "exec"), namespace)
    assert MADE.get(page.name, "dw") in namespace, "the backdoor was found, so that the whole page ran"


def test_every_page_has_been_seen() -> None:
    assert sum(len(blocks(p)) for p in PAGES) >= 20
    for page in PAGES:
        assert page.read_text().count("```python\n") == len(blocks(page)), page
