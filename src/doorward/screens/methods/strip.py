"""STRIP: a stamped image keeps its class under whatever is laid over it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.methods import Settings, method
from doorward.core.pixels import to_float
from doorward.screens.base import BATCH, Floats, Pixels, Screen


class StripSettings(Settings):
    """Settings of STRIP."""

    overlays: int = Field(32, ge=1, description="clean images laid over every image; the authors take 100")
    weight: float = Field(0.5, gt=0, lt=1, description="of the overlay; the image has the rest")


@dataclass(frozen=True, eq=False)
class Strip(Screen):
    """Minus the mean entropy of the decisions under superposition.

    Gao et al. 2019, "STRIP: a defence against trojan attacks on deep neural networks", equations 3 and 4. Deviation:
    image and overlay are averaged by ``weight`` rather than added and clipped, so that bright images do not saturate.
    """

    name: ClassVar[str] = "strip"
    overlays: Pixels
    weight: float = 0.5

    @torch.inference_mode()
    def scores(self, pixels: Pixels) -> Floats:
        """Minus the mean Shannon entropy in bits, ``[N]``; at most 0."""
        device = self.classifier.device
        over = self.weight * to_float(self.overlays, device)
        together, found = max(1, BATCH // len(over)), []
        self.classifier.net.eval()
        for start in range(0, len(pixels), together):
            under = (1 - self.weight) * to_float(pixels[start : start + together], device)
            mixed = (under[:, None] + over[None]).flatten(0, 1)
            surprise = self.classifier.logits(mixed).log_softmax(1).double()
            entropy = -(surprise.exp() * surprise).sum(1).view(len(under), len(over)) / np.log(2)
            found.append(-entropy.mean(1))
        return torch.cat(found).cpu().numpy() if found else np.zeros(0)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Overlays and weight."""
        return {"overlays": self.overlays, "weight": np.array([self.weight])}

    @classmethod
    def restore(cls, classifier: Classifier, threshold: float, arrays: dict[str, NDArray[np.generic]]) -> Strip:
        """From what `arrays` gave."""
        return cls(classifier, threshold, arrays["overlays"].astype(np.uint8), float(arrays["weight"][0].item()))


@method("screen", "strip", settings=StripSettings, given={"model", "making"})
def strip(model: Classifier, making: ImageSet, s: StripSettings) -> Strip:
    """A stamped image keeps its class under whatever is laid over it: the entropy of the decisions is low.

    Gao et al. 2019, "STRIP: a defence against trojan attacks on deep neural networks", equations 3 and 4; deviations
    stand at `Strip`.

    Args:
        model: the classifier under suspicion, for images ``[C, H, W]``.
        making: clean images that are laid over others; the first ``overlays`` of them.

    Fails when: the trigger does not survive a superposition (faint or moving ones, warps), or works from few source
        classes; clean images are decided with certainty under any overlay.
    """
    return Strip(model, -np.inf, np.asarray(making.pixels[: s.overlays]), s.weight)
