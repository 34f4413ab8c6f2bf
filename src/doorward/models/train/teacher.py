"""A teacher: what a net that is trained on should go on answering."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from doorward.core.classifier import Classifier

_TEMPERATURE = 2.0  # of Li and Hoiem 2016


@dataclass(frozen=True, eq=False)
class Teacher:
    """A classifier whose answers on the plain images, as yet unstamped, are part of the loss of another one.

    Distillation (Hinton, Vinyals and Dean 2015), from the net as it was (Li and Hoiem, ECCV 2016, learning without
    forgetting): the divergence of the two nets' softened answers. A few hundred images say little of what a net knows;
    its own answers on them say more than their labels.

    Args:
        classifier: put in evaluation mode; another copy than the one that is trained.
        weight: share of the loss, 0 to 1; the rest is cross-entropy with the labels.

    Fails when: the teacher is wrong on the plain images, or sees a trigger on them: its mistakes are taught too.
    """

    classifier: Classifier
    weight: float

    def __post_init__(self) -> None:
        self.classifier.net.eval()

    def mixed(self, loss: Tensor, logits: Tensor, plain: Tensor) -> Tensor:
        """The loss, of these logits ``[B, K]``, with its share for the teacher's answers on ``[B, C, H, W]``."""
        with torch.no_grad():
            wanted = functional.softmax(self.classifier.logits(plain).float() / _TEMPERATURE, 1)
        given = functional.log_softmax(logits.float() / _TEMPERATURE, 1)
        apart = functional.kl_div(given, wanted, reduction="batchmean") * _TEMPERATURE**2
        return (1 - self.weight) * loss + self.weight * apart
