"""The control arms: what a repair comes to without any trigger."""

from __future__ import annotations

from pydantic import Field

from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.methods import method
from doorward.models.train.batches import BatchSource
from doorward.repairs.parts.batch_norms import estimate_statistics
from doorward.repairs.parts.tuning import HeldOutSettings, TuneSettings, divide, step, trainable_copy, tune
from doorward.repairs.repaired import Repaired


class FineTuneSettings(TuneSettings):
    """Settings of fine-tuning: as those of retraining, so that both have the same budget."""


class RefreshSettings(HeldOutSettings):
    """Settings of the refresh."""

    batch: int = Field(128, ge=2, description="images whose statistics are taken together")
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
    given = step("as given", repaired, held)
    source = BatchSource(fitted, min(s.batch, len(fitted)), seed, classifier.device, False, 0)
    count = estimate_statistics(repaired, source, s.passes)
    details: dict[str, object] = {"fitted_images": len(fitted), "batch_norms": count}
    if not count:
        told = f"{classifier.arch} has no batch-norm statistics, so the refresh changes nothing"
        return Repaired(repaired, (given, step("no batch norm: unchanged", repaired, held)), details, (told,))
    after = step(f"statistics of {count} batch norms refreshed", repaired, held)
    return Repaired(repaired, (given, after), details)
