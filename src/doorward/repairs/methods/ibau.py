"""Adversarial unlearning: a universal perturbation instead of triggers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain, islice

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from doorward.core.classifier import Classifier, measure_accuracy
from doorward.core.images import ImageSet
from doorward.core.methods import method
from doorward.models.train.batches import BatchSource
from doorward.repairs.parts.batch_norms import batch_statistics, estimate_statistics
from doorward.repairs.parts.hypergradient import Loss, hypergradient
from doorward.repairs.parts.tuning import (
    BACK_OFF,
    HeldOutSettings,
    check_finite,
    divide,
    finite,
    knows,
    sample,
    step,
    trainable_copy,
)
from doorward.repairs.repaired import Repaired

_TRIES = 3  # each at a third of the rate before
_PRICE = 0.04  # of accuracy on held-out clean images; when more is lost it is tried again
_NORMED = 200  # images in a batch from which batch-norm statistics are estimated

Batch = tuple[Tensor, Tensor, torch.Generator]


class IbauSettings(HeldOutSettings):
    """Settings of adversarial unlearning.

    The authors' code: 5 rounds over 5,000 images, batches of 100, one pass of ascent at a rate of 10 without
    projection (the paper: l2 norm at most 10), 1 % of a batch perturbed, Adam at 0.001, 5 fixed-point steps at 0.1.
    With a few hundred images that comes to a dozen small steps, which take little out. Here rounds are more and
    shorter, ascent goes along normalised gradients (free of the loss's scale), and more of each batch is perturbed;
    with a fifth of it in place of a tenth, a ResNet-20 lost 5.2 points of accuracy in place of 3.1.
    """

    rounds: int = Field(10, ge=1, description="of attack and unlearning; the authors: 5")
    batch: int = Field(50, ge=2, description="the authors: 100")
    batches: int = Field(12, ge=1, description="at most so many are unlearned per round")
    bound: float = Field(
        0.15, gt=0, description="root mean square of the perturbation; the paper's l2 of 10 on 3x32x32 images is 0.18"
    )
    ascents: int = Field(10, ge=1, description="of the perturbation per round, one batch each")
    ascent: float = Field(0.2, gt=0, description="length of one ascent, as a share of the bound")
    decay: float = Field(1e-3, ge=0, description="times the squared l2 norm of the perturbation, taken off its loss")
    share: float = Field(0.1, gt=0, le=1, description="of an unlearned batch that is perturbed; the authors: 0.01")
    lr: float = Field(2e-3, gt=0, description="of Adam on the weights, falling linearly; the authors: 0.001, constant")
    steps: int = Field(3, ge=0, description="fixed-point steps of the implicit differentiation; the authors: 5")
    rate: float = Field(0.1, gt=0, description="of these steps")


@method("repair", "ibau", settings=IbauSettings, given={"classifier", "clean_images", "seed"})
def ibau(classifier: Classifier, clean_images: ImageSet, s: IbauSettings, *, seed: int) -> Repaired:
    """Unlearn the worst universal perturbation, round by round; needs no triggers.

    I-BAU, Zeng, Chen, Park, Mao, Jin and Jia, ICLR 2022, Algorithm 1: min over weights of max over perturbations of
    l2 norm at most C of the mean loss on perturbed clean images with true labels. Each round finds the perturbation
    by projected gradient ascent and descends on the weights along the hypergradient, which takes into account how
    the perturbation answers to the weights. Perturbed images are not clipped. While weights move, batch norms use the
    statistics of their batch; after every round the running ones are estimated from clean images. When the net is right
    on 4 points fewer than as given of (at most 1,000) held-out clean images (with ``held_out`` 0: of those that it
    works on), or on 8 fewer halfway, it is tried again at a third of the rate, three times in all.

    Args:
        classifier: left as it was.
        clean_images: images known to be clean, with their labels.
        seed: of the split, the order of images and which of them are perturbed.

    Returns: the classifier; ``details`` hold, per round, the perturbation's l2 norm and the loss under it, and the
        rate that was used.

    Raises:
        DoorwardError: images that do not fit the classifier, too few of them, or weights that diverged.

    Fails when: no single perturbation added to all images works as the trigger does (triggers that move or warp).
    """
    fitted, held = divide("ibau", classifier, clean_images, s.held_out, seed)
    given = step("as given", classifier, held)
    asked = sample(held or fitted, seed)  # images that it works on are soon known by heart
    knew = measure_accuracy(classifier, asked).value
    for number in range(_TRIES):
        rate, last = s.lr / BACK_OFF**number, number == _TRIES - 1
        repaired, rounds = trainable_copy(classifier), list[tuple[float, float]]()
        for outcome in _rounds(repaired, fitted, s, rate, seed):
            rounds.append(outcome)
            if not last and len(rounds) == s.rounds // 2 and not knows(repaired, asked, knew, 2 * _PRICE):
                break  # the second half does not give so much back
        kept = knows(repaired, asked, knew, _PRICE)
        if kept:
            break
    check_finite("ibau", repaired, rate)
    after = step(f"{s.rounds} rounds of adversarial unlearning", repaired, held)
    details: dict[str, object] = {
        "fitted_images": len(fitted),
        "lr": rate,
        "perturbation_norms": [norm for norm, _ in rounds],
        "perturbed_loss": [loss for _, loss in rounds],
    }
    lost = f"more than {100 * _PRICE:g} points of accuracy were lost at"
    told = f"{lost} a rate of {s.lr:g}; {rate:.2g} was used" if number else ""
    if not kept:
        told = f"{lost} all rates from {s.lr:g} down to {rate:.2g}"
    return Repaired(repaired, (given, after), details, (told,) if told else ())


def _rounds(
    repaired: Classifier, fitted: ImageSet, s: IbauSettings, rate: float, seed: int
) -> Iterator[tuple[float, float]]:
    """Attack and unlearn in turn, in place; yields the perturbation's norm and the loss under it, by round.

    Ends early when weights diverge.
    """
    source = BatchSource(fitted, min(s.batch, len(fitted)), seed, repaired.device, False, 0)
    some = sample(fitted, seed)
    clean = BatchSource(some, min(_NORMED, len(some)), seed, repaired.device, False, 0)
    optimiser = torch.optim.Adam(repaired.net.parameters(), lr=rate)
    for number in range(s.rounds):
        first = number * (s.ascents + 1)  # no epoch of the source is used twice
        for group in optimiser.param_groups:
            group["lr"] = rate * (1 - number / s.rounds)  # the last rounds give accuracy back
        perturbation, loss = _attack(repaired, _batches(source, first, s.ascents), s)
        with batch_statistics(repaired.net):
            _unlearn(repaired, islice(source.epoch(first + s.ascents), s.batches), perturbation, optimiser, s)
        if not finite(repaired):
            return
        estimate_statistics(repaired, clean)
        yield float(perturbation.norm()), loss


def _batches(source: BatchSource, first: int, count: int) -> Iterator[Batch]:
    """So many batches, of as many epochs as it takes."""
    return islice(chain.from_iterable(source.epoch(first + k) for k in range(count)), count)


def project(perturbation: Tensor, radius: float) -> Tensor:
    """The nearest point of the l2 ball of that radius around zero."""
    return perturbation * min(1.0, radius / max(float(perturbation.norm()), 1e-12))


def _attack(classifier: Classifier, batches: Iterator[Batch], s: IbauSettings) -> tuple[Tensor, float]:
    """A perturbation ``[1, C, H, W]`` that raises the loss, by projected ascent; the last batch's loss under it."""
    radius = s.bound * math.sqrt(math.prod(classifier.shape))
    perturbation, loss = torch.zeros(1, *classifier.shape, device=classifier.device), torch.zeros(())
    for images, labels, _ in batches:
        perturbation.requires_grad_(True)
        loss = _descent(classifier, images, labels, s.decay)(perturbation)
        slope = torch.autograd.grad(loss, perturbation)[0]
        length = s.ascent * radius / slope.norm().clamp(min=1e-12)
        perturbation = project(perturbation.detach() - length * slope, radius)
    return perturbation, s.decay * float(perturbation.square().sum()) - float(loss.detach())


def _descent(classifier: Classifier, images: Tensor, labels: Tensor, decay: float) -> Loss:
    """What the perturbation minimises: minus the loss on perturbed images, plus the penalty of its norm."""

    def loss(perturbation: Tensor) -> Tensor:
        return decay * perturbation.square().sum() - functional.cross_entropy(
            classifier.logits(images + perturbation), labels
        )

    return loss


def _unlearn(
    classifier: Classifier,
    batches: Iterator[Batch],
    perturbation: Tensor,
    optimiser: torch.optim.Optimizer,
    s: IbauSettings,
) -> None:
    """Descend on the weights along the hypergradient, batch by batch."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for images, labels, generator in batches:
        mask = (torch.rand(len(images), 1, 1, 1, generator=generator) < s.share).to(images)

        def outer(at: Tensor, images: Tensor = images, labels: Tensor = labels, mask: Tensor = mask) -> Tensor:
            return functional.cross_entropy(classifier.logits(images + mask * at), labels)

        inner = _descent(classifier, images, labels, s.decay)
        gradients = hypergradient(inner, outer, perturbation, parameters, steps=s.steps, rate=s.rate)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimiser.step()
