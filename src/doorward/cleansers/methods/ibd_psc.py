"""IBD-PSC: whether a decision stays when batch norms are amplified."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from doorward.cleansers.parts.passes import (
    batch_norms,
    class_groups,
    known_clean,
    own_copy,
    probabilities,
    spread_rows,
)
from doorward.cleansers.suspicion import Suspicion
from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.methods import Settings, method

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Rows = NDArray[np.int64]


class IbdPscSettings(Settings):
    """Settings of IBD-PSC."""

    factor: float = Field(1.5, gt=1, description="by which weights and biases of batch norms are multiplied")
    versions: int = Field(5, ge=1, description="amplified nets, each with one more batch norm than the one before")
    error: float = Field(
        0.6, gt=0, lt=1, description="share of clean images that the first of them gets wrong, at the least"
    )
    threshold: float = Field(0.9, gt=0, lt=1, description="mean probability above which an image is flagged")
    sample: int = Field(
        1000, ge=10, description="images on which the first is chosen, at most; all that are known clean"
    )


@method(
    "cleanse",
    "ibd-psc",
    settings=IbdPscSettings,
    given={"classifier", "pixels", "logits", "labels"},
    accepts={"clean_images"},
    kind="decisions of a changed net",
)
def ibd_psc(
    classifier: Classifier,
    pixels: Pixels,
    logits: Floats,
    labels: Rows,
    s: IbdPscSettings,
    *,
    clean_images: Rows | None = None,
) -> Suspicion:
    """Flag the images whose decision keeps its probability while the net's last batch norms are amplified.

    IBD-PSC, Hou, Feng, Hua, Luo, Zhang and Li, ICML 2024 (arXiv 2405.09786): weights and biases of the last k batch
    norms are multiplied by 1.5, with k the fewest for which more than 60 % of clean images are decided wrongly; five
    nets with k, k + 1, ... amplified batch norms give the probability of the original decision; an image is flagged
    when their mean is above 0.9. The paper has 100 clean images with labels to find k. Without ``clean_images``, k is
    found on the training set itself and its labels, poisoned ones included.

    Deviations: where the net has fewer than k + 4 batch norms there are fewer amplified nets. Where no k leads to so
    many errors the method has nothing to compare and flags nothing.

    Args:
        classifier: with batch norms; it stays as it is.
        pixels: uint8 ``[N, H, W, C]``.
        logits: ``[N, K]``, of the original net.
        labels: training labels ``[N]``.
        clean_images: rows of the training set that are known to be clean, ``[m]``.

    Returns: an image's score is its mean probability in [0, 1]; a group per class, its statistic the median score.
        The paper has no number per class, so no verdict rests on it alone.

    Raises:
        DoorwardError: rows that are none, or a net without batch norms that have weights.

    Fails when: a net has few batch norms or amplifying them changes no decision (two in small-cnn); when clean images
        of the class that an amplified net prefers keep their decision too, as those of the target class do; when the
        trigger is a warp; when a net has no batch norms.
    """
    amplified = _amplified(classifier, s.factor)
    rows = spread_rows(len(pixels), s.sample)
    if clean_images is not None:
        rows = known_clean(clean_images, len(pixels), "ibd-psc")
    for looking in amplified:
        wrong = float((probabilities(looking, pixels[rows]).argmax(axis=1) != labels[rows]).mean())
        if wrong > s.error:
            break
    decided, every = logits.argmax(axis=1), np.arange(len(pixels))
    kept = [probabilities(looking, pixels)[every, decided]]
    for _, more in zip(range(s.versions - 1), amplified, strict=False):
        kept.append(probabilities(more, pixels)[every, decided])
    score = np.mean(kept, axis=0).astype(np.float32)
    flag = score > s.threshold
    warnings = []
    if wrong <= s.error:
        told = f"with every batch norm amplified {wrong:.0%} of the decisions are wrong"
        warnings.append(f"{told}, expected more than {s.error:.0%}: nothing is flagged")
        flag[:] = False
    return Suspicion(score, flag, class_groups(labels, score, flag), tuple(warnings))


def _amplified(classifier: Classifier, factor: float) -> Iterator[Classifier]:
    """One net after the other, with the last 1, 2, ... batch norms amplified; each is the one before, changed.

    Raises:
        DoorwardError: a net without batch norms that have weights.
    """
    looking = own_copy(classifier)
    layers = [m for m in batch_norms(looking.net) if m.affine]
    if not layers:
        raise DoorwardError(f"cleanse ibd-psc: {classifier.arch}: no batch norm with weights; expected some")
    for layer in reversed(layers):
        with torch.no_grad():
            layer.weight.mul_(factor)
            layer.bias.mul_(factor)
        yield looking
