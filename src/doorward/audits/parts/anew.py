"""Nets like the suspect, trained from nothing: the suspect where none was given, and what is handed on."""

from __future__ import annotations

from dataclasses import dataclass

from doorward.audits.parts.kept import Kept
from doorward.audits.parts.suited import CONV4
from doorward.audits.parts.trainer import Trainer, make_trainer
from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.models.nets.catalogue import NETS
from doorward.models.open.architectures import Named
from doorward.models.train.loop import train

DEFAULT_NET = "small-cnn"


@dataclass(frozen=True)
class Anew:
    """Trains the architecture that was asked for, or small-cnn; conv4 where that is what learns the set."""

    trainer: Trainer
    net: Named | None

    def kept(self, kept: Kept, stage: str, name: str, images: ImageSet, seed: int) -> Classifier:
        """The same, as a step that an interrupted audit has left or makes now."""
        own = self.net if self.net not in NETS else None
        return kept.net(stage, name, lambda: self.train(images, seed), self.trainer.device, own)

    def train(self, images: ImageSet, seed: int) -> Classifier:
        """A net that knows these images."""
        trainer, device = self.trainer, self.trainer.device
        net = self.net or (CONV4 if trainer.net == CONV4 else DEFAULT_NET)
        if net not in (DEFAULT_NET, trainer.net):
            return train(images, net, seed=seed, device=device)
        if net != trainer.net == CONV4:  # its rate is no other's
            trainer = make_trainer(images, None, device)
        return train(images, net, trainer.longer().settings, seed=seed, device=device)


def nets_like(model: Classifier | None, net: Named | None, trainer: Trainer) -> Anew | None:
    """How nets like the suspect are trained; None where a model was given that is no small one of ours.

    How long, and with which settings, a net of the user's own has to be trained is not known.
    """
    if model is None:
        return Anew(trainer, net)
    return Anew(trainer, model.arch) if model.arch in (DEFAULT_NET, trainer.net) else None
