"""`Around`: the family of triggers around a found one, since the one that was found is not the attacker's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from doorward.core.errors import DoorwardError
from doorward.core.triggers import Placement, Stamp, Trigger
from doorward.inversion.distribution.triggers import TriggerDistribution

_CORE = 0.2  # of the largest alpha: from here on a pixel belongs to the trigger
_SMALL = 0.35  # of the image: a trigger whose box is larger is not grown
_SIDE = 32  # pixels of an image's side for which growth and shift are as they are told
_OPAQUE = 0.7  # chance of full opacity
_LOUDEST = 2.5  # most that an additive picture is multiplied with
_NOISE = 0.4  # standard deviation around the found pattern
_RECTANGLE, _PART, _, _FOUND = range(4)  # shapes
_PATTERN, _NOISY, _COLOUR, _SPECKS, _PLAIN, _CONFETTI = range(6)  # contents; the last one in the wider family alone


@dataclass(frozen=True, eq=False)
class Around:
    """A stamp that is a distribution around a found trigger, at its place; every image gets a draw of its own.

    Source: Qiao, Yang and Li (NeurIPS 2019) show that the trigger which an inversion finds is one of many that work:
    retraining with it leaves the others, so they retrain with a distribution of high entropy. Here the distribution
    is not learnt. It is drawn around what was found, for a mask of few pixels lies inside the attacker's trigger.

    The core are the pixels whose alpha is at least a fifth of the largest. An image gets one shape: a rectangle around
    the core's bounding box, every side moved out by 0 to ``grow`` pixels; the core dilated by as many; a random
    sub-set of that; the found alpha itself, somewhat fainter or stronger. And one content: the found pattern, the same
    with noise, one random colour, black and white noise, black or white. Opacity is 1 with chance 0.7, else 0.4 to 1.
    A box of more than 35 % of the image is not grown. An additive picture is multiplied with 0 to 2.5.

    Args:
        trigger: the found one; of a trigger that roams, and of a distribution, every image gets another place.
        grow: most pixels that a shape grows, for images of at most 32 pixels a side; more on larger ones.
        shift: most pixels that the place moves, likewise.
        wider: also contents that the family of a repair does not have, to measure with: colour noise.

    Fails when: the attacker's trigger lies apart from the found one, is larger than the box and ``grow`` pixels more,
    or changes the image in another way than by stamping (a warp).
    """

    trigger: Trigger | TriggerDistribution
    grow: int = 3
    shift: int = 0
    wider: bool = False

    def apply(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Stamp ``[B, C, H, W]`` in [0, 1]; ``generator`` (on the CPU) decides everything that is random."""
        seed = int(torch.randint(2**62, (1,), generator=generator))
        own = torch.Generator(images.device).manual_seed(seed)  # large draws are made where the images lie
        pattern, alpha, inside = self._placed(images, generator)
        if isinstance(self.trigger, Trigger) and self.trigger.blend == "add":
            scale = _LOUDEST * torch.rand(len(images), 1, 1, 1, generator=own, device=images.device)
            return (images + scale * inside * pattern).clamp(0, 1)
        drawn = _Draws(len(images), own, images.device)
        kind = drawn.whole(_CONFETTI + 1 if self.wider else _CONFETTI)
        form = drawn.whole(_FOUND + 1)
        content = _content(pattern, kind, drawn)
        core = alpha >= _CORE * alpha.amax((1, 2, 3), keepdim=True)
        opacity = torch.where(drawn.share() < _OPAQUE, 1.0, 0.4 + 0.6 * drawn.share())
        moves = isinstance(self.trigger, TriggerDistribution) or self.trigger.placement.kind != "fixed" or self.shift
        mask = opacity * _shape(core, form, self.grow * _unit(images), drawn, same=not moves)
        as_found = (form == _FOUND) & (kind <= _NOISY)
        mask = torch.where(as_found, (alpha * (0.6 + 0.9 * drawn.share())).clamp(0, 1), mask)
        return (1 - mask) * images + mask * content

    def _placed(self, images: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        """Pattern, alpha and the trigger's window on whole images, ``[B, C or 1, H, W]``; the pattern goes on outside.

        Raises:
            DoorwardError: a trigger that does not fit the images.
        """
        count, channels, height, width = images.shape
        if isinstance(self.trigger, Trigger):
            placement, pattern, alpha = self.trigger.placement, self.trigger.pattern[None], self.trigger.alpha[None]
        else:
            placement = Placement("random")
            pattern, alpha = self.trigger.draw(count, generator)
        if pattern.shape[1] != channels:
            raise DoorwardError(f"trigger of {pattern.shape[1]} channels on images of {channels}")
        h, w = pattern.shape[2:]
        rows, columns = placement.corners(count, (height, width), (h, w), generator)
        reach = self.shift * _unit(images)
        if reach:
            rows, columns = (
                v + torch.randint(-reach, reach + 1, (count,), generator=generator) for v in (rows, columns)
            )
        down, across = (
            torch.arange(side, device=images.device) - first.to(images.device)[:, None]
            for side, first in ((height, rows), (width, columns))
        )
        inside = ((down >= 0) & (down < h))[:, None, :, None] & ((across >= 0) & (across < w))[:, None, None, :]
        which = torch.arange(count, device=images.device)[:, None, None]
        where = (which, slice(None), down.clamp(0, h - 1)[:, :, None], across.clamp(0, w - 1)[:, None, :])
        pattern, alpha = (v.to(images).expand(count, -1, -1, -1)[where].permute(0, 3, 1, 2) for v in (pattern, alpha))
        return pattern, alpha.amax(1, keepdim=True) * inside, inside


class _Draws:
    """What is drawn for a batch, one number per image, ``[B, 1, 1, 1]``."""

    def __init__(self, count: int, generator: torch.Generator, device: torch.device) -> None:
        self.count, self.generator, self.device = count, generator, device

    def share(self, *size: int) -> Tensor:
        """Uniform in [0, 1); ``size``: channels, height, width in place of one number."""
        return torch.rand(self.count, *(size or (1, 1, 1)), generator=self.generator, device=self.device)

    def whole(self, kinds: int) -> Tensor:
        """One of 0 .. kinds - 1."""
        return torch.randint(kinds, (self.count, 1, 1, 1), generator=self.generator, device=self.device)

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal."""
        return torch.randn(like.shape, generator=self.generator, device=self.device)


def _shape(core: Tensor, form: Tensor, grow: int, drawn: _Draws, *, same: bool) -> Tensor:
    """Where an image is stamped, 0 or 1, ``[B, 1, H, W]``.

    Args:
        core: the trigger's own pixels.
        same: whether they are the same ones for all images, which are then grown once.
    """
    height, width = core.shape[2:]
    rows, columns = core.any(3)[:, 0], core.any(2)[:, 0]
    (top, bottom), (left, right) = _ends(rows), _ends(columns)
    small = ((bottom - top) * (right - left) <= _SMALL * height * width)[:, None, None, None]
    most = drawn.whole(grow + 1) * small  # pixels
    grown, wider = core, core[:1] if same else core
    for size in range(1, grow + 1):
        wider = _dilated(wider)
        grown = torch.where(most >= size, wider, grown)
    sides = [(drawn.share() * (most + 1)).floor()[:, 0, 0] for _ in range(4)]  # 0 .. most, each its own
    y, x = torch.arange(height, device=core.device), torch.arange(width, device=core.device)
    across = (x >= left[:, None] - sides[0]) & (x < right[:, None] + sides[1])
    down = (y >= top[:, None] - sides[2]) & (y < bottom[:, None] + sides[3])
    rectangle = down[:, None, :, None] & across[:, None, None, :]
    part = grown & (drawn.share(1, height, width) < 0.3 + 0.7 * drawn.share())
    shape = torch.where((form == _RECTANGLE) & small, rectangle, torch.where(form == _PART, part, grown))
    return shape.float()


def _dilated(core: Tensor) -> Tensor:
    """Every pixel at most one row and one column from one of the core."""
    return functional.max_pool2d(core.float(), 3, 1, 1) > 0


def _ends(any_of: Tensor) -> tuple[Tensor, Tensor]:
    """First true position and the one after the last, ``[B]`` each, of ``[B, N]``."""
    return any_of.int().argmax(1), any_of.shape[1] - any_of.flip(1).int().argmax(1)


def _content(pattern: Tensor, kind: Tensor, drawn: _Draws) -> Tensor:
    """What is stamped, ``[B, C, H, W]``."""
    channels, height, width = pattern.shape[1:]
    noisy = (pattern + _NOISE * drawn.normal(pattern)).clamp(0, 1)
    specks = (drawn.share(1, height, width) < 0.5).float()
    content = torch.where(kind == _NOISY, noisy, pattern)
    content = torch.where(kind == _COLOUR, drawn.share(channels, 1, 1), content)
    content = torch.where(kind == _SPECKS, specks, content)
    content = torch.where(kind == _PLAIN, drawn.whole(2).float(), content)
    return torch.where(kind == _CONFETTI, drawn.share(channels, height, width), content)


def _unit(images: Tensor) -> int:
    """Pixels of these images that one pixel of a small image stands for."""
    return max(1, round(max(images.shape[2:]) / _SIDE))


def around(stamps: Sequence[Stamp], *, grow: int = 3, shift: int = 0, wider: bool = False) -> list[Stamp]:
    """The families around found triggers; a stamp that is no found trigger (a warp) stays what it is."""
    return [
        Around(stamp, grow, shift, wider) if isinstance(stamp, Trigger | TriggerDistribution) else stamp
        for stamp in stamps
    ]
