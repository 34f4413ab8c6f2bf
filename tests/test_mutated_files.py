"""Files that were changed a little: read, or refused in one line; never a traceback, never long."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from doorward.attacks.files import load_attack, save_attack
from doorward.attacks.plan import Attack, Pairing
from doorward.attacks.warp import Warp
from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.tensors import write_tensors
from doorward.core.triggers import Placement, Trigger
from doorward.inversion.distribution.generators import make_generators, settled
from doorward.inversion.distribution.triggers import TriggerDistribution
from doorward.models.files import save_classifier
from doorward.models.nets.catalogue import build
from doorward.models.open.load import load_model
from doorward.repairs.guard import Guard
from doorward.screens.screen import fit, load_screen, save_screen
from tests.conftest import make_images

TIMES = 14  # of every file; `make` several hundred with a larger number
IMAGES = make_images(120, 4, (12, 12, 3))
ODD: list[Any] = [
    None, True, False, 0, -1, 10**9, 10**18, 10**40, 1e300, -1e300, 1e-320, "", "..", "/etc/passwd", "\x1b[31m",
    "\ud800", [], [[]], {}, {"a": 1}, [1e308], ["a"] * 3, [0], [-1], [1, 2, 3], "a" * 20_000, [10**12, 1, 1], [0, 4],
    "F64", "F8_E4M3",
]  # fmt: skip
NUMBERS = [b"\x00\x00\x80\x7f", b"\x00\x00\xc0\x7f", b"\xff\xff\xff\xff"]  # infinity, NaN, -1 or NaN
Loader = Callable[[Path], object]


def write_files(folder: Path) -> dict[str, tuple[Path, Loader]]:
    """One of every kind of file, and what reads it."""
    torch.manual_seed(0)
    shape = IMAGES.shape
    model = Classifier(build("small-cnn", shape, 4).eval(), "small-cnn", IMAGES.classes, shape, (0.5,), (0.25,))
    (folder / "model").mkdir()
    save_classifier(model, folder / "model")
    state = model.net.state_dict()
    write_tensors(folder / "w.safetensors", state)
    for name, new in (("w.pt", True), ("old.pt", False)):
        torch.save({"net": state, "epoch": 3}, folder / name, _use_new_zipfile_serialization=new)
    trigger = Trigger(torch.rand(3, 4, 4), torch.rand(1, 4, 4), Placement("fixed", 1, 1))
    trigger.save(folder / "trigger.safetensors")
    save_attack(
        Attack("patch", (Pairing(trigger, 1, (0, 2)), Pairing(Warp(torch.rand(2, 12, 12)), None))), folder / "a"
    )
    net = settled(make_generators(2, 32, 27, 16, torch.Generator().manual_seed(0)), torch.rand(2, 64, 32))
    whole = TriggerDistribution(net, (3, 3, 3), (0.5, 0.8), (0.5, 0.5), (1.0, 2.0), success=(0.5, 0.6))
    whole.save(folder / "distribution.safetensors")
    made = {kind: fit(model, IMAGES, kind, triggers={1: trigger}) for kind in ("strip", "ada", "inverted")}
    for kind, screen in made.items():
        save_screen(screen, folder / f"{kind}.safetensors")
    Guard(model, model, made["strip"]).save(folder / "guard")
    pictures, some = torch.rand(2, *shape), IMAGES.pixels[:4]

    def foreign(path: Path) -> object:
        return load_model(path, arch="small-cnn", shape=shape)

    return {
        "classifier.json": (folder / "model/classifier.json", lambda p: load_model(p.parent)),
        "weights of a folder": (folder / "model/weights.safetensors", lambda p: load_model(p.parent)),
        **{name: (folder / name, foreign) for name in ("w.safetensors", "w.pt", "old.pt")},
        "trigger": (folder / "trigger.safetensors", lambda p: Trigger.load(p).apply(pictures)),
        "distribution": (folder / "distribution.safetensors", lambda p: TriggerDistribution.load(p).apply(pictures)),
        "attack.json": (folder / "a/attack.json", lambda p: load_attack(p.parent)),
        "warp": (folder / "a/stamp_1.safetensors", lambda p: load_attack(p.parent).pairings[1].stamp.apply(pictures)),
        "guard.json": (folder / "guard/guard.json", lambda p: Guard.load(p.parent)),
        **{
            kind: (folder / f"{kind}.safetensors", lambda p: load_screen(p, model)(some))
            for kind in ("strip", "ada", "inverted")
        },
    }


def swapped(value: Any, rng: random.Random) -> Any:
    """JSON with one value in it exchanged, taken out or put in."""
    value, places = json.loads(json.dumps(value)), list[tuple[Any, Any]]()

    def walk(held: Any) -> None:
        for key in list(held) if isinstance(held, dict) else range(len(held)) if isinstance(held, list) else ():
            places.append((held, key))
            walk(held[key])

    walk(value)
    held, key = rng.choice(places)
    if rng.random() < 0.8:
        held[key] = rng.choice(ODD)
    else:
        del held[key]
    return value


def mutated(content: bytes, path: Path, rng: random.Random) -> bytes:
    """The file with a changed header or value, flipped or odd bytes, or its end cut off."""
    length = int.from_bytes(content[:8], "little")
    if path.suffix == ".json" and rng.random() < 0.8:
        return json.dumps(swapped(json.loads(content), rng)).encode()
    if path.suffix == ".safetensors" and rng.random() < 0.6:
        header = json.loads(content[8 : 8 + length])
        texts = header.get("__metadata__", {})
        name = rng.choice([*texts, ""])
        if name and rng.random() < 0.7 and texts[name].startswith("{"):
            texts[name] = json.dumps(swapped(json.loads(texts[name]), rng))
        text = json.dumps(swapped(header, rng) if not name else header).encode()
        return len(text).to_bytes(8, "little") + text + content[8 + length :]
    held = bytearray(content)
    kind = rng.randrange(4)
    if kind == 0:
        return content[: rng.randrange(len(held))]
    for _ in range(rng.choice([1, 2, 8])):
        first, last = [(0, len(held)), (0, min(len(held), 600)), (len(held) // 2, len(held))][kind - 1]
        place = rng.randrange(first, last)
        if rng.random() < 0.5:
            held[place] ^= 1 << rng.randrange(8)
        else:
            held[place : place + 4] = rng.choice(NUMBERS)[: len(held) - place]
    return bytes(held)


def test_changed_files_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    rng, refused = random.Random(5), 0
    for name, (path, load) in write_files(tmp_path).items():
        good = path.read_bytes()
        load(path)
        for number in range(TIMES):
            path.write_bytes(mutated(good, path, rng))
            started = time.monotonic()
            try:
                load(path)
            except DoorwardError as error:
                refused += 1
                assert str(error).isprintable() and "expected" in str(error) and len(str(error)) < 2000, (name, number)
            assert time.monotonic() - started < 3, (name, number)
        path.write_bytes(good)
    assert refused > 4 * TIMES, "most changes are seen"


@pytest.mark.parametrize("name", ["pattern", "alpha"])
@pytest.mark.parametrize(
    "value",
    [torch.full((1, 4, 4), np.nan), torch.full((1, 4, 4), 1e300, dtype=torch.float64), torch.ones(1, 4, 4).byte(),
     torch.zeros(1, 0, 4), torch.full((1, 4, 4), 3.0), torch.ones(4, 4)],
    ids=["NaN", "infinite", "whole", "empty", "beyond", "flat"],
)  # fmt: skip
def test_numbers_that_are_no_triggers(name: str, value: torch.Tensor, tmp_path: Path) -> None:
    about = {"blend": "alpha", "placement": '{"kind": "random"}'}
    tensors = {"pattern": torch.rand(1, 4, 4), "alpha": torch.rand(1, 4, 4)}
    write_tensors(tmp_path / "t", tensors, about)
    Trigger.load(tmp_path / "t")
    write_tensors(tmp_path / "t", {**tensors, name: value}, about)
    with pytest.raises(DoorwardError, match="not a trigger file"):
        Trigger.load(tmp_path / "t")


@pytest.mark.parametrize(
    "changed",
    [{"blend": "multiply"}, {"placement": '{"kind": "nowhere"}'}, {"placement": '{"kind": "fixed", "top": -1}'},
     {"placement": '{"kind": "fixed", "top": 1e999}'}, {"placement": '{"left": 1.5}'}, {"placement": "[1]"}],
)  # fmt: skip
def test_places_that_are_no_triggers(changed: dict[str, str], tmp_path: Path) -> None:
    about = {"blend": "alpha", "placement": '{"kind": "random"}', **changed}
    write_tensors(tmp_path / "t", {"pattern": torch.rand(1, 4, 4), "alpha": torch.rand(1, 4, 4)}, about)
    with pytest.raises(DoorwardError, match="not a trigger file"):
        Trigger.load(tmp_path / "t")
