"""What an inversion looks at: the frozen net and the clean images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from doorward.inversion.search.frozen import Frozen


@dataclass(frozen=True, eq=False)
class Scene:
    """Clean images on the device.

    Args:
        model: the frozen classifier.
        pixels: in [0, 1], ``[N, H, W, C]``.
        labels: int64 ``[N]``; the classifier's own decisions when the images came without labels.
        candidates: the classes to invert; all of them unless a pre-screen chose.
    """

    model: Frozen
    pixels: Tensor
    labels: Tensor
    candidates: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.candidates:
            object.__setattr__(self, "candidates", tuple(range(self.model.classes)))

    @property
    def normalised(self) -> Tensor:
        """The images as the net sees them."""
        return self.model.normalise(self.pixels)

    def draw(self, lanes: int, batch: int, generator: torch.Generator) -> Tensor:
        """Positions of one batch, the same for all lanes, ``[lanes, batch]``."""
        rows = torch.randint(len(self.pixels), (batch,), generator=generator, device=generator.device)
        return rows.expand(lanes, batch)
