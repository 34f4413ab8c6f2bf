"""Fine-tuning with sharpness-aware minimisation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.methods import method
from doorward.repairs.parts.batch_norms import still_statistics
from doorward.repairs.parts.descent import DescentSettings, descend, gradients
from doorward.repairs.parts.tuning import back_off
from doorward.repairs.repaired import Repaired

Per = Literal["weight", "neuron"]


_MOST_RATE = 0.03
_MOVEMENT = 10.0  # rate times steps of the authors: 0.01, 100 epochs, 2,500 images in batches of 256


class FtSamSettings(DescentSettings):
    """Settings of fine-tuning with sharpness-aware minimisation.

    The authors' code: 100 epochs over 2,500 images in batches of 256, SGD at 0.01 falling along a cosine, decay 5e-4,
    labels smoothed by 0.1, rho 2 on CIFAR-10. With a few hundred images that rate left the backdoor of a digit net in.
    Unless ``lr`` is given, it is as large as lets rate times steps be what it is with their images, and at most 0.03.
    """

    epochs: int = Field(20, ge=1, description="passes over the clean images; the authors: 100")
    batch: int = Field(64, ge=2, description="images per step; the authors: 256")
    lr: float | None = Field(
        None,
        gt=0,
        description="of SGD at first, falling to 0 along a cosine; unless given 10 by the steps, at most 0.03",
    )
    weight_decay: float = Field(5e-4, ge=0, description="of SGD, on weights and not on biases and norms")
    rho: float = Field(2.0, ge=0, description="length of the ascent, relative to the size of the weights")
    per: Per = Field("weight", description="what an ascent is relative to: each weight's size, or its neuron's norm")
    smoothing: float = Field(0.1, ge=0, lt=1, description="of the labels")
    drop: float = Field(
        0.08, ge=0, le=1, description="of held-out accuracy; when more is lost it is tried again at a third of the rate"
    )

    def rate(self, images: int) -> float:
        """The learning rate for so many images."""
        steps = self.epochs * math.ceil(images / self.batch)
        return min(_MOST_RATE, _MOVEMENT / steps) if self.lr is None else self.lr


@method("repair", "ft-sam", settings=FtSamSettings, given={"classifier", "clean_images", "seed"})
def ft_sam(classifier: Classifier, clean_images: ImageSet, s: FtSamSettings, *, seed: int) -> Repaired:
    """Fine-tune with gradients taken where a small change of the weights does most harm; needs no triggers.

    FT-SAM, Zhu, Wei, Shen, Fan and Wu, ICCV 2023: min over weights w of max over e with |e / T| at most rho of the loss
    on clean images at w + e, where T is the size of the weights (adaptive sharpness, Kwon et al., ICML 2021), so that
    large weights, which backdoors are made of, are shaken most. The maximum is taken to first order: e = rho T^2 g
    / |T g| with the gradient g at w; the step from w goes along the gradient at w + e. T holds the sizes of single
    weights, as in the authors' code, or with ``per=neuron`` the norm of the weights that make one output.

    Deviations: Nesterov's momentum and no decay of biases and norms, as in ``fine-tune``, its control; dropout is off.
    Shaken that much, a small net can lose its accuracy: when more than ``drop`` is lost on (at most 1,000) held-out
    images (with ``held_out`` 0: on those that it works on), it is tried again at a third of the rate, four times in
    all. As in the authors' code running statistics of batch norms come from the first of the two passes alone.

    Args:
        classifier: left as it was.
        clean_images: images known to be clean, with their labels.
        seed: of the split and the order of images.

    Returns: the classifier; the record holds held-out accuracy as given and fine-tuned; ``details`` the rate used.

    Raises:
        DoorwardError: images that do not fit the classifier, too few of them, or weights that diverged.

    Fails when: the backdoor lies in a minimum as flat as the task's own, or the clean images are too few to restore
        what shaking the weights costs.
    """

    def attempt(repaired: Classifier, fitted: ImageSet, rate: float) -> None:
        def slope(images: Tensor, labels: Tensor) -> Sequence[Tensor | None]:
            def loss() -> Tensor:
                return functional.cross_entropy(repaired.logits(images), labels, label_smoothing=s.smoothing)

            return sharp_gradients(repaired.net, loss, s.rho, s.per)

        descend(repaired, fitted, s, slope, lambda done: rate * (1 + math.cos(math.pi * done)) / 2, seed=seed)

    done = f"fine-tuned for {s.epochs} epochs with sharpness-aware minimisation"
    return back_off(
        "ft-sam",
        classifier,
        clean_images,
        attempt,
        s.rate,
        held_out=s.held_out,
        seed=seed,
        done=done,
        price=s.drop,
    )


def climb(weights: Sequence[Tensor], slopes: Sequence[Tensor | None], rho: float, per: Per) -> list[Tensor]:
    """The change of the weights that raises the loss most, to first order, within ``rho`` of their size."""
    sizes = [_size(w, per) for w in weights]
    scaled = [torch.zeros_like(w) if g is None else t * g for w, t, g in zip(weights, sizes, slopes, strict=True)]
    norm = torch.stack([x.norm() for x in scaled]).norm()
    return [rho / (norm + 1e-12) * t * x for t, x in zip(sizes, scaled, strict=True)]


def _size(weight: Tensor, per: Per) -> Tensor:
    """T of one tensor, broadcast over it; biases and norms have one weight per neuron."""
    weight = weight.detach()
    if per == "weight" or weight.ndim < 2:
        return weight.abs()
    return weight.flatten(1).norm(dim=1).view(-1, *[1] * (weight.ndim - 1))


def sharp_gradients(net: nn.Module, loss: Callable[[], Tensor], rho: float, per: Per) -> Sequence[Tensor | None]:
    """Gradients of the loss at the worst weights near those of the net, which it leaves as they are."""
    weights = list(net.parameters())
    change = climb(weights, gradients(loss(), weights), rho, per)
    before = [w.detach().clone() for w in weights]
    with torch.no_grad():
        for weight, by in zip(weights, change, strict=True):
            weight.add_(by)
    with still_statistics(net):
        found = gradients(loss(), weights)
    with torch.no_grad():
        for weight, old in zip(weights, before, strict=True):
            weight.copy_(old)
    return found
