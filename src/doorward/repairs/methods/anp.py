"""Adversarial neuron pruning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain, count, islice

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from doorward.core.classifier import Classifier, measure_accuracy
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.methods import method
from doorward.core.outputs import find_head, logits_of
from doorward.models.train.batches import BatchSource
from doorward.repairs.parts.batch_norms import batch_norms, batch_statistics, still_statistics
from doorward.repairs.parts.tuning import HeldOutSettings, divide, knows, sample, step, trainable_copy
from doorward.repairs.repaired import Repaired

Layers = dict[str, nn.Module]
Noise = Sequence[tuple[Tensor, Tensor]]  # per layer, of weights and of biases, each ``[neurons]``
Loss = Callable[[Mapping[str, Tensor]], Tensor]


class AnpSettings(HeldOutSettings):
    """Settings of adversarial neuron pruning.

    The authors' code: eps 0.4, one step of ascent, alpha 0.2, 2,000 iterations of SGD at 0.2 with momentum 0.9, batches
    of 128 of 500 images; of the thresholds from 0 to 0.9 a good one is chosen afterwards, usually about 0.2.
    """

    eps: float = Field(0.4, ge=0, description="bound of the perturbation, as a share of a neuron's weights and bias")
    steps: int = Field(1, ge=1, description="of ascent per iteration, each of eps by their number")
    alpha: float = Field(0.2, ge=0, le=1, description="weight of the loss without perturbation; the rest is under it")
    iterations: int = Field(500, ge=1, description="steps of the masks; the authors: 2,000")
    batch: int = Field(64, ge=2, description="images per iteration; the authors: 128")
    lr: float = Field(0.2, gt=0, description="of SGD on the masks")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD on the masks")
    threshold: float = Field(0.2, ge=0, le=1, description="neurons whose mask is at or below it are pruned")
    number: int | None = Field(None, ge=0, description="prune so many of the lowest masks, in place of the threshold")
    drop: float = Field(0.04, ge=0, le=1, description="fewer are pruned when held-out accuracy falls by more than this")


@method("repair", "anp", settings=AnpSettings, given={"classifier", "clean_images", "seed"})
def anp(classifier: Classifier, clean_images: ImageSet, s: AnpSettings, *, seed: int) -> Repaired:
    """Prune the neurons that do most harm when their weights are perturbed; needs no triggers.

    Adversarial neuron pruning, Wu and Wang, NeurIPS 2021: with neurons' weights scaled by m + d and biases by 1 + x,
    masks m in [0, 1] minimise alpha L(m) + (1 - alpha) max over d, x in [-eps, eps] of L(m + d, 1 + x), L the
    cross-entropy on clean images; the maximum by signed ascent from a random start. Neurons of low mask are pruned:
    their weights, not their biases, become 0; no weight is trained. As in the authors' code neurons are the channels of
    batch norms, which use the statistics of their batch meanwhile. A net without them has the outputs of its
    convolutions and linear layers for neurons, but for the logits.

    Deviations: the perturbation is projected on its bound (the code's random start can leave it by eps), batches are
    those of shuffled passes, dropout is off. When more than ``drop`` of the accuracy on (at most 1,000) held-out clean
    images is lost (with ``held_out`` 0: of those that it works on), fewer neurons are pruned, found by halving.

    Args:
        classifier: left as it was.
        clean_images: images known to be clean, with their labels.
        seed: of the split, the order of images and the perturbations' start.

    Returns: the classifier; ``details`` hold the masks by layer and how many neurons were pruned. Held-out images also
        decide how many.

    Raises:
        DoorwardError: images that do not fit the classifier, too few of them, or a net of a single layer.

    Fails when: the backdoor's neurons serve clean images too, so that their masks stay high or pruning them costs the
        accuracy.
    """
    fitted, held = divide("anp", classifier, clean_images, s.held_out, seed)
    if len(fitted) < 2:
        raise DoorwardError(f"repair anp: {len(fitted)} clean image to work on; expected at least 2")
    repaired = trainable_copy(classifier)
    layers = find_layers(repaired)
    given, asked = step("as given", classifier, held), sample(held or fitted, seed)
    masks = _learn(repaired, layers, fitted, s, seed)
    order = torch.cat(masks).argsort(stable=True)
    below = int((torch.cat(masks) <= s.threshold).sum()) if s.number is None else min(s.number, len(order))
    knew, weights = measure_accuracy(repaired, asked).value, [_weight(m).detach().clone() for m in layers.values()]

    def keeps(number: int) -> bool:
        _prune(layers, weights, order[:number])
        return knows(repaired, asked, knew, s.drop)

    pruned = most(below, keeps)
    _prune(layers, weights, order[:pruned])
    after = step(f"{pruned} of {len(order)} neurons pruned", repaired, held)
    kept = {name: [round(float(v), 4) for v in mask] for name, mask in zip(layers, masks, strict=True)}
    details: dict[str, object] = {"fitted_images": len(fitted), "pruned": pruned, "below": below, "masks": kept}
    told: tuple[str, ...] = ()
    if not below:
        told = (f"no neuron's mask fell to {s.threshold:g}, so none is pruned",)
    elif pruned < below:
        told = (
            f"{pruned} of {below} neurons of low mask were pruned; all cost over {100 * s.drop:g} points of accuracy",
        )
    return Repaired(repaired, (given, after), details, told)


def find_layers(classifier: Classifier) -> Layers:
    """The batch norms; of a net without them convolutions and linear layers, but for the one that makes the logits."""
    norms = {id(m) for m in batch_norms(classifier.net) if m.affine}
    head = find_head(classifier.net, len(classifier.classes))
    found = dict[str, nn.Module]()
    for name, module in classifier.net.named_modules():
        plain = isinstance(module, nn.Conv2d | nn.Linear) and name != head
        if id(module) in norms or (not norms and plain):
            found[name] = module
    if not found:
        raise DoorwardError(f"repair anp: {classifier.arch} has a single layer; expected neurons below the logits")
    return found


def perturbed(layers: Layers, masks: Sequence[Tensor], noise: Noise | None = None) -> dict[str, Tensor]:
    """Weights times m + d and biases times 1 + x, by name."""
    found: dict[str, Tensor] = {}
    for number, (name, layer) in enumerate(layers.items()):
        weight, bias, scale = _weight(layer).detach(), layer.bias, masks[number]
        if noise is not None:
            scale = scale + noise[number][0]
            if isinstance(bias, Tensor):
                found[f"{name}.bias"] = bias.detach() * (1 + noise[number][1])
        found[f"{name}.weight"] = weight * scale.view(-1, *[1] * (weight.ndim - 1))
    return found


def attack(layers: Layers, masks: Sequence[Tensor], loss: Loss, s: AnpSettings, generator: torch.Generator) -> Noise:
    """A perturbation within eps that raises the loss, by signed ascent."""
    flat = [
        (2 * torch.rand(len(m), generator=generator) - 1).to(m) * s.eps for m in masks for _ in range(2)
    ]  # of weights and biases in turn
    for _ in range(s.steps):
        for one in flat:
            one.requires_grad_(True)
        slopes = torch.autograd.grad(loss(perturbed(layers, masks, _pairs(flat))), flat, allow_unused=True)
        moved = zip(flat, slopes, strict=True)
        flat = [(x if g is None else x + s.eps / s.steps * g.sign()).detach().clamp(-s.eps, s.eps) for x, g in moved]
    return _pairs(flat)


def _pairs(flat: Sequence[Tensor]) -> Noise:
    return list(zip(flat[::2], flat[1::2], strict=True))


def mask_slopes(layers: Layers, masks: Sequence[Tensor], noise: Noise, loss: Loss, alpha: float) -> Sequence[Tensor]:
    """Gradient of alpha L(m) + (1 - alpha) L(m + d, 1 + x) with respect to the masks."""
    at = [m.detach().requires_grad_(True) for m in masks]
    total = alpha * loss(perturbed(layers, at)) + (1 - alpha) * loss(perturbed(layers, at, noise))
    return torch.autograd.grad(total, at)


def _learn(repaired: Classifier, layers: Layers, images: ImageSet, s: AnpSettings, seed: int) -> list[Tensor]:
    """The masks, one per layer, on the CPU."""
    masks = [torch.ones(len(_weight(m)), device=repaired.device) for m in layers.values()]
    optimiser = torch.optim.SGD(masks, lr=s.lr, momentum=s.momentum)
    source = BatchSource(images, min(s.batch, len(images)), seed, repaired.device, False, 0)
    batches = chain.from_iterable(source.epoch(number) for number in count())
    with batch_statistics(repaired.net), still_statistics(repaired.net):
        for batch, labels, generator in islice(batches, s.iterations):

            def loss(values: Mapping[str, Tensor], batch: Tensor = batch, labels: Tensor = labels) -> Tensor:
                logits = logits_of(functional_call(repaired.net, dict(values), (repaired.normalise(batch),)))
                return functional.cross_entropy(logits, labels)

            noise = attack(layers, masks, loss, s, generator)
            for mask, slope in zip(masks, mask_slopes(layers, masks, noise, loss, s.alpha), strict=True):
                mask.grad = slope
            optimiser.step()
            for mask in masks:
                mask.clamp_(0, 1)
    return [m.cpu() for m in masks]


def most(number: int, keeps: Callable[[int], bool]) -> int:
    """All of them where that is kept, else the most that halving finds; none always is."""
    if not number or keeps(number):
        return number
    low, high = 0, number
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if keeps(middle) else (low, middle)
    return low


def _weight(layer: nn.Module) -> Tensor:
    assert isinstance(layer.weight, Tensor)
    return layer.weight


@torch.no_grad()
def _prune(layers: Layers, weights: Sequence[Tensor], rows: Tensor) -> None:
    """Set the weights of the layers to these, but of these neurons, counted through all layers, to 0."""
    keep = torch.ones(sum(len(w) for w in weights))
    keep[rows] = 0
    for layer, weight, kept in zip(layers.values(), weights, keep.split([len(w) for w in weights]), strict=True):
        _weight(layer).copy_(weight * kept.to(weight).view(-1, *[1] * (weight.ndim - 1)))
