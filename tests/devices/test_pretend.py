"""The pretended device refuses what CUDA refuses, allows what CUDA allows, and computes as the CPU does."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.devices.pretend import DEVICE, Away, MixedDevicesError, pretended


@pytest.fixture(autouse=True)
def device() -> Iterator[torch.device]:
    with pretended() as device:
        yield device


def there(*shape: int) -> Tensor:
    return torch.ones(shape, device=DEVICE)


def forgets_the_device(images: Tensor) -> Tensor:
    """A toy with a planted mistake: the mean is made on the CPU."""
    mean = torch.tensor([0.5, 0.5, 0.5]).view(1, -1, 1, 1)
    return (images - mean).flatten(1).sum(1)


def reads_too_early(images: Tensor) -> float:
    """A toy with a planted mistake: a hidden conversion to numpy."""
    return float(np.linalg.norm(images.flatten(1).sum(1)))


def adds_up_on_the_host(batches: list[Tensor]) -> Tensor:
    """A toy with a planted mistake: the sum starts on the CPU."""
    total = torch.zeros(())
    for batch in batches:
        total += batch.sum()
    return total


@pytest.mark.parametrize(
    ("toy", "given", "error"),
    [
        (forgets_the_device, lambda: there(2, 3, 4, 4), MixedDevicesError),
        (reads_too_early, lambda: there(2, 3, 4, 4), TypeError),
        (adds_up_on_the_host, lambda: [there(3), there(3)], MixedDevicesError),
    ],
)
def test_a_planted_mistake_is_found_there_and_not_on_the_cpu(
    toy: Callable[..., object], given: Callable[[], Tensor | list[Tensor]], error: type[Exception]
) -> None:
    away = given()
    toy([t.cpu() for t in away] if isinstance(away, list) else away.cpu())
    with pytest.raises(error):
        toy(away)


REFUSED: dict[str, Callable[[], object]] = {
    "both devices": lambda: there(3) + torch.ones(3),
    "a scalar that is there, with a tensor that is not": lambda: there() * torch.ones(3),
    "cat": lambda: torch.cat([there(3), torch.ones(3)]),
    "stacked scalars": lambda: torch.stack([there(), torch.ones(())]),
    "matrices": lambda: there(2, 3) @ torch.ones(3, 2),
    "where": lambda: torch.where(there(3) > 0, torch.ones(3), 0.0),
    "CPU images by rows that are there": lambda: torch.ones(3)[torch.arange(2, device=DEVICE)],
    "CPU values put by a mask": lambda: there(3).index_put_((there(3) > 0,), torch.ones(3)),
    "one_hot into the CPU": lambda: torch.zeros(2, 3).scatter_(1, torch.zeros(2, 1).long().to(DEVICE), 1.0),
    "labels": lambda: functional.cross_entropy(there(2, 3), torch.zeros(2).long()),
    "a net and its images": lambda: nn.Conv2d(3, 4, 3)(there(1, 3, 5, 5)),
    "a moved net and its images": lambda: nn.Conv2d(3, 4, 3).to(DEVICE)(torch.ones(1, 3, 5, 5)),
    "a CPU generator for it": lambda: torch.rand(3, generator=torch.Generator(), device=DEVICE),
    "its generator for the CPU": lambda: torch.randperm(3, generator=torch.Generator(DEVICE)),
    "drawing in place": lambda: there(3).bernoulli_(0.5, generator=torch.Generator()),
    "a shape that changes in place": lambda: there(1, 3).squeeze_(0),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cuda_refuses_is_refused(name: str) -> None:
    with pytest.raises((MixedDevicesError, NotImplementedError)):
        REFUSED[name]()


@pytest.mark.parametrize("read", [lambda t: t.numpy(), np.asarray, np.linalg.norm])
def test_numpy_refuses_a_tensor_that_is_away(read: Callable[[Tensor], object]) -> None:
    with pytest.raises(TypeError, match="can't convert"):
        read(there(3))


def test_what_cuda_allows_is_allowed() -> None:
    rows, ones = torch.tensor([0, 2]), there(3)
    found = [
        ones * torch.tensor(2.0),
        torch.where(ones > 0, ones, torch.tensor(0.0)),
        ones[rows],
        ones.to(torch.ones(3, device=DEVICE)),
        torch.ones(3).to(DEVICE, non_blocking=True),
        torch.zeros(3, device=DEVICE).copy_(torch.ones(3)),
        ones.masked_fill(ones > 2, torch.tensor(0.0)),
        torch.rand(3, generator=torch.Generator(DEVICE), device=DEVICE),
        torch.tensor([1, 2], device=DEVICE),
        torch.arange(3, device=DEVICE),
        torch.full_like(ones, 2.0),
        functional.one_hot(torch.arange(3, device=DEVICE), 3),
    ]
    assert all(isinstance(t, Away) and t.device == DEVICE for t in found)
    assert ones.cpu().numpy().tolist() == ones.tolist() == [1.0, 1.0, 1.0] and f"{ones.sum():.1f}" == "3.0"
    filled = torch.zeros(3)
    assert filled.copy_(ones) is filled and type(filled) is Tensor and filled.tolist() == [1.0] * 3
    changed = ones.cpu()
    changed += 1
    assert ones.tolist() == [1.0] * 3, "what came from the device is a copy"


def test_a_training_there_gives_what_it_gives_on_the_cpu() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 3))
    images, labels, states = torch.rand(6, 3, 6, 6), torch.arange(6) % 3, []
    for place in (torch.device("cpu"), DEVICE):
        mine = copy.deepcopy(net).to(place).to(memory_format=torch.channels_last)
        optimiser = torch.optim.Adam(mine.parameters())
        for _ in range(3):
            optimiser.zero_grad()
            functional.cross_entropy(mine(images.to(place)), labels.to(place)).backward()
            optimiser.step()
        assert {p.device for p in mine.parameters()} == {p.grad.device for p in mine.parameters()} == {place}
        states.append({k: v.cpu() for k, v in copy.deepcopy(mine).state_dict().items()})
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_where_the_host_waits_is_counted() -> None:
    ones = there(3)
    (ones * 2).sum()
    torch.ones(3).to(DEVICE, non_blocking=True)
    assert not Away.waits.total()
    assert bool(ones.any()) and ones.sum().item() == 3 and ones.tolist() and len(ones.cpu()) == 3
    assert Away.waits.total() == 4
    assert len(ones[ones > 0]) == 3 and len(torch.tensor([1.0], device=DEVICE)) == 1
    assert Away.waits.total() == 6
