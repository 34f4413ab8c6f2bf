"""Reference nets: what any clean net for these classes shows, to be taken out of the verdict."""

from __future__ import annotations

from doorward.core.classifier import Classifier, measure_accuracy
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.progress import Progress
from doorward.models.nets.catalogue import NETS
from doorward.models.train.loop import train
from doorward.models.train.settings import TrainSettings

FEWEST_PER_CLASS = 10
_STEPS = 600  # of training, whatever the number of images


def like(classifier: Classifier) -> str:
    """The architecture for references of a classifier: its own where it is one of the catalogue, else a small net.

    References of another kind shift the statistics: with small ones beside a ResNet-20 clean classes stood out.
    """
    return classifier.arch if classifier.arch in NETS else "small-cnn"


def train_references(
    images: ImageSet,
    count: int,
    *,
    net: str = "small-cnn",
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
) -> tuple[list[Classifier], tuple[str, ...]]:
    """Small nets trained on the clean images themselves, by seeds 1, 2, ... after ``seed``, and warnings about them.

    Args:
        images: clean and rightly labelled; at least 10 of each class.
        count: how many nets; two or three are enough.
        net: an architecture of `doorward.models.nets.catalogue`; the suspect's own is best, see `like`.
        progress: called with ("references", nets done, nets in all).

    Raises:
        DoorwardError: a class with too few images to learn it.

    Fails when: the images are too few for a net to learn the classes; then it shows little of which are hard to reach.
    """
    fewest = int(images.counts().min())
    if fewest < FEWEST_PER_CLASS:
        raise DoorwardError(
            f"{images.name}: {fewest} images of a class; expected {FEWEST_PER_CLASS} or more to train references on"
        )
    batch = min(64, max(8, len(images) // 8))
    epochs = max(5, min(60, _STEPS * batch // len(images)))
    settings = TrainSettings(epochs=epochs, batch=batch, lr=0.05)
    found = []
    for number in range(1, count + 1):
        if progress:
            progress("references", number - 1, count)
        found.append(train(images, net, settings, seed=seed + number, device=device))
    worst = min(measure_accuracy(reference, images).value for reference in found)
    told = f"a reference is right on {100 * worst:.0f} % of the clean images only; it says little about the classes"
    return found, (told,) if worst < 0.8 else ()
