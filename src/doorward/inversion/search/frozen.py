"""`Frozen`: a classifier that only its input can move."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from doorward.core.classifier import Classifier, place_net
from doorward.core.errors import DoorwardError
from doorward.models.folding import fold_batch_norm
from doorward.models.train.loop import autocast


class Frozen:
    """A classifier's net in evaluation mode, its weights without gradients, batch norm folded into convolutions.

    Args:
        classifier: left as it was; the net is copied.
        precision: ``auto`` computes in bf16 where the hardware has it, ``fp32`` never does.

    Images are kept normalised and channels last, ``[..., H, W, C]``: blending is linear, so that normalising the
    images once and the small pattern in every step equals normalising every stamped image.
    """

    def __init__(self, classifier: Classifier, precision: str = "auto") -> None:
        self.shape, self.classes = classifier.shape, len(classifier.classes)
        self.device, self.precision = classifier.device, precision
        net = copy.deepcopy(classifier.net).eval().requires_grad_(False)
        check_finite(net, classifier.arch)
        self.mean = torch.tensor(classifier.mean, device=self.device).expand(self.shape[0]).clone()
        self.std = torch.tensor(classifier.std, device=self.device).expand(self.shape[0]).clone()
        probe = self.normalise(
            torch.rand(2, *self.shape[1:], self.shape[0], generator=torch.Generator().manual_seed(0))
        )
        self.net = place_net(fold_batch_norm(net, probe.permute(0, 3, 1, 2).contiguous()), self.device)
        self._check_outputs(probe, classifier.arch)

    def normalise(self, pixels: Tensor) -> Tensor:
        """(x - mean) / std of ``[..., C]`` in [0, 1]."""
        return (pixels.to(self.mean) - self.mean) / self.std

    def logits(self, images: Tensor) -> Tensor:
        """Logits ``[..., K]`` in float32 of normalised images ``[..., H, W, C]``."""
        flat = images.flatten(0, -4).permute(0, 3, 1, 2)  # channels last in memory, without a copy
        with autocast(self.device, self.precision):
            found = self.net(flat)
        return found.float().view(*images.shape[:-3], self.classes)  # type: ignore[no-any-return]

    def _check_outputs(self, probe: Tensor, name: str) -> None:
        try:
            with torch.no_grad():
                found = self.net(probe.permute(0, 3, 1, 2))
        except RuntimeError as error:
            size = "x".join(map(str, self.shape))
            line = str(error).splitlines()[0]
            raise DoorwardError(f"{name}: does not take images of {size} ({line}); expected a net that does") from None
        if not isinstance(found, Tensor) or found.shape != (2, self.classes):
            shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise DoorwardError(f"{name}: gives {shape} for two images; expected logits [2, {self.classes}]")
        if not bool(found.isfinite().all()):
            raise DoorwardError(f"{name}: its logits hold NaN or infinity; expected finite logits")


def check_finite(net: nn.Module, name: str) -> None:
    """Refuse weights that hold NaN or infinity."""
    for key, tensor in net.state_dict().items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise DoorwardError(f"{name}: tensor {key!r} holds NaN or infinity; expected finite weights")
