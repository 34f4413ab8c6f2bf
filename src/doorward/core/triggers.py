"""`Trigger`: what an attacker stamps on an image, where, and how it blends in."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from doorward.core.errors import DoorwardError, show
from doorward.core.files import atomic_write
from doorward.core.opening import parse_json
from doorward.core.tensors import SMALL, read_described, reason, write_tensors

Blend = Literal["alpha", "add"]
_LARGEST = 2.0  # of a number in a file: a picture that is added may be given twice
_FARTHEST = 2**16  # pixels from the corner


class Stamp(Protocol):
    """Anything that turns clean images into triggered ones: a `Trigger`, a warp, a generator's samples."""

    def apply(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Stamp ``[B, C, H, W]`` images in [0, 1]; the input is left as it was."""
        ...


@dataclass(frozen=True)
class Placement:
    """Where a trigger's top left corner may lie.

    ``fixed``: at (top, left). ``random``: anywhere in the image, drawn per image. ``window``: drawn per image
    so that the whole trigger lies inside rows top..bottom-1 and columns left..right-1.
    """

    kind: Literal["fixed", "random", "window"] = "fixed"
    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0

    def corners(
        self, count: int, image: tuple[int, int], size: tuple[int, int], generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Rows and columns ``[count]`` of the top left corners, every allowed position equally likely."""
        (height, width), (h, w) = image, size
        if self.kind == "fixed":
            low, high = (self.top, self.left), (self.top, self.left)
        elif self.kind == "random":
            low, high = (0, 0), (height - h, width - w)
        else:
            low, high = (self.top, self.left), (self.bottom - h, self.right - w)
        if min(low) < 0 or high[0] < low[0] or high[1] < low[1] or high[0] + h > height or high[1] + w > width:
            where = "" if self.kind == "random" else f" at row {self.top}, column {self.left}"
            told = f"trigger of {h} x {w} pixels{where}: does not fit into an image of {height} x {width}"
            raise DoorwardError(f"{told}; expected images of the size that it was made for")
        rows, columns = (torch.randint(a, b + 1, (count,), generator=generator) for a, b in zip(low, high, strict=True))
        return rows, columns


@dataclass(frozen=True, eq=False)
class Trigger:
    """A pattern with its transparency, its place and its blend rule.

    Args:
        pattern: float ``[C, h, w]``; in [0, 1] for ``alpha``, in [-1, 1] for ``add``.
        alpha: float ``[1 or C, h, w]`` in [0, 1]; 1 is opaque. Ignored by ``add``.
        placement: where it goes.
        blend: ``alpha``: x' = (1 - alpha) x + alpha t (Qiao, Yang and Li, HackML slides);
            ``add``: x' = clip(x + t), rounded to the 8-bit grid (Xiang, Miller and Kesidis 2019).

    `apply` is differentiable in pattern and alpha. The rounding of ``add`` passes gradients straight through.
    """

    pattern: Tensor
    alpha: Tensor
    placement: Placement = Placement()
    blend: Blend = "alpha"

    def __post_init__(self) -> None:
        if self.pattern.ndim != 3 or self.alpha.ndim != 3 or self.alpha.shape[1:] != self.pattern.shape[1:]:
            raise DoorwardError(
                f"trigger: pattern {list(self.pattern.shape)} and alpha {list(self.alpha.shape)}; "
                "expected [C, h, w] and [1 or C, h, w]"
            )
        if self.alpha.shape[0] not in (1, self.pattern.shape[0]):
            raise DoorwardError(
                f"trigger: alpha of {self.alpha.shape[0]} channels; expected 1 or {self.pattern.shape[0]}"
            )

    def __repr__(self) -> str:
        (h, w), p = self.size, self.placement
        where = {
            "fixed": f"at row {p.top}, column {p.left}",
            "random": "anywhere",
            "window": f"within rows {p.top} to {p.bottom - 1}, columns {p.left} to {p.right - 1}",
        }
        channels = len(self.pattern)
        faint = f", alpha up to {float(self.alpha.max()):.3g}" if self.blend == "alpha" else ""
        return f"Trigger {channels}x{h}x{w}, blend {self.blend}{faint}, {where[p.kind]}"

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return int(self.pattern.shape[1]), int(self.pattern.shape[2])

    def apply(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Stamp every image of ``[B, C, H, W]`` in [0, 1]; places are drawn from ``generator`` (on the CPU)."""
        count, channels, height, width = images.shape
        if channels != self.pattern.shape[0]:
            raise DoorwardError(f"trigger of {self.pattern.shape[0]} channels on images of {channels}")
        h, w = self.size
        rows, columns = self.placement.corners(count, (height, width), self.size, generator)
        pattern, alpha = self.pattern.to(images), self.alpha.to(images)
        if self.placement.kind == "fixed":
            top, left = self.placement.top, self.placement.left
            stamped = images.clone()
            window = images[:, :, top : top + h, left : left + w]
            stamped[:, :, top : top + h, left : left + w] = self._blend(window, pattern, alpha)
            return stamped
        image_index = torch.arange(count)[:, None, None]
        row_index = rows[:, None, None] + torch.arange(h)[None, :, None]
        column_index = columns[:, None, None] + torch.arange(w)[None, None, :]
        where = (image_index.to(images.device), row_index.to(images.device), column_index.to(images.device))
        channels_last = images.permute(0, 2, 3, 1)
        window = channels_last[where].permute(0, 3, 1, 2)
        blended = self._blend(window, pattern, alpha).permute(0, 2, 3, 1)
        return channels_last.index_put(where, blended).permute(0, 3, 1, 2)

    def _blend(self, window: Tensor, pattern: Tensor, alpha: Tensor) -> Tensor:
        if self.blend == "alpha":
            return (1 - alpha) * window + alpha * pattern
        summed = (window + pattern).clamp(0, 1)
        return summed + ((summed * 255).round() / 255 - summed).detach()

    def save(self, path: Path | str) -> None:
        """Write safetensors at ``path`` and, for people, an RGBA picture beside it (``.png``)."""
        from PIL import Image

        about = {"blend": self.blend, "placement": json.dumps(vars(self.placement))}
        tensors = {
            "pattern": self.pattern.detach().cpu().contiguous(),
            "alpha": self.alpha.detach().cpu().contiguous(),
        }
        write_tensors(path, tensors, about)
        shown = tensors["pattern"] if self.blend == "alpha" else tensors["pattern"] / 2 + 0.5
        opacity = tensors["alpha"].mean(0, keepdim=True) if self.blend == "alpha" else torch.ones(1, *self.size)
        rgba = torch.cat([shown.expand(3, -1, -1), opacity]).clamp(0, 1).mul(255).round().byte()
        picture = Image.fromarray(rgba.permute(1, 2, 0).numpy(), "RGBA")
        atomic_write(Path(path).with_suffix(".png"), lambda temporary: picture.save(temporary, format="PNG"))

    @classmethod
    def load(cls, path: Path | str, *, inside: Path | str | None = None) -> Trigger:
        """Read a trigger that `save` wrote.

        Args:
            inside: a folder that the file must lie in, links resolved.

        Raises:
            DoorwardError: another file, or one whose numbers, place or blend rule are no trigger's.
        """
        try:
            tensors, about = read_described(path, inside=inside, most=SMALL)
            for name in ("pattern", "alpha"):
                check_floats(tensors[name], name, _LARGEST)
            pattern, alpha, place = tensors["pattern"].float(), tensors["alpha"].float(), _placement(about["placement"])
            return cls(pattern, alpha, place, _blend(about["blend"]))
        except (DoorwardError, KeyError, ValueError, TypeError) as error:
            raise DoorwardError(
                f"{show(path)}: not a trigger file ({reason(error, path)}); expected safetensors with pattern and alpha"
            ) from None


def _blend(text: str) -> Blend:
    if text == "alpha":
        return "alpha"
    if text == "add":
        return "add"
    raise ValueError(f"blend {text[:80]!r}")


def _placement(text: str) -> Placement:
    made = Placement(**parse_json(text, "placement"))
    numbers = (made.top, made.left, made.bottom, made.right)
    if made.kind not in ("fixed", "random", "window") or not all(
        type(n) is int and 0 <= n <= _FARTHEST for n in numbers
    ):
        raise ValueError(f"placement {text[:200]}")
    return made


def check_floats(tensor: Tensor, name: str, most: float = float("inf")) -> None:
    """Refuse a tensor of a file that holds no numbers, whole ones, NaN, or numbers beyond ``most``.

    Raises:
        ValueError: what it holds.
    """
    if not tensor.is_floating_point() or not tensor.numel():
        raise ValueError(f"{name} {list(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}")
    if not bool(tensor.float().isfinite().all()) or float(tensor.abs().max()) > most:
        raise ValueError(f"{name} with NaN, infinity{'' if most == float('inf') else f', or beyond {most:g}'}")


def trigger_file(label: int) -> str:
    """Where a class's trigger lies in the run's folder."""
    return f"triggers/{label}.safetensors"
