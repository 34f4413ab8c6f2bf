"""Neural attention distillation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.methods import method
from doorward.repairs.parts.attention import Places, attention, find_places, watching
from doorward.repairs.parts.descent import DescentSettings, descend, gradients
from doorward.repairs.parts.tuning import back_off
from doorward.repairs.repaired import Repaired

_FALLS = 5  # times that the rate falls to a tenth, the last one at the end


class NadSettings(DescentSettings):
    """Settings of neural attention distillation.

    The authors: teacher and student each 10 epochs over 2,500 images in batches of 64, SGD at 0.1, divided by 10 after
    every second epoch, decay 1e-4, the teacher's images augmented. Their code's betas reach from 500 to 5,000.
    """

    epochs: int = Field(10, ge=1, description="passes over the clean images, of the teacher and again of the student")
    batch: int = Field(64, ge=2, description="images per step")
    lr: float = Field(0.1, gt=0, description="at first; a tenth after every fifth of the epochs")
    weight_decay: float = Field(1e-4, ge=0, description="of SGD, on weights and not on biases and norms")
    betas: tuple[float, ...] = Field(
        (500.0, 1000.0, 1000.0), description="weights of the attention of the last layers, the highest last"
    )
    power: float = Field(2.0, gt=0, description="of the activations that are summed to attention")


@method("repair", "nad", settings=NadSettings, given={"classifier", "clean_images", "seed"})
def nad(classifier: Classifier, clean_images: ImageSet, s: NadSettings, *, seed: int) -> Repaired:
    """Distil the attention of a fine-tuned copy into the classifier while it is fine-tuned; needs no triggers.

    Neural attention distillation, Li, Lyu, Koren, Lyu, Li and Ma, ICLR 2021: the teacher is the net fine-tuned on the
    clean images; the student, the net as given, learns the labels and the teacher's attention, sum over channels of
    |activation|^2 as a map over positions of unit length. Its loss is cross-entropy plus, per layer, beta times the
    mean squared difference of the two maps, as in the authors' code (the paper: their distance).

    Layers are found: the last convolution of every picture size, where the authors take the ends of the residual
    groups. In a transformer it is what enters the last layer norm that reads tokens. Betas belong to the last layers;
    lower ones without a beta are left out. Dropout is off, momentum is Nesterov's, biases and norms do not decay,
    images are augmented only when asked for. When teacher or student forgets its classes its rate is lowered as in
    ``fine-tune``.

    Args:
        classifier: left as it was.
        clean_images: images known to be clean, with their labels.
        seed: of the split and the order of images, the same for both.

    Returns: the student; the record holds held-out accuracy as given, of the teacher, and of the student; ``details``
        name the layers.

    Raises:
        DoorwardError: images that do not fit the classifier, too few of them, weights that diverged, or a net without
            convolutions and tokens, which has no map over positions.

    Fails when: fine-tuning leaves the backdoor in the teacher, whose attention then teaches it.
    """
    places = find_places(classifier)
    betas = dict(zip(reversed(places.names), reversed(s.betas), strict=False))
    places = replace(places, names=tuple(name for name in places.names if name in betas))

    def train(repaired: Classifier, fitted: ImageSet, rate: float, teacher: Classifier | None) -> None:
        def slope(images: Tensor, labels: Tensor) -> Sequence[Tensor | None]:
            loss = _loss(repaired, teacher, images, labels, places, betas, s.power)
            return gradients(loss, list(repaired.net.parameters()))

        descend(repaired, fitted, s, slope, lambda done: rate / 10 ** int(_FALLS * done), seed=seed)

    def teach(repaired: Classifier, fitted: ImageSet, rate: float) -> None:
        train(repaired, fitted, rate, None)

    def learn(repaired: Classifier, fitted: ImageSet, rate: float) -> None:
        train(repaired, fitted, rate, trained.classifier)

    def fit(attempt: Callable[[Classifier, ImageSet, float], None], done: str) -> Repaired:
        held = s.held_out
        return back_off("nad", classifier, clean_images, attempt, lambda _: s.lr, held_out=held, seed=seed, done=done)

    trained = fit(teach, f"teacher: fine-tuned for {s.epochs} epochs")
    repaired = fit(learn, f"student: attention of {len(places.names)} layers distilled for {s.epochs} epochs")
    details = {**repaired.details, "layers": list(places.names), "teacher_lr": trained.details["lr"]}
    told = tuple(f"teacher: {text}" for text in trained.warnings)
    return replace(
        repaired, steps=(*trained.steps, *repaired.steps[1:]), details=details, warnings=(*told, *repaired.warnings)
    )


def distillation(
    student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], betas: Mapping[str, float], tokens: bool, power: float
) -> Tensor:
    """Sum over layers of beta times the mean squared difference of the two nets' attention, from their features."""
    losses = [
        beta * functional.mse_loss(attention(student[name], tokens, power), attention(teacher[name], tokens, power))
        for name, beta in betas.items()
    ]
    return torch.stack(losses).sum()


def _loss(
    repaired: Classifier,
    teacher: Classifier | None,
    images: Tensor,
    labels: Tensor,
    places: Places,
    betas: Mapping[str, float],
    power: float,
) -> Tensor:
    """Cross-entropy, and with a teacher the distance of its attention."""
    if teacher is None:
        return functional.cross_entropy(repaired.logits(images), labels)
    with torch.no_grad(), watching(teacher.net, places) as wanted:
        teacher.logits(images)
    with watching(repaired.net, places) as found:
        loss = functional.cross_entropy(repaired.logits(images), labels)
    return loss + distillation(found, wanted, betas, places.tokens, power)
