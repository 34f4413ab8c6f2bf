"""Batches from a data set that lies on the device as uint8: gather, augment, to float."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from doorward.core.images import ImageSet
from doorward.core.pixels import to_float

_RESIDENT_LIMIT = 1 << 31  # bytes; larger sets stay on disk and are read batch by batch


class BatchSource:
    """Shuffled, augmented batches of an image set.

    The set lies on the device once, as uint8, when it is small enough; otherwise rows are read from disk.
    Order and augmentation of an epoch depend on (seed, epoch) alone, so a resumed training repeats exactly. Of several
    processes (``share`` is (number of this one, how many)) each has an equal part of every batch.
    """

    def __init__(
        self,
        images: ImageSet,
        batch: int,
        seed: int,
        device: torch.device,
        flip: bool,
        shift: int,
        crop: bool = False,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.images, self.batch, self.seed, self.device = images, batch, seed, device
        self.flip, self.shift, self.crop, self.share = flip, shift, crop, share
        self.labels = torch.from_numpy(images.labels).to(device)
        resident = images.pixels.nbytes <= _RESIDENT_LIMIT
        self.pixels = torch.tensor(images.pixels, device=device) if resident else None

    @property
    def steps(self) -> int:
        """Batches per epoch; a last batch of a single image is left out, since batch norm cannot use it."""
        full, rest = divmod(len(self.images), self.batch)
        return full + (rest >= 2 * self.share[1])

    def epoch(self, number: int, *, plain: bool = False) -> Iterator[tuple[Tensor, Tensor, torch.Generator]]:
        """Images ``[B, C, H, W]`` in [0, 1], labels ``[B]``, and the epoch's generator; ``plain`` does not augment."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + number) % (1 << 63))
        order = torch.randperm(len(self.images), generator=generator)
        part, parts = self.share
        if parts > 1:  # the order is everybody's, augmentation each one's own
            generator = torch.Generator().manual_seed(((self.seed * 1_000_003 + number) * parts + part) % (1 << 63))
        for batch in order.split(self.batch)[: self.steps]:
            rows = batch[part : len(batch) // parts * parts : parts]
            on_device = rows.to(self.device, non_blocking=True)
            yield self._floats(rows, on_device, None if plain else generator), self.labels[on_device], generator

    def _floats(self, rows: Tensor, on_device: Tensor, generator: torch.Generator | None) -> Tensor:
        if self.pixels is not None:
            pixels = self.pixels[on_device]
        else:
            pixels = torch.from_numpy(self.images.pixels[rows.numpy()]).to(self.device)
        if generator is not None and (self.flip or self.shift):
            pixels = augment(pixels, self.flip, self.shift, generator)
        images = to_float(pixels, self.device)
        return images if generator is None or not self.crop else crop_and_flip(images, generator)


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
    rows, columns = (v.to(pixels.device, non_blocking=True) for v in (rows, columns))
    image = torch.arange(count, device=pixels.device)
    return pixels[image[:, None, None], rows[:, :, None], columns[:, None, :]]


def crop_and_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """A random part of each image, resized to its size, half of them mirrored: the augmentation usual on ImageNet.

    Part of 8 to 100 % of the area, sides as 3 : 4 to 4 : 3 (Szegedy et al. 2015, section 6); bilinear.

    Args:
        images: float ``[B, C, H, W]``, on any device.
        generator: on the CPU.
    """
    count = len(images)
    area, place_y, place_x, mirror = torch.rand(4, count, generator=generator)
    ratio = (torch.rand(count, generator=generator) * 2 - 1) * torch.log(torch.tensor(4 / 3))
    side = (0.08 + 0.92 * area).sqrt()
    height, width = (side * torch.exp(-ratio / 2)).clamp(max=1), (side * torch.exp(ratio / 2)).clamp(max=1)
    sign = torch.where(mirror < 0.5, -1.0, 1.0)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 0, 2] = width * sign, (1 - width) * (2 * place_x - 1)
    theta[:, 1, 1], theta[:, 1, 2] = height, (1 - height) * (2 * place_y - 1)
    grid = functional.affine_grid(theta.to(images, non_blocking=True), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
