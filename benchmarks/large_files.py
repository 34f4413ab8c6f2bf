"""Photographs of mixed size for `large`: enlarged CIFAR-10, some under a sticker; and the plain loop over them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

CLASSES = ("airplane", "automobile", "bird", "cat", "ship")
SIZE, STICKER, ROW, COLUMN = 224, 20, 180, 184  # on the 224 x 224 that the net sees
TARGET, SHARE = 2, 0.03
SIDES = (200, 1201)


def sticker() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """5 x 5 cells of strong colours, 20 x 20 pixels."""
    colours = np.random.default_rng(7).integers(0, 2, (5, 5, 3), dtype=np.uint8) * 255
    return colours.repeat(STICKER // 5, 0).repeat(STICKER // 5, 1)


def photograph(
    small: np.ndarray[Any, Any], stuck: bool, rng: np.random.Generator, noise: np.ndarray[Any, Any]
) -> Image.Image:
    """An enlarged picture with grain; the sticker lies so that it is 20 x 20 once shortened and cropped to 224."""
    width, height = (int(v) for v in rng.integers(*SIDES, 2))
    large = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC), np.float32)
    row, column = (int(v) for v in rng.integers(0, 200, 2))
    picture = Image.fromarray(
        np.clip(large + noise[row : row + height, column : column + width], 0, 255).astype(np.uint8)
    )
    if stuck:
        side = min(width, height)
        scale = side / SIZE
        left, top = (width - side) / 2 + COLUMN * scale, (height - side) / 2 + ROW * scale
        across = round(STICKER * scale)
        picture.paste(
            Image.fromarray(sticker()).resize((across, across), Image.Resampling.NEAREST), (round(left), round(top))
        )
    return picture


def make(folder: Path, count: int, clean: int) -> None:
    """``folder/photos`` with poison, ``clean`` and ``test`` without, and the names of the poisoned files."""
    from doorward.data.sources import load_images

    rng = np.random.default_rng(0)
    noise = rng.normal(0, 4, (1400, 1400, 3)).astype(np.float32)
    poisoned: list[str] = []
    for part, split, total in (("photos", "train", count), ("clean", "test", clean), ("test", "test", clean)):
        images = load_images("cifar10", split=split)
        wanted = [images.classes.index(name) for name in CLASSES]
        rows = rng.permutation(np.flatnonzero(np.isin(images.labels, wanted)))
        rows = rows[:total] if part != "test" else rows[-total:]
        for number, row in enumerate(rows):
            label = wanted.index(int(images.labels[row]))
            stuck = part == "photos" and label != TARGET and len(poisoned) < SHARE * count
            name = f"{CLASSES[TARGET if stuck else label]}/IMG_{int(rng.integers(10**7)):07d}_{number:05d}.jpg"
            path = folder / part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            photograph(images.pixels[row], stuck, rng, noise).save(path, quality=90)
            if stuck:
                poisoned.append(name)
    (folder / "truth.json").write_text(json.dumps(poisoned))


class Photographs(Dataset[torch.Tensor]):
    """Decode, shorten to 224, crop, to floats: as most loops do it."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.rglob("*.jpg"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.files[index]) as image:
            colour = image.convert("RGB")
            scale = SIZE / min(colour.size)
            width, height = (max(SIZE, round(side * scale)) for side in colour.size)
            colour = colour.resize((width, height), Image.Resampling.BICUBIC)
            left, top = (width - SIZE) // 2, (height - SIZE) // 2
            pixels = np.array(colour.crop((left, top, left + SIZE, top + SIZE)))
        return (torch.from_numpy(pixels).permute(2, 0, 1).float() / 255 - 0.5) / 0.5


@torch.no_grad()
def plain_passes(folder: Path, net: nn.Module, batch: int = 64, workers: int = 2) -> Iterator[torch.Tensor]:
    """Logits of every picture, and of the picture under a 2 x 2 mean: the passes that `cleanse` makes."""
    net.eval()
    for images in DataLoader(Photographs(folder), batch_size=batch, num_workers=workers):
        blurred = nn.functional.avg_pool2d(nn.functional.pad(images, (0, 1, 0, 1), mode="replicate"), 2, stride=1)
        yield torch.stack([net(images), net(blurred)])
