"""Training throughput of ResNet-20 against a plain loop: fp32, contiguous, DataLoader; same net, same batch."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.table import spread, write
from doorward.core.images import ImageSet
from doorward.models.nets.catalogue import build
from doorward.models.train.loop import train
from doorward.models.train.settings import TrainSettings

IMAGES, BATCH, ROUNDS = 2560, 128, 5


class PlainDataset(Dataset[tuple[torch.Tensor, int]]):
    """Images as most tutorials have them: converted one by one."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        pixels = torch.from_numpy(self.images.pixels[index]).permute(2, 0, 1).float() / 255
        return (pixels - 0.45) / 0.25, int(self.images.labels[index])


def plain(images: ImageSet) -> None:
    """One epoch of the plain loop."""
    net = build("resnet20", images.shape, 10)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    loader = DataLoader(PlainDataset(images), batch_size=BATCH, shuffle=True)
    criterion = nn.CrossEntropyLoss()
    net.train()
    for batch, labels in loader:
        optimiser.zero_grad()
        loss = criterion(net(batch), labels)
        loss.backward()
        optimiser.step()


def ours(precision: str) -> Callable[[ImageSet], None]:
    """One epoch of Doorward's loop."""
    settings = TrainSettings(epochs=1, batch=BATCH, precision=precision)  # type: ignore[arg-type]
    return lambda images: void(train(images, "resnet20", settings))


def void(_: object) -> None:
    """Drop a result."""


def main() -> None:
    """Time the loops in turn, several rounds, after one warm-up each."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    images = ImageSet(pixels, rng.integers(0, 10, IMAGES), tuple("0123456789"), "random")
    loops = {"plain loop, fp32, DataLoader": plain, "doorward, fp32": ours("fp32"), "doorward, bf16": ours("bf16")}
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for number in range(ROUNDS + 1):
        for name, loop in loops.items():
            started = time.perf_counter()
            loop(images)
            if number:
                rates[name].append(IMAGES / (time.perf_counter() - started))
    reference = rates["plain loop, fp32, DataLoader"]
    rows = []
    for name, values in rates.items():
        ratios = [v / r for v, r in zip(values, reference, strict=True)]
        rows.append([name, spread(values, 0), spread(ratios, 2)])
    told = (
        f"ResNet-20, batch {BATCH}, {IMAGES:,} random 32 x 32 x 3 images, {ROUNDS} rounds in turn after a warm-up; "
        "median (minimum to maximum); the ratio is taken round by round."
    )
    write("train_throughput", "Training throughput", told, ["loop", "images/s", "against the plain loop"], rows)


if __name__ == "__main__":
    main()
