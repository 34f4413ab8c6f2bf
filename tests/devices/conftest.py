"""The pretended device for every test here, and one small world with its net there."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import pytest
import torch

from doorward.attacks.plan import Attack, Pairing
from doorward.attacks.poison import poison
from doorward.models.train.loop import train
from tests.contract.worlds import HURRIED, TARGET, TRIGGER, World, pictures
from tests.devices.pretend import DEVICE, Away, pretended


@pytest.fixture(autouse=True)
def device() -> Iterator[torch.device]:
    """Within a test the device can be used; what it refused fails the test, also where the package went on."""
    with pretended() as device:
        yield device
    assert not Away.refused, Away.refused


@cache
def small_world() -> World:
    """Like the world of the contract, of fewer images; its net lies on the CPU."""
    made = poison(pictures(240, 0), Attack("patch", (Pairing(TRIGGER, TARGET),)), count=24)
    model = train(made.images, "small-cnn", HURRIED, device="cpu")
    return World(made.images, made.truth.poisoned, model, pictures(180, 1), pictures(60, 2))


@pytest.fixture
def here() -> World:
    return small_world()


@pytest.fixture
def there() -> World:
    world = small_world()
    return replace(world, model=replace(world.model, net=copy.deepcopy(world.model.net).to(DEVICE)))
