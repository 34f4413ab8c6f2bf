"""Settings of a training, and the two recipes of the CIFAR-10 experiments."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from doorward.core.methods import Settings


class TrainSettings(Settings):
    """Everything that decides a training besides the images, the net and the seed.

    ``adam`` decouples its weight decay from the gradient (AdamW); ``adam-l2`` adds ``weight_decay`` times the weights
    to the gradient, as a penalty of half that in the loss does (Keras: ``l2(1e-4)`` is a weight decay of 2e-4).
    ``one-cycle``: linear from 0 to ``lr`` over the first ``warmup`` share of all steps, then linear to 0.
    ``step``: ``lr`` times ``step_factors[i]`` from epoch ``step_epochs[i]`` on.
    """

    epochs: int = Field(10, ge=1, description="times that every image is seen")
    batch: int = Field(128, ge=2, description="images per step")
    optimiser: Literal["sgd", "adam", "adam-l2"] = Field(
        "sgd", description="sgd with Nesterov momentum, adam (AdamW), or adam-l2 (weight decay in the gradient)"
    )
    lr: float = Field(0.1, gt=0, description="largest learning rate")
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd")
    weight_decay: float = Field(5e-4, ge=0, description="of weights; biases and norms have none")
    schedule: Literal["one-cycle", "step", "constant"] = Field(
        "one-cycle", description="of the learning rate: up and down in a line, in steps, or constant"
    )
    warmup: float = Field(0.25, ge=0, lt=1, description="share of one-cycle in which the rate rises")
    step_epochs: tuple[int, ...] = Field((), description="epochs from which the rates of step hold")
    step_factors: tuple[float, ...] = Field((), description="of lr, one for each of step_epochs")
    flip: bool = Field(False, description="mirror half of the images")
    shift: int = Field(0, ge=0, description="largest shift in pixels, each direction, edges repeated")
    plain_epochs: int = Field(0, ge=0, description="last epochs, in which images are neither flipped nor shifted")
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="of the arithmetic; auto: bf16 where the hardware has it"
    )

    def rate(self, step: int, steps: int) -> float:
        """Learning rate at step ``step`` of ``steps``."""
        if self.schedule == "one-cycle":
            rise = max(1, round(self.warmup * steps))
            return self.lr * ((step + 1) / rise if step < rise else (steps - step) / (steps - rise + 1))
        factor = 1.0
        if self.schedule == "step":
            epoch = step * self.epochs // steps
            for start, value in zip(self.step_epochs, self.step_factors, strict=True):
                factor = value if epoch >= start else factor
        return self.lr * factor


def default_recipe(net: object, *, given_weights: bool = False) -> dict[str, Any]:
    """Settings of ``doorward train`` where none are given: a rate at which nets of many kinds and sizes learn.

    The residual nets learn best from SGD at 0.1, the default of `TrainSettings`; at that rate other nets stay at chance
    on larger images (small-cnn on photographs of 96 x 96), while AdamW trains them all.
    """
    if net in ("resnet20", "resnet18") and not given_weights:
        return {}
    small = net in ("small-cnn", "pooled-cnn", "conv4", "two-layer", "deepid")
    rate = 3e-4 if given_weights else 2e-3 if small else 1e-3
    return {"optimiser": "adam", "lr": rate, "weight_decay": 0.01}
