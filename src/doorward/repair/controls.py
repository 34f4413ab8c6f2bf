"""The control arms: what a repair comes to without any trigger."""

from __future__ import annotations

import torch
from pydantic import Field
from torch.nn.modules.batchnorm import _BatchNorm

from doorward.classifiers import Classifier
from doorward.images import ImageSet
from doorward.methods import method
from doorward.repair.repaired import Repaired
from doorward.repair.tuning import HeldOutSettings, TuneSettings, divide, step, trainable_copy, tune
from doorward.train.batches import BatchSource


class FineTuneSettings(TuneSettings):
    """Settings of fine-tuning: as those of retraining, so that both have the same budget."""


class RefreshSettings(HeldOutSettings):
    """Settings of the refresh."""

    batch: int = Field(128, ge=2)
    passes: int = Field(1, ge=1, description="passes over the clean images, whose statistics are averaged")


@method("repair", "fine-tune", settings=FineTuneSettings, given={"classifier", "clean_images", "seed"})
def fine_tune(classifier: Classifier, clean_images: ImageSet, s: FineTuneSettings, *, seed: int) -> Repaired:
    """Train on with clean images alone: the control arm without triggers.

    What a repair does beyond this is due to its triggers. With equal settings and seed the same images come in the
    same order as in `retrain`.

    Args:
        classifier: left as it was.
        clean_images: images known to be clean, with their labels.
        seed: of the split and the order of images.

    Returns: the classifier; the record holds held-out accuracy as given and fine-tuned.

    Fails when: clean images do not touch what the backdoor uses, which is the rule at low learning rates.
    """
    done = f"fine-tuned for {s.epochs} epochs"
    return tune("fine-tune", classifier, clean_images, s, seed=seed, done=done)


@method("repair", "refresh", settings=RefreshSettings, given={"classifier", "clean_images", "seed"})
def refresh(classifier: Classifier, clean_images: ImageSet, s: RefreshSettings, *, seed: int) -> Repaired:
    """Estimate the batch-norm statistics anew from clean images; no weight moves.

    The control arm for training mode: the code of Qiao, Yang and Li 2019 remarks that one pass in it can remove a
    backdoor. Mean and variance of every batch-norm layer become their averages over the batches of clean images.

    Args:
        classifier: left as it was.
        clean_images: images known to be clean; their labels decide nothing but the split.
        seed: of the split and the batches.

    Returns: the classifier; one of a net without batch norm is unchanged, and a warning says so.

    Fails when: the backdoor does not hang on the statistics, or the images are too few to estimate them.
    """
    fitted, held = divide("refresh", classifier, clean_images, s.held_out, seed)
    repaired = trainable_copy(classifier)
    norms = [m for m in repaired.net.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    given = step("as given", repaired, held)
    details: dict[str, object] = {"fitted_images": len(fitted), "batch_norms": len(norms)}
    if not norms:
        told = f"{classifier.arch} has no batch-norm statistics, so the refresh changes nothing"
        return Repaired(repaired, (given, step("no batch norm: unchanged", repaired, held)), details, (told,))
    source = BatchSource(fitted, min(s.batch, len(fitted)), seed, classifier.device, False, 0)
    _estimate(repaired, norms, source, s.passes)
    after = step(f"statistics of {len(norms)} batch norms refreshed", repaired, held)
    return Repaired(repaired, (given, after), details)


@torch.no_grad()
def _estimate(classifier: Classifier, norms: list[_BatchNorm], source: BatchSource, passes: int) -> None:
    """Cumulative averages over all batches; every other layer (dropout) stays in evaluation mode."""
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch: the plain average of all batches
        norm.train()
    for number in range(passes):
        for batch, _, _ in source.epoch(number):
            classifier.logits(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
