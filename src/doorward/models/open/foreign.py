"""Classifiers of others: an architecture by name or from the user's own file, and weights that never run code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from doorward.core.classifier import Classifier, place_net
from doorward.core.errors import DoorwardError, whole
from doorward.core.images import few
from doorward.core.outputs import logits_of, probe
from doorward.models.nets.architecture import Architecture, Floats, Shape
from doorward.models.open.architectures import Named, find_architecture
from doorward.models.open.hugging_face import load_folder, load_with_weights
from doorward.models.open.keras_weights import check_keras, is_hdf5, keras_classes, load_keras
from doorward.models.weights import Weights, channel_count, check_weights_file, class_counts, fill, fits, read_weights

# tried in this order where nobody says which size a net takes, and it refuses that of the images
_SIZES = ((224, 224), (32, 32), (28, 28), (64, 64), (96, 96), (55, 47), (128, 128), (48, 48), (112, 112), (160, 160),
          (192, 192), (256, 256), (299, 299), (384, 384))  # fmt: skip


@dataclass(frozen=True)
class Given:
    """What the caller says of a model; None where nothing was said.

    Args:
        classes: names, or how many.
        like: the shape of images that the net may or may not take.
        names: class names of images, taken where the model has none and as many.
        names_of: whose they are, for messages.
        guess: how many classes the images have, taken where neither caller nor weights tell.
    """

    shape: Shape | None = None
    like: Shape | None = None
    size: tuple[int, int] | None = None
    classes: tuple[str, ...] | int | None = None
    names: tuple[str, ...] | None = None
    names_of: str = "the images"
    mean: Floats | None = None
    std: Floats | None = None
    value_range: tuple[float, float] | None = None
    feature_layer: str | None = None
    guess: int | None = None

    @property
    def count(self) -> int | None:
        """Number of classes that the caller insists on."""
        return self.classes if isinstance(self.classes, int) else len(self.classes) if self.classes else None


def load_foreign(
    path: Path,
    arch: Named,
    shape: Shape,
    *,
    classes: tuple[str, ...] | int | None = None,
    mean: Floats = (0.0,),
    std: Floats = (1.0,),
    value_range: tuple[float, float] = (0.0, 1.0),
    device: torch.device | str = "cpu",
) -> Classifier:
    """`open_foreign` for images of a known shape, with conventions on the scale of ``value_range``."""
    given = Given(shape, classes=classes, mean=mean, std=std, value_range=value_range)
    return open_foreign(path, arch, given, device)


def open_foreign(path: Path, arch: Named, given: Given, device: torch.device | str = "cpu") -> Classifier:
    """Read a classifier that doorward did not train, in evaluation mode.

    Args:
        path: weights: safetensors, a PyTorch state dict (read with ``weights_only``; under ``net``, ``model`` or
            ``state_dict``, with or without ``module.`` before the names), Keras HDF5 by layer names, or a folder of
            transformers.
        arch: see `doorward.models.open.architectures.find_architecture`.

    Raises:
        DoorwardError: one line about the file, the architecture, the size of the images or the number of classes.
    """
    architecture = find_architecture(arch)
    net, shape, guessed = _open(path, architecture, given)
    count = _count_logits(net, shape, architecture.name)
    if given.count is not None and count != given.count:
        raise DoorwardError(f"{path}: weights for {count} classes; expected {given.count}")
    names, origin = _names(path, count, architecture, given)
    mean, std = _conventions(architecture, given, shape[0])
    place_net(net, device).eval()
    layer, notes = given.feature_layer, architecture.notes if given.mean is None else ()
    if guessed:
        size = "x".join(map(str, shape[1:]))
        notes = (*notes, f"{architecture.name}: takes images of {size}, which was found by trying; --size says it")
    return Classifier(net, architecture.name, names, shape, mean, std, layer, origin, notes)


def _open(path: Path, architecture: Architecture, given: Given) -> tuple[nn.Module, Shape, bool]:
    """The net with its weights, the shape of its images, and whether that was found by trying."""
    if path.is_dir():
        if architecture.folder is None:
            raise DoorwardError(f"{path}: is a folder; expected a file of weights for {architecture.name}")
        net = load_folder(path)
        return net, *_working_shape(net, architecture, given, None)
    check_weights_file(path)
    if is_hdf5(path):
        shape = _known_shape(architecture, given, None)
        if shape is None:
            raise DoorwardError(f"{path}: {_UNKNOWN}")
        return _open_keras(path, architecture, given, shape), shape, False
    if path.suffix in (".h5", ".hdf5"):
        raise DoorwardError(f"{path}: not an HDF5 file; expected weights as Keras saves them")
    weights = read_weights(path)
    if architecture.name.startswith("hf:"):
        net = load_with_weights(Path(architecture.name.removeprefix("hf:")), weights.tensors)
        return net, *_working_shape(net, architecture, given, channel_count(weights.tensors))
    channels = channel_count(weights.tensors)
    shapes = _shapes_to_try(architecture, given, channels)
    first: DoorwardError | None = None
    for shape in shapes:
        try:
            known = class_counts(weights.tensors)
            count = given.count or (None if known else given.guess)
            net = build_filled(path, weights, architecture, shape, count)
            _count_logits(net, shape, architecture.name)
            return net, shape, shape not in (given.shape, given.like, shapes[0])
        except DoorwardError as error:
            first = first or error
    assert first is not None
    raise first


_MANY = 10_000  # classes, from which on a net is first made without memory
_MOST = 1_000_000  # of a net that cannot be made so
_UNKNOWN = "the size of the images is not known; expected --images SOURCE, --size N or --shape C,H,W"


def _known_shape(architecture: Architecture, given: Given, channels: int | None) -> Shape | None:
    """The shape that somebody says: the caller, the architecture's maker, or the images."""
    if given.shape:
        return given.shape
    like = given.like or architecture.shape
    if given.size:
        return channels or (like[0] if like else 3), *given.size
    shape = architecture.shape or given.like
    return (channels or shape[0], *shape[1:]) if shape else None


