"""Anomaly detection of attacks: features say one source class, the decision says another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import log_softmax

from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.methods import Settings, method
from doorward.core.pixels import to_float
from doorward.screens.base import BATCH, Floats, Pixels, Screen


class AdaSettings(Settings):
    """Settings of anomaly detection of attacks."""

    dimensions: int = Field(16, ge=1, description="principal components of the features that are modelled")


@dataclass(frozen=True, eq=False)
class Ada(Screen):
    """Kullback-Leibler divergence of what features say about the class from what the classifier says about it.

    Miller, Wang and Kesidis 2019, "Anomaly detection of attacks (ADA) on DNN classifiers at test time": an attacked
    image is too unlike the class that it is decided as (its destination) and too like another one (its source).
    Densities of a deep layer for every class under the null are fitted to clean images; P is the posterior of these
    densities, Q that of the classifier; the statistic is D(P || Q). Densities are of the logarithm of the features,
    which are not negative after a ReLU. Deviations: the penultimate layer alone, not the largest of several; one normal
    density per class with a covariance that all share, for few images a class, rather than mixtures; over all classes
    with clean images, without the weights by confusion matrix and by weights of the net.
    """

    name: ClassVar[str] = "ada"
    shift: Floats
    axes: Floats
    means: Floats
    labels: NDArray[np.int64]

    def scores(self, pixels: Pixels) -> Floats:
        """D(P || Q) in nats, ``[N]``."""
        features, logits = features_and_logits(self.classifier, pixels)
        points = (log_features(features) - self.shift) @ self.axes  # white: within a class the covariance is 1
        density = -0.5 * ((points[:, None] - self.means[None]) ** 2).sum(axis=2)
        first, second = log_softmax(density, axis=1), log_softmax(logits, axis=1)[:, self.labels]
        return np.asarray((np.exp(first) * (first - second)).sum(axis=1))

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """The density model."""
        return {"shift": self.shift, "axes": self.axes, "means": self.means, "labels": self.labels}

    @classmethod
    def restore(cls, classifier: Classifier, threshold: float, arrays: dict[str, NDArray[np.generic]]) -> Ada:
        """From what `arrays` gave."""
        shift, axes, means = (arrays[k].astype(np.float64) for k in ("shift", "axes", "means"))
        return cls(classifier, threshold, shift, axes, means, arrays["labels"].astype(np.int64))


@method("screen", "ada", settings=AdaSettings, given={"model", "making"})
def ada(model: Classifier, making: ImageSet, s: AdaSettings) -> Ada:
    """A stamped image's features say one class and the decision another: their divergence is large.

    Miller, Wang and Kesidis 2019, "Anomaly detection of attacks (ADA) on DNN classifiers at test time"; deviations
    stand at `Ada`. Densities are those of the penultimate features of every class that has clean images.

    Args:
        model: the classifier under suspicion, for images ``[C, H, W]``.
        making: clean images with their labels, of the classifier's own classes.

    Fails when: a stamped image's features lie where the target's do (the net has learnt the trigger as a feature); the
        clean images are too few for densities.

    Raises:
        DoorwardError: images of other classes than the classifier's; fewer than three classes with images, or no
            class with two.
    """
    if len(making.classes) != len(model.classes):
        told = f"{len(making.classes)} classes, the classifier has {len(model.classes)}"
        raise DoorwardError(f"screen ada: {making.name}: {told}; expected labelled images of the same")
    present, index, counts = np.unique(making.labels, return_inverse=True, return_counts=True)
    if len(present) < 3 or counts.max() < 2:
        told = f"{len(present)} classes, {counts.max()} images at most in one"
        raise DoorwardError(f"screen ada: {making.name}: {told}; expected three classes and two images in one")
    features, _ = features_and_logits(model, making.pixels)
    points = log_features(features)
    shift = points.mean(axis=0)
    _, _, directions = np.linalg.svd(points - shift, full_matrices=False)
    axes = directions[: s.dimensions].T
    projected = (points - shift) @ axes
    sums = np.zeros((len(present), projected.shape[1]))
    np.add.at(sums, index, projected)
    means = sums / counts[:, None]
    within = projected - means[index]
    from sklearn.covariance import ledoit_wolf

    covariance, _ = ledoit_wolf(within, assume_centered=True)
    covariance *= len(within) / max(1, len(within) - len(present))
    values, vectors = np.linalg.eigh(covariance)
    white = vectors / np.sqrt(np.maximum(values, 1e-9 * max(float(values.max()), 1e-12)))
    return Ada(model, -np.inf, shift, axes @ white, means @ white, present.astype(np.int64))


def log_features(features: Floats) -> Floats:
    """log(1 + feature), with the sign kept for layers that end without a ReLU."""
    return np.asarray(np.sign(features) * np.log1p(np.abs(features)))


@torch.inference_mode()
def features_and_logits(classifier: Classifier, pixels: Pixels) -> tuple[Floats, Floats]:
    """Penultimate features ``[N, t]`` and logits ``[N, K]`` of uint8 images, batch by batch."""
    classifier.net.eval()
    with classifier.watching_features() as seen:
        logits = [
            classifier.logits(to_float(pixels[i : i + BATCH], classifier.device)) for i in range(0, len(pixels), BATCH)
        ]
    features = torch.cat([f.double().cpu() for f in seen]).numpy()
    return features, torch.cat(logits).double().cpu().numpy()
