"""Reference nets: what any clean net for these classes shows, to be taken out of the verdict."""

from __future__ import annotations

import copy
from pathlib import Path

from torch import nn

from doorward.core.classifier import Classifier, measure_accuracy, pick_device, place_net
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.progress import Progress
from doorward.core.tensors import write_tensors
from doorward.models.files import fitting_weights
from doorward.models.nets.catalogue import NETS
from doorward.models.open.architectures import Named
from doorward.models.train.loop import train
from doorward.models.train.settings import TrainSettings, default_recipe
from doorward.models.train.start import fresh
from doorward.models.weights import unshared

FEWEST_PER_CLASS = 10
_STEPS = 600  # of training, whatever the number of images
_GOOD = 0.8  # accuracy on its own images below which a reference says little


def like(classifier: Classifier, arch: str | None = None) -> str:
    """The architecture for references of a classifier: its own.

    References of another kind shift the statistics: with small ones beside a ResNet-20 clean classes stood out.

    Args:
        arch: with which it was opened, where it was.

    Raises:
        DoorwardError: nobody says how such a net is made.
    """
    if classifier.arch in NETS or classifier.arch.startswith("timm:"):
        return classifier.arch
    if arch is not None:
        return arch
    if classifier.arch.startswith("hf:") and (Path(classifier.arch.removeprefix("hf:")) / "config.json").is_file():
        return classifier.arch
    raise DoorwardError(
        f"references: nothing says how another {classifier.arch} is made; expected clean models (--reference), or the "
        "net to train (--reference-net)"
    )


def train_references(
    images: ImageSet,
    count: int,
    *,
    net: Named = "small-cnn",
    seed: int = 0,
    device: str = "auto",
    folder: Path | str | None = None,
    progress: Progress | None = None,
) -> tuple[list[Classifier], tuple[str, ...]]:
    """Nets trained on the clean images themselves, by seeds 1, 2, ... after ``seed``, and warnings about them.

    Built-in nets are trained by SGD, others by AdamW (`default_recipe`), for 600 steps.

    Args:
        images: clean and rightly labelled; at least 10 of each class.
        count: how many nets; two or three are enough.
        net: the suspect's own is best: a built-in architecture, ``FILE.py:factory``, ``timm:NAME``, ``hf:FOLDER``, a
            factory, or a module, of which copies with fresh weights are trained. See `like`.
        folder: keeps what is finished, so that the same call goes on from there; removed by the caller.
        progress: called with ("references", nets done, nets in all) and the epoch of the one in training.

    Raises:
        DoorwardError: a class with too few images to learn it; a net that does not take them, or a module whose
            weights cannot be made fresh.

    Fails when: the images are too few for a net to learn the classes; then it shows little of which are hard to reach.
    """
    fewest = int(images.counts().min())
    if fewest < FEWEST_PER_CLASS:
        raise DoorwardError(
            f"{images.name}: {fewest} images of a class; expected {FEWEST_PER_CLASS} or more to train references on"
        )
    batch = min(64, max(8, len(images) // 8))
    epochs = max(5, min(60, _STEPS * batch // len(images)))
    own = not (isinstance(net, str) and net in NETS)
    settings = TrainSettings(epochs=epochs, batch=batch, **(default_recipe(net) if own else {"lr": 0.05}))
    made = _Untrained(net) if isinstance(net, nn.Module) else net
    found = []
    place = None if folder is None else Path(folder)
    for number in range(1, count + 1):
        told = _telling(progress, number - 1, count)
        found.append(_reference(images, made, settings, seed + number, device, place, number, told))
    worst = min((measure_accuracy(reference, images).value for reference in found), default=1.0)
    told_of = f"a reference is right on {100 * worst:.0f} % of the clean images only; it says little about the classes"
    return found, (told_of,) if worst < _GOOD else ()


def _telling(progress: Progress | None, finished: int, count: int) -> Progress | None:
    """Tell the epochs of one training as a note to how many references are done."""
    if progress is None:
        return None
    progress("references", finished, count)

    def told(stage: str, done: int, total: int, note: str = "") -> None:
        progress("references", finished, count, f"epoch {done} of {total}, {note}")

    return told


def _reference(
    images: ImageSet,
    net: Named,
    settings: TrainSettings,
    seed: int,
    device: str,
    folder: Path | None,
    number: int,
    progress: Progress | None,
) -> Classifier:
    """Train one, or read it where an interrupted call has finished it."""
    if folder is None:
        return train(images, net, settings, seed=seed, device=device, progress=progress)
    folder.mkdir(parents=True, exist_ok=True)
    kept, checkpoint = folder / f"{number}.safetensors", folder / f"{number}-training.safetensors"
    if kept.exists():
        reference = fresh(images, net, seed)
        reference.net.load_state_dict(fitting_weights(reference.net, kept))
        place_net(reference.net, pick_device(device)).eval()
        return reference
    reference = train(images, net, settings, seed=seed, device=device, checkpoint=checkpoint, progress=progress)
    write_tensors(kept, unshared(reference.net.state_dict()))
    checkpoint.unlink(missing_ok=True)
    return reference


class _Untrained:
    """A factory of copies of a module with fresh weights."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.__name__ = module, type(module).__name__
        for name, part in module.named_modules():
            own = [*part.parameters(recurse=False), *part.buffers(recurse=False)]
            if own and not hasattr(part, "reset_parameters"):
                told = f"{type(part).__name__} {name!r} has weights and no reset_parameters()"
                raise DoorwardError(
                    f"references: {self.__name__}: {told}; expected a factory of fresh nets, or clean models"
                )

    def __call__(self) -> nn.Module:
        net = copy.deepcopy(self.module).train()
        for part in net.modules():
            reset = getattr(part, "reset_parameters", None)
            if callable(reset):
                reset()
        return net