def _shapes_to_try(architecture: Architecture, given: Given, channels: int | None) -> list[Shape]:
    known = _known_shape(architecture, given, channels)
    if known is None:
        raise DoorwardError(f"{architecture.name}: {_UNKNOWN}")
    if given.shape or given.size or not given.like:
        return [known]
    return [known, *((known[0], *size) for size in _SIZES if size != known[1:])]


def _working_shape(
    net: nn.Module, architecture: Architecture, given: Given, channels: int | None
) -> tuple[Shape, bool]:
    """The shape of a net that is there already: the images' own where its maker says none and it takes them."""
    shape = _known_shape(architecture, given, channels)
    if shape is None:
        raise DoorwardError(f"{architecture.name}: {_UNKNOWN}")
    if given.like and not (given.shape or given.size) and architecture.mean is None:
        try:
            _count_logits(net, given.like, architecture.name)
            return given.like, False
        except DoorwardError:
            pass
    return shape, False


def build_filled(
    path: Path, weights: Weights, architecture: Architecture, shape: Shape, count: int | None
) -> nn.Module:
    """The net of the architecture for as many classes as the weights have, with the weights.

    Raises:
        DoorwardError: the weights are those of another net, or of another number of classes than ``count``.
    """
    found = class_counts(weights.tensors)[:8]
    if not architecture.takes_classes or not (found or count):
        if architecture.takes_classes:
            raise DoorwardError(
                f"{path}: the number of classes cannot be told from the weights; expected it to be given"
            )
        net = architecture.build(shape, count or 2)
        fill(net, weights.fitted(net), path, architecture.name)
        return net
    first: nn.Module | None = None
    for number in dict.fromkeys([*([count] if count else []), *found]):
        net, real = _sized(path, architecture, shape, number)
        fitted = weights.fitted(net)
        if fits(net, fitted.tensors):
            if count is not None and number != count:
                raise DoorwardError(f"{path}: weights for {number} classes; expected {count}")
            net = net if real else architecture.build(shape, number)
            fill(net, fitted, path, architecture.name)
            return net
        first = first or net
    assert first is not None
    fill(first, weights.fitted(first), path, architecture.name)
    return first


