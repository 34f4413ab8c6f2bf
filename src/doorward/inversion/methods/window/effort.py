"""Step 1 of the moving window: how small a trigger every class comes to with the same effort."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from doorward.inversion.search.loop import Lanes, LoopSettings, Objective, Tensors, Watch, optimise
from doorward.inversion.search.pictures import enlarged, squash
from doorward.inversion.search.scene import Scene
from doorward.inversion.search.scores import scored
from doorward.inversion.search.stamping import blend_whole

_FIRST_ALPHA = -1.0  # of the free numbers: about 12 % opaque everywhere


class EffortSettings(LoopSettings):
    """Settings of the equal-effort look at all classes."""

    steps: int = Field(20, ge=2, description="of every class: as many for each, so that sizes compare")
    batch: int = Field(6, ge=1, description="images per class and step")
    halve_from: int = Field(1 << 30, ge=2, description="never by default: sizes of all classes are compared")
    search: Literal["image", "window"] = Field(
        "image", description="alpha over the whole image, or in a window at a random place each step"
    )
    window: int = Field(15, ge=1, description="side of the window in pixels")
    grain: int = Field(
        4, ge=1, description="cells of alpha and pattern, in pixels: what is worn is coarse, adversarial noise is fine"
    )
    success: float = Field(0.8, gt=0, le=1, description="share of images that a trigger must send to the class")
    share: float = Field(
        0.2, gt=0, le=1, description="at first an opaque trigger over this share of the image costs log K"
    )
    factor: float = Field(1.3, gt=1, description="the price's growth while the trigger works; falls by its cube root")
    lr: float = Field(0.2, gt=0, description="learning rate of Adam on alpha and pattern")


class EffortObjective(Objective):
    """Cross-entropy to the class plus the price of alpha's mass, the price set per class by its success."""

    def __init__(self, scene: Scene, s: EffortSettings) -> None:
        _, self.height, self.width = scene.model.shape
        self.scene, self.s, self.images = scene, s, scene.normalised

    def draw(self, lanes: Lanes, batch: int, generator: torch.Generator) -> Tensors:
        """The images of the step and the place of the window, the same for all classes."""
        drawn = {"rows": self.scene.draw(len(lanes), batch, generator)}
        if self.s.search == "window":
            for key, room in (("top", self.height - self.s.window), ("left", self.width - self.s.window)):
                place = torch.randint(room + 1, (1,), generator=generator, device=generator.device)
                drawn[key] = place.expand(len(lanes))
        return drawn

    def loss(self, lanes: Lanes, drawn: Tensors) -> tuple[Tensor, Tensors]:
        """Loss per lane; tells size and success. Images of the class itself do not count."""
        side = (self.s.window,) * 2 if self.s.search == "window" else (self.height, self.width)
        alpha, pattern = (enlarged(squash(lanes.trained[k]), side) for k in ("alpha", "pattern"))
        rows = drawn["rows"][0]
        size = alpha.sum((1, 2, 3))
        if self.s.search == "window":
            top, left = int(drawn["top"][0]), int(drawn["left"][0])
            around = (0, 0, left, self.width - self.s.window - left, top, self.height - self.s.window - top)
            alpha, pattern = functional.pad(alpha, around), functional.pad(pattern, around)
        stamped = blend_whole(self.images[rows][None], alpha, self.scene.model.normalise(pattern))
        logits = self.scene.model.logits(stamped)
        each, hits, counts = scored(self.scene, logits, lanes.held["label"], rows)
        trials = counts.sum(1).clamp(min=1)
        told = {"size": size.detach(), "hits": hits.sum(1) / trials}
        return (each * counts).sum(1) / trials + lanes.held["price"] * size, told

    def optimiser(self, trained: list[Tensor]) -> torch.optim.Optimizer:
        """Adam as the mask inversion has it."""
        return torch.optim.Adam(trained, lr=self.s.lr, betas=(0.5, 0.9))

    def note(self, lanes: Lanes, told: Tensors, step: int) -> None:
        """Keep the smallest size that worked; raise the price while the trigger works, lower it while it does not."""
        held, s = lanes.held, self.s
        held["success"].lerp_(told["hits"], 1.0 if step == 0 else 0.5)
        works = held["success"] >= s.success
        held["size"].copy_(told["size"])
        held["best"] = torch.where(works, torch.minimum(held["best"], told["size"]), held["best"])
        held["price"] = torch.where(works, held["price"] * s.factor, held["price"] / s.factor ** (1 / 3))


def equal_effort(scene: Scene, s: EffortSettings, *, seed: int, watch: Watch | None = None) -> Lanes:
    """Alpha and pattern of every class after the same number of steps from the same start.

    Returns: lanes in the order of ``scene.candidates``, with ``held["best"]``: smallest L1 norm of alpha that works,
        in pixels; infinity for a class that nothing works for.

    No class is dropped before its size is taken: of a class that is, nothing but a bound would be known, and the
    verdict would have to compare survivors with survivors. The price must follow success: at a fixed one a class that
    is not worth it gives up, and its small alpha would look like a backdoor's.
    """
    channels, height, width = scene.model.shape
    h, w = ((v + s.grain - 1) // s.grain for v in ((s.window, s.window) if s.search == "window" else (height, width)))
    classes, device = len(scene.candidates), scene.pixels.device
    trained = {
        "alpha": torch.full((classes, h, w, 1), _FIRST_ALPHA, device=device),
        "pattern": torch.zeros(classes, h, w, channels, device=device),
    }
    zeros = torch.zeros(classes, device=device)
    held = {"label": torch.tensor(scene.candidates, device=device), "best": zeros + torch.inf}
    held |= {"price": zeros + math.log(scene.model.classes) / (s.share * height * width)}
    held |= {k: zeros.clone() for k in ("size", "success")}
    return optimise(EffortObjective(scene, s), Lanes(trained, held), s, seed=seed, watch=watch)
