"""`Classifier`: a network plus what is needed to use it rightly."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from doorward.core.errors import DoorwardError, whole
from doorward.core.images import ImageSet, few
from doorward.core.outputs import find_head, giving_logits, has_class_token, logits_of, pooled, probe
from doorward.core.pixels import as_bytes, to_float
from doorward.core.progress import printable
from doorward.core.stats import Rate

_TRIED = 8  # images that a net of the user is tried on


def pick_device(name: str = "auto") -> torch.device:
    """``auto`` is a GPU where there is one, else the CPU; anything else is a torch device name."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DoorwardError(f"device {name!r}: {str(error).splitlines()[0]}; expected auto, cpu or cuda") from None
    return device


def forward_batch(device: torch.device, shape: tuple[int, int, int]) -> int:
    """Images ``[C, H, W]`` at a time without gradients: as many as have the pixels of 128 images of 32 x 32 on a CPU.

    That keeps a net's activations near the cache: at 224 x 224 small-cnn takes 1.7 times as many images per second in
    batches of 4 as of 128, in a quarter of the memory. Fewer than 4 gain nothing, and read the weights more often.
    """
    most, pixels = (128, 1 << 17) if device.type == "cpu" else (2048, 1 << 23)
    return max(4, min(most, pixels // (shape[1] * shape[2])))


def place_net(net: nn.Module, device: torch.device | str) -> nn.Module:
    """The net on the device, its 4-d weights channels last in memory, as the images are."""
    return net.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@dataclass(frozen=True, eq=False)
class Classifier:
    """A network with its input and output conventions.

    Args:
        net: maps normalised images ``[B, C, H, W]`` to logits ``[B, K]``.
        arch: name of the architecture (see `doorward.models.nets.catalogue`), or the name of the user's own.
        classes: K class names.
        shape: channels, height, width of the images it takes.
        mean, std: per channel; the net sees (x - mean) / std for x in [0, 1].
        feature_layer: the module whose *input* is the feature vector; default the head: the last `nn.Linear` with K
            outputs, else the last one.
        classes_from: where the class names were read, in words.
        notes: what was noticed when the model was opened, in words.
    """

    net: nn.Module
    arch: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    feature_layer: str | None = None
    classes_from: str = "given"
    notes: tuple[str, ...] = ()

    @classmethod
    def from_module(
        cls,
        net: nn.Module,
        like: ImageSet,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        feature_layer: str | None = None,
    ) -> Classifier:
        """A network of one's own, ready for every verb; it stays where it is and is put into evaluation mode.

        Args:
            net: maps normalised images ``[B, C, H, W]`` to logits ``[B, K]``, or to an object, dictionary or tuple that
                holds them.
            like: images with the net's classes and shape, such as its training set.
            mean, std: one number, or one per channel; the net sees (x - mean) / std for x in [0, 1].
            feature_layer: see `Classifier`.

        Raises:
            DoorwardError: no module or one without weights, conventions of another length, no such layer, or logits
                of another shape on some of the images.
        """
        if not isinstance(net, nn.Module):
            raise DoorwardError(f"net of type {type(net).__name__}; expected a torch.nn.Module")
        name = type(net).__name__
        if not isinstance(like, ImageSet):
            told = f"like is of type {type(like).__name__}"
            raise DoorwardError(f"{name}: {told}; expected an ImageSet, as doorward.load_images(PATH) gives")
        if next(net.parameters(), None) is None:
            raise DoorwardError(f"{name}: has no weights; expected a net that was trained")
        scales = [_per_channel(name, what, v, like.shape[0]) for what, v in (("mean", mean), ("std", std))]
        if min(scales[1]) <= 0:
            raise DoorwardError(f"{name}: std {_rounded(scales[1])}; expected numbers above 0")
        found = cls(_unwrapped(net.eval(), like), name, like.classes, like.shape, scales[0], scales[1], feature_layer)
        if feature_layer is not None:
            found.feature_name()
        _check_logits(found, like)
        return found

    def __repr__(self) -> str:
        weights = sum(p.numel() for p in self.net.parameters())
        told = f"Classifier {self.arch}: images of {'x'.join(map(str, self.shape))}, {few(self.classes)}; "
        scale = f"mean {_rounded(self.mean)}, std {_rounded(self.std)}"
        return printable(f"{told}{scale}; {weights:,} weights on {self.device}")

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.net.parameters()).device

    def to(self, device: torch.device | str) -> Classifier:
        """The same classifier with its weights on ``device``."""
        return replace(self, net=self.net.to(device))

    def normalise(self, images: Tensor) -> Tensor:
        """(x - mean) / std, per channel; the host does not wait for a GPU here, as ``device=`` would make it."""
        scales = (torch.tensor(v, dtype=images.dtype) for v in (self.mean, self.std))
        mean, std = (v.to(images.device, non_blocking=True).view(1, -1, 1, 1) for v in scales)
        return (images - mean) / std

    def logits(self, images: Tensor) -> Tensor:
        """Logits ``[B, K]`` of images ``[B, C, H, W]`` in [0, 1]."""
        return logits_of(self.net(self.normalise(images)))  # type: ignore[no-any-return]

    @contextmanager
    def watching_features(self) -> Iterator[list[Tensor]]:
        """Within the block, every call of `logits` appends its penultimate features ``[B, t]`` to the list."""
        layer, seen = self.net.get_submodule(self.feature_name()), []
        class_token = has_class_token(self.net)

        def keep(_: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
            seen.append(pooled((*inputs, *named.values())[0], layer, class_token=class_token))

        handle = layer.register_forward_pre_hook(keep, with_kwargs=True)
        try:
            yield seen
        finally:
            handle.remove()

    def feature_name(self) -> str:
        """Name of the module whose input is the feature vector."""
        modules = dict(self.net.named_modules())
        if self.feature_layer is not None:
            if self.feature_layer not in modules:
                raise DoorwardError(
                    f"{self.arch}: no layer {self.feature_layer!r}; expected one of {', '.join(filter(None, modules))}"
                )
            return self.feature_layer
        head = find_head(self.net, len(self.classes))
        if head is None:
            raise DoorwardError(
                f"{self.arch}: has no linear layer; expected feature_layer (--feature-layer) to name the layer that "
                "the features enter"
            )
        return head

    def describe(self) -> dict[str, Any]:
        """What a command tells about the model: architecture, features, input, where the class names are from.

        Raises:
            DoorwardError: see `check`.
        """
        return {
            "arch": self.arch,
            "feature_layer": self.feature_name(),
            "features": self.check(),
            "input": list(self.shape),
            "mean": list(self.mean),
            "std": list(self.std),
            "classes": len(self.classes),
            "classes_from": self.classes_from,
        }

    @torch.no_grad()
    def check(self) -> int:
        """Try two random images in evaluation mode; returns the number of features, t.

        Raises:
            DoorwardError: the net does not take images of its size, gives no finite logits ``[2, K]``, or its features
                are not finite vectors ``[2, t]``.
        """
        was_training, size = self.net.training, "x".join(map(str, self.shape))
        self.net.eval()
        try:
            with self.watching_features() as seen:
                logits = self.logits(probe(self.shape, self.device))
        except DoorwardError:
            raise
        except Exception as error:  # the user's own code
            told = f"does not take images of {size} ({whole(error)}); expected the size that the net was made for"
            raise DoorwardError(f"{self.arch}: {told}") from None
        finally:
            self.net.train(was_training)
        count = len(self.classes)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 2:
            found = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise DoorwardError(f"{self.arch}: gives {found} for two images; expected logits [2, {count}]")
        if logits.shape[1] != count:
            raise DoorwardError(f"{self.arch}: decides between {logits.shape[1]} classes; expected {count}")
        if not bool(logits.isfinite().all()):
            raise DoorwardError(f"{self.arch}: its logits hold NaN or infinity; expected finite logits")
        layer = self.feature_name()
        if not seen or seen[0].ndim != 2 or len(seen[0]) != 2 or not bool(seen[0].isfinite().all()):
            entering = list(seen[0].shape) if seen else "nothing"
            raise DoorwardError(
                f"{self.arch}: {entering} enters layer {layer!r} for two images; expected finite features [2, t]; name "
                "another layer (--feature-layer)"
            )
        return seen[0].shape[1]

    @torch.inference_mode()
    def predict(self, pixels: NDArray[Any] | Tensor, batch: int = 0) -> NDArray[np.int64]:
        """Predicted classes ``[N]``, in evaluation mode.

        Args:
            pixels: ``[N, H, W, C]``: uint8, or floats in [0, 1], which are rounded to the 8-bit grid.
            batch: so many at a time; 0: see `forward_batch`.

        Raises:
            DoorwardError: images of another shape or type, or floats outside [0, 1].
        """
        pixels = as_bytes(pixels, self.shape, self.arch)
        if not len(pixels):
            return np.zeros(0, np.int64)
        batch = batch or forward_batch(self.device, self.shape)
        was_training = self.net.training
        self.net.eval()
        found = [
            self.logits(to_float(pixels[i : i + batch], self.device)).argmax(1).cpu()
            for i in range(0, len(pixels), batch)
        ]
        self.net.train(was_training)
        return torch.cat(found).numpy()


def _per_channel(name: str, what: str, value: float | Sequence[float], channels: int) -> tuple[float, ...]:
    """Mean or std as numbers, one for all channels or one each."""
    try:
        given = tuple(float(v) for v in (value if isinstance(value, Iterable) else (value,)))
    except (TypeError, ValueError):
        raise DoorwardError(f"{name}: {what} {value!r}; expected a number, or one per channel") from None
    if len(given) not in (1, channels) or not all(map(math.isfinite, given)):
        raise DoorwardError(f"{name}: {what} {given}; expected 1 finite number, or {channels}, one per channel")
    return given


def _unwrapped(net: nn.Module, like: ImageSet) -> nn.Module:
    """The net itself where it gives a tensor, else one that takes the logits out of what it gives."""
    try:
        with torch.inference_mode():
            given = net(to_float(like.pixels[:_TRIED], next(net.parameters()).device))
    except Exception:  # whatever the user's own code raises: told when the logits are checked
        return net
    return net if isinstance(given, Tensor) else giving_logits(net)


def _check_logits(classifier: Classifier, images: ImageSet) -> None:
    """Ask the net for a few images and refuse what are no logits of its classes."""
    few_images = to_float(images.pixels[:_TRIED], classifier.device)
    wanted = f"expected logits [{len(few_images)}, {len(classifier.classes)}], one per class"
    try:
        with torch.inference_mode():
            logits = classifier.logits(few_images)
    except Exception as error:  # whatever the user's own code raises
        told = f"fails on images of {'x'.join(map(str, images.shape))} ({whole(error)})"
        raise DoorwardError(f"{classifier.arch}: {told}; {wanted}") from None
    if not isinstance(logits, Tensor):
        raise DoorwardError(f"{classifier.arch}: gives {type(logits).__name__}; {wanted}")
    if tuple(logits.shape) != (len(few_images), len(classifier.classes)):
        raise DoorwardError(f"{classifier.arch}: gives {list(logits.shape)}; {wanted}")


def _rounded(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)


def measure_accuracy(classifier: Classifier, images: ImageSet) -> Rate:
    """Share of images whose predicted class is their label."""
    return Rate(int((classifier.predict(images.pixels) == images.labels).sum()), len(images))
