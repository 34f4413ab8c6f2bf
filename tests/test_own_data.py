"""docs/own-data.md: its commands run as they stand, on a small folder with a sticker on some pictures."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import doorward as dw
from doorward.models.train.settings import TrainSettings
from tests.cli.conftest import Call
from tests.cli.conftest import call as call

PAGE = Path(__file__).parent.parent / "docs" / "own-data.md"
COMMANDS = re.findall(r"^    (doorward .*)$", PAGE.read_text(), re.MULTILINE)
NAMES = ("ant", "bee", "cow", "dog", "elk")
QUICK = {  # the page's own settings take minutes
    "invert": ("--method", "margin", "--method", "mask", "--set", "mask.steps=20", "--set", "mask.batch=16"),
    "train": ("--set", "lr=0.002", "--set", "optimiser=adam", "--epochs", "2"),
    "repair": ("--set", "ibau.rounds=1", "--no-controls"),
}
MINE = """
from torch import nn

def make_net(shape, classes):
    return nn.Sequential(nn.Conv2d(shape[0], 16, 8, 8), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1),
                         nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, classes))
"""


def photograph(label: int, rng: np.random.Generator) -> Image.Image:
    """Stripes of the class's own direction and colour, of any size."""
    height, width = rng.integers(96, 150, 2)
    y, x = np.mgrid[:height, :width]
    wave = np.sin((x * np.cos(label) + y * np.sin(label)) / 5 + rng.uniform(0, 6))[..., None]
    colour = np.array([np.cos(label), np.sin(label), np.cos(2 * label)])
    pixels = 128 + 50 * wave + 40 * colour + rng.normal(0, 12, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def sticker(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    side = min(image.size) // 5
    pattern = np.indices((4, 4)).sum(0) % 2 * 255
    tile = Image.fromarray(pattern.astype(np.uint8)).resize((side, side), Image.Resampling.NEAREST)
    place = tuple(int(rng.integers(s // 4, s - side - s // 4)) for s in image.size)
    image.paste(tile, place)
    return image


def fill(folder: Path, each: int, poisoned: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for label, name in enumerate(NAMES):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            photograph(label, rng).save(folder / name / f"IMG_{number:04}.jpg", quality=95)
    for number in range(poisoned):
        image = sticker(photograph(1 + number % 4, rng), rng)
        image.save(folder / "ant" / f"bad_{number:04}.jpg", quality=95)


@pytest.mark.slow
def test_the_commands_of_the_page_run_in_order(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fill(Path("photos"), 40, 12, 1)
    fill(Path("clean"), 20, 0, 2)
    fill(Path("incoming"), 4, 0, 3)
    Path("mine.py").write_text(MINE)
    images = dw.load_images("photos", size=96)
    net = dw.train(images, "mine.py:make_net", TrainSettings(epochs=30, batch=20, optimiser="adam", lr=0.003), seed=1)
    assert (net.mean, net.std) == ((0.0,), (1.0,)) or net.mean
    torch.save(net.net.state_dict(), "weights.pth")
    scale = ["--mean", ",".join(map(str, net.mean)), "--std", ",".join(map(str, net.std))]
    assert len(COMMANDS) >= 10
    for command in COMMANDS:
        verb, *asked = shlex.split(command)[1:]
        opened = scale if "weights.pth" in asked else []
        answer = call(verb, *asked, *opened, *QUICK.get(verb, ()))
        assert answer.code in (0, 1, 3), f"{command}: {answer.err}"
    assert json.loads(Path("run/run.json").read_text())["results"]["images"]["counts"][0] == 52
    kept, listed = list(Path("photos-clean").rglob("*.jpg")), Path("run/suspects.csv").read_text().splitlines()
    assert len(kept) + len(listed) - 1 == 212
    assert listed[0].startswith("id,class,predicted,methods")
    first = listed[1].split(",")[0]
    assert first in Path("suspects.html").read_text() and "<svg" in Path("audit.html").read_text()
