"""Batches from a data set that lies on the device as uint8: gather, augment, to float."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from doorward.core.classifier import to_float
from doorward.core.images import ImageSet

_RESIDENT_LIMIT = 1 << 31  # bytes; larger sets stay on disk and are read batch by batch


class BatchSource:
    """Shuffled, augmented batches of an image set.

    The set lies on the device once, as uint8, when it is small enough; otherwise rows are read from disk.
    Order and augmentation of an epoch depend on (seed, epoch) alone, so a resumed training repeats exactly.
    """

    def __init__(self, images: ImageSet, batch: int, seed: int, device: torch.device, flip: bool, shift: int) -> None:
        self.images, self.batch, self.seed, self.device = images, batch, seed, device
        self.flip, self.shift = flip, shift
        self.labels = torch.from_numpy(images.labels).to(device)
        resident = images.pixels.nbytes <= _RESIDENT_LIMIT
        self.pixels = torch.tensor(images.pixels, device=device) if resident else None

    @property
    def steps(self) -> int:
        """Batches per epoch; a last batch of a single image is left out, since batch norm cannot use it."""
        full, rest = divmod(len(self.images), self.batch)
        return full + (rest >= 2)

    def epoch(self, number: int, *, plain: bool = False) -> Iterator[tuple[Tensor, Tensor, torch.Generator]]:
        """Images ``[B, C, H, W]`` in [0, 1], labels ``[B]``, and the epoch's generator; ``plain`` does not augment."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + number) % (1 << 63))
        order = torch.randperm(len(self.images), generator=generator)
        for rows in order.split(self.batch)[: self.steps]:
            on_device = rows.to(self.device)
            yield self._floats(rows, on_device, None if plain else generator), self.labels[on_device], generator

    def _floats(self, rows: Tensor, on_device: Tensor, generator: torch.Generator | None) -> Tensor:
        if self.pixels is not None:
            pixels = self.pixels[on_device]
        else:
            pixels = torch.from_numpy(self.images.pixels[rows.numpy()]).to(self.device)
        if generator is not None and (self.flip or self.shift):
            pixels = augment(pixels, self.flip, self.shift, generator)
        return to_float(pixels, self.device)


def augment(pixels: Tensor, flip: bool, shift: int, generator: torch.Generator) -> Tensor:
    """Mirror half of the images left to right and shift each by up to ``shift`` pixels, edges repeated.

    Args:
        pixels: ``[B, H, W, C]`` of any type, on any device.
        generator: on the CPU.
    """
    count, height, width, _ = pixels.shape
    rows = torch.arange(height).expand(count, height)
    columns = torch.arange(width).expand(count, width)
    if flip:
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, width - 1 - columns, columns)
    if shift:
        offsets = torch.randint(-shift, shift + 1, (2, count, 1), generator=generator)
        rows = (rows + offsets[0]).clamp(0, height - 1)
        columns = (columns + offsets[1]).clamp(0, width - 1)
    rows, columns = rows.to(pixels.device), columns.to(pixels.device)
    image = torch.arange(count, device=pixels.device)
    return pixels[image[:, None, None], rows[:, :, None], columns[:, None, :]]
