"""`TriggerDistribution`: all triggers that work, as an ensemble of generators."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from doorward.core.errors import DoorwardError, show
from doorward.core.opening import parse_json
from doorward.core.tensors import SMALL, read_described, reason, write_tensors
from doorward.core.triggers import Placement, Trigger, check_floats
from doorward.inversion.distribution.generators import LAYERS, generate
from doorward.inversion.search.stamping import corners, stamp_windows, windows

Tensors = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class TriggerDistribution:
    """Triggers of one class: a weighted ensemble of generators, one per level of the staircase.

    Args:
        net: stacked generators, settled; the first dimension of each tensor counts the levels.
        shape: channels, height, width of a trigger.
        levels: beta_i per generator.
        weights: probability of each generator, summing to 1.
        entropies: estimated entropy of each generator's triggers in nats, noise included.
        noise: standard deviation of the normal noise that was added to the triggers.
        success: measured success rate of each generator's samples.
        transparency: whether triggers have an alpha per pixel; without it they are opaque.

    It stamps like a `Trigger`: every image gets a trigger of its own at a place of its own.
    """

    net: Tensors
    shape: tuple[int, int, int]
    levels: tuple[float, ...]
    weights: tuple[float, ...]
    entropies: tuple[float, ...]
    noise: float = 0.1
    success: tuple[float, ...] = field(default=())
    transparency: bool = False

    def sample(self, count: int, generator: torch.Generator | None = None, *, level: int | None = None) -> Tensor:
        """Patterns ``[count, C, h, w]`` in [0, 1], without alphas; of one generator when ``level`` names it."""
        return self._drawn(count, generator, level)[0].permute(0, 3, 1, 2)

    def draw(
        self, count: int, generator: torch.Generator | None = None, *, level: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Triggers: patterns ``[count, C, h, w]`` and alphas ``[count, 1, h, w]``, both in [0, 1]; as `sample`."""
        patterns, alpha = self._drawn(count, generator, level)
        if alpha is None:
            alpha = torch.ones_like(patterns[..., :1])
        return patterns.permute(0, 3, 1, 2), alpha.permute(0, 3, 1, 2)

    @torch.no_grad()
    def _drawn(
        self, count: int, generator: torch.Generator | None, level: int | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Patterns ``[count, h, w, C]`` and alphas ``[count, h, w, 1]``, None when triggers are opaque."""
        generator = generator or torch.Generator()
        width = sum(self.net[f"g_{i}"].shape[1] for i in range(LAYERS)) - sum(
            self.net[f"g_{i}"].shape[2] for i in range(LAYERS - 1)
        )
        noise = torch.rand(1, count, width, generator=generator)
        chosen = torch.multinomial(torch.tensor(self.weights), count, replacement=True, generator=generator)
        if level is not None:
            chosen = torch.full((count,), level)
        every = generate(self.net, noise.expand(len(self.levels), -1, -1).to(self.net["g_0"]))
        points = every[chosen.to(every.device), torch.arange(count, device=every.device)].cpu()
        points = (points + self.noise * torch.randn(points.shape, generator=generator)).clamp(0, 1)
        patterns, alpha = windows(points[None], self.shape[0], self.shape[1:])
        return patterns[0], None if alpha is None else alpha[0]

    def only(self, level: int) -> TriggerDistribution:
        """The triggers of one generator, with the others left out."""
        if not 0 <= level < len(self.levels):
            raise DoorwardError(f"distribution: level {level}; expected one of 0..{len(self.levels) - 1}")
        part = slice(level, level + 1)
        net = {k: v[part] for k, v in self.net.items()}
        numbers = {k: getattr(self, k)[part] for k in ("levels", "entropies", "success")}
        return replace(self, net=net, weights=(1.0,), **numbers)

    def trigger(self, generator: torch.Generator | None = None) -> Trigger:
        """One trigger, placed at random."""
        pattern, alpha = self.draw(1, generator)
        return Trigger(pattern[0].contiguous(), alpha[0].contiguous(), Placement("random"))

    def apply(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Stamp ``[B, C, H, W]`` in [0, 1], each image with a fresh trigger at a random place."""
        generator = generator or torch.Generator()
        if images.shape[1] != self.shape[0]:
            raise DoorwardError(f"triggers of {self.shape[0]} channels on images of {images.shape[1]}")
        patterns, alpha = self._drawn(len(images), generator)
        size, whole = (self.shape[1], self.shape[2]), (images.shape[2], images.shape[3])
        top, left = (v.to(images.device) for v in corners(1, len(images), whole, size, generator))
        alphas = None if alpha is None else alpha[None].to(images)
        stamped = stamp_windows(images.permute(0, 2, 3, 1)[None], patterns[None].to(images), alphas, top, left)
        return stamped[0].permute(0, 3, 1, 2)

    def save(self, path: Path | str) -> None:
        """Write safetensors."""
        names = ("shape", "levels", "weights", "entropies", "noise", "success", "transparency")
        about = {k: getattr(self, k) for k in names}
        write_tensors(path, self.net, {"distribution": json.dumps(about)})

    @classmethod
    def load(cls, path: Path | str, *, inside: Path | str | None = None) -> TriggerDistribution:
        """Read a distribution that `save` wrote; ``inside``: a folder that the file must lie in, links resolved."""
        try:
            net, told = read_described(path, inside=inside, most=SMALL)
            for name, tensor in net.items():
                check_floats(tensor, name)
            about = parse_json(told["distribution"], "distribution")
            channels, height, width = (int(v) for v in about["shape"])
            numbers = {k: tuple(float(v) for v in about[k]) for k in ("levels", "weights", "entropies", "success")}
            alpha = bool(about.get("transparency", False))  # files of version 0 have none
            made = cls(net, (channels, height, width), noise=float(about["noise"]), transparency=alpha, **numbers)
            pattern, _ = made.draw(2)
            if tuple(pattern.shape) != (2, channels, height, width) or not bool(pattern.isfinite().all()):
                raise ValueError(f"triggers of {list(pattern.shape)} that are not of shape {about['shape']}, or NaN")
            return made
        except Exception as error:  # numbers of any shape, given to matrix products
            told_why = f"{show(path)}: not a trigger distribution ({reason(error, path)})"
            raise DoorwardError(f"{told_why}; expected one that doorward wrote") from None
