"""Any other learner: scikit-learn estimators, and torch nets with a training function of your own.

They train one model after another, so they are slow beside the batched learners; for soundness and for repeatable
votes everything random in them must come from the seed or the generator that they are handed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from doorward.certification.smoothing.task import NoisyBlock
from doorward.core.errors import DoorwardError
from doorward.core.methods import Settings, method

Predictor = Callable[[torch.Tensor], torch.Tensor]
TrainFunction = Callable[[torch.Tensor, torch.Tensor, torch.Generator], Predictor]


class NoSettings(Settings):
    """A learner whose settings are inside its own function."""


class Sklearn(Settings):
    """``estimator``: name of a scikit-learn classifier; ``params``: its constructor's arguments."""

    estimator: str = "LogisticRegression"
    params: dict[str, bool | int | float | str | None] = Field(default_factory=dict)


@method("certify", "sklearn", settings=Sklearn, given={"images", "labels", "noise"})
def sklearn(block: NoisyBlock, settings: Sklearn) -> NDArray[np.uint8]:
    """Predict with any scikit-learn classifier, trained afresh for every trial.

    A base learner for flip smoothing (Wang, Cao, Jia and Gong 2020).

    Fails when: training one model takes long; this path trains one after another.

    Returns: uint8 ``[B, m]``, predicted classes.
    Raises: DoorwardError for an unknown estimator or argument.
    """
    from sklearn.utils import all_estimators

    known = dict(all_estimators(type_filter="classifier"))
    if settings.estimator not in known:
        raise DoorwardError(
            f"certify sklearn: no classifier {settings.estimator!r}; expected one of {', '.join(known)}"
        )
    try:
        estimator = known[settings.estimator](**settings.params)
    except TypeError as error:
        raise DoorwardError(f"certify sklearn: {settings.estimator}: {error}; expected its own arguments") from None
    return EstimatorLearner(estimator)(block, NoSettings())


@dataclass(frozen=True)
class EstimatorLearner:
    """A scikit-learn estimator object as a learner: ``Learner(NAME, NoSettings(), EstimatorLearner(estimator))``.

    It is cloned for every trial and gets its random state from the trial's seed. A noisy training set of one class
    only predicts that class.
    """

    estimator: Any

    def __call__(self, block: NoisyBlock, settings: Settings) -> NDArray[np.uint8]:
        from sklearn.base import clone

        predicted = np.empty((len(block), len(block.task.tests)), dtype=np.uint8)
        for trial, seed in enumerate(block.user_seeds()):
            labels = block.labels[trial]
            if (labels == labels[0]).all():
                predicted[trial] = labels[0]
                continue
            model = clone(self.estimator)
            random = [name for name in model.get_params() if name.endswith("random_state")]
            model.set_params(**dict.fromkeys(random, seed % (1 << 32)))
            model.fit(block.pixels[trial].astype(np.float32), labels)
            predicted[trial] = model.predict(block.tests(trial).astype(np.float32))
        return predicted


@dataclass(frozen=True)
class TorchLearner:
    """A training function as a learner: ``Learner(NAME, NoSettings(), TorchLearner(train))``.

    ``train(images, labels, generator)`` gets float images ``[n, C, H, W]`` in 0..1, int64 labels ``[n]`` and a
    generator of the trial, and returns a function from images ``[m, C, H, W]`` to labels ``[m]`` or scores ``[m, K]``.
    Torch's global generator is seeded for the trial too, so that layers which draw from it repeat.
    """

    train: TrainFunction

    def __call__(self, block: NoisyBlock, settings: Settings) -> NDArray[np.uint8]:
        task, top = block.task, max(1, block.task.domain - 1)
        predicted = np.empty((len(block), len(task.tests)), dtype=np.uint8)

        def images(cells: NDArray[np.uint8]) -> torch.Tensor:
            return torch.from_numpy(cells).to(block.device, torch.float32).div_(top).unflatten(1, task.shape)

        for trial, seed in enumerate(block.user_seeds()):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                generator = torch.Generator().manual_seed(seed)
                labels = torch.from_numpy(block.labels[trial]).to(block.device)
                predictor = self.train(images(block.pixels[trial]), labels, generator)
                with torch.no_grad():
                    answer = predictor(images(block.tests(trial)))
            answer = answer.argmax(dim=1) if answer.ndim == 2 else answer
            predicted[trial] = _checked(answer, task.classes, len(task.tests))
        return predicted


def _checked(answer: torch.Tensor, classes: int, images: int) -> NDArray[np.uint8]:
    labels = answer.cpu().numpy()
    if labels.shape != (images,) or labels.min() < 0 or labels.max() >= classes:
        raise DoorwardError(
            f"certify: a training function's predictor gave {list(labels.shape)} labels from {labels.min()} to "
            f"{labels.max()}; expected [{images}] labels below {classes}"
        )
    return np.asarray(labels, dtype=np.uint8)