def _sized(path: Path, architecture: Architecture, shape: Shape, number: int) -> tuple[nn.Module, bool]:
    """A net for so many classes, and whether it has memory: one for many is first made without.

    A few bytes of a file may speak of 10^9 classes, whose head would fill the memory before anyone sees that it does
    not fit.
    """
    if number > _MANY:
        try:
            with torch.device("meta"):
                return architecture.build(shape, number), False
        except Exception:  # a net of the user's own that computes with its weights while it is made
            if number > _MOST:
                told = f"weights for {number:,} classes"
                raise DoorwardError(f"{path}: {told}; expected at most {_MOST:,} for {architecture.name}") from None
    return architecture.build(shape, number), True


def _open_keras(path: Path, architecture: Architecture, given: Given, shape: Shape) -> nn.Module:
    found = keras_classes(path)
    count = given.count or found or given.guess
    if count is None:
        raise DoorwardError(f"{path}: the number of classes cannot be told from the weights; expected it to be given")
    if found is not None and architecture.takes_classes and found != count:
        raise DoorwardError(f"{path}: weights for {found} classes; expected {count}")
    net, real = _sized(path, architecture, shape, count)
    if not real:
        check_keras(net, path)
        net = architecture.build(shape, count)
    load_keras(net, path, shape)
    return net


@torch.no_grad()
def _count_logits(net: nn.Module, shape: Shape, name: str) -> int:
    """Number of logits that the net gives for images of the shape, in evaluation mode."""
    was_training, size = net.training, "x".join(map(str, shape))
    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    try:
        logits = logits_of(net.eval()(probe(shape, device)))
    except Exception as error:  # the user's own code
        told = f"does not take images of {size} ({whole(error)}); expected the size that the net was made for (--size)"
        raise DoorwardError(f"{name}: {told}") from None
    finally:
        net.train(was_training)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 2:
        found = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise DoorwardError(f"{name}: gives {found} for two images; expected logits [2, number of classes]")
    return logits.shape[1]


def _names(path: Path, count: int, architecture: Architecture, given: Given) -> tuple[tuple[str, ...], str]:
    """Class names and where they are from."""
    if isinstance(given.classes, tuple):
        return given.classes, "given"
    if architecture.classes is not None and len(architecture.classes) == count:
        return architecture.classes, "config.json"
    if given.names is None:
        return tuple(str(k) for k in range(count)), "numbers"
    if len(given.names) != count:
        whose = f"{given.names_of} with {few(given.names)}"
        raise DoorwardError(f"{path}: weights for {count} classes; {whose}; expected as many")
    return given.names, "the images, in their order"


def _conventions(architecture: Architecture, given: Given, channels: int) -> tuple[Floats, Floats]:
    """What the caller says of mean, deviation and range, or else what the architecture's maker says."""
    if given.mean is None and given.std is None and given.value_range is None and architecture.mean is not None:
        return architecture.mean, architecture.std or (1.0,)
    return conventions(given.mean, given.std, given.value_range, channels)


def conventions(
    mean: Floats | None, std: Floats | None, value_range: tuple[float, float] | None, channels: int
) -> tuple[Floats, Floats]:
    """Mean and standard deviation on the scale [0, 1], so that (x - mean) / std is what the net wants.

    What is None was not said: 0 and 1, on [0, 1].
    """
    mean, std, (low, high) = mean or (0.0,), std or (1.0,), value_range or (0.0, 1.0)
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels):
            expected = "1 for grey images" if channels == 1 else f"1 or {channels}, one per channel"
            raise DoorwardError(f"--{name} of {len(values)} numbers; expected {expected}")
    if not high > low:
        raise DoorwardError(f"--range {low:g},{high:g}; expected LOW,HIGH with LOW below HIGH")
    if min(std) <= 0:
        raise DoorwardError(f"--std {min(std):g}; expected numbers above 0")
    span = high - low
    return tuple((m - low) / span for m in mean), tuple(s / span for s in std)
