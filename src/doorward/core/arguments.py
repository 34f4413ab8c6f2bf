"""What the verbs are given in Python, checked by type: a path or a module in the wrong place is told in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet


def check_images(verb: str, name: str, value: Any) -> None:
    """Refuse what is no `ImageSet`.

    Raises:
        DoorwardError: the verb, the argument, what it is and how an `ImageSet` is made of it.
    """
    if not isinstance(value, ImageSet):
        how = "doorward.load_images(PATH)" if isinstance(value, str | Path) else "doorward.load_images makes one"
        raise DoorwardError(f"{verb}: {name} is {_kind(value)}; expected an ImageSet: {how}")


def check_model(verb: str, value: Any, name: str = "model") -> None:
    """Refuse what is no `Classifier`; says how one is made of a module or a path.

    Raises:
        DoorwardError: the verb, the argument, what it is and how a `Classifier` is made of it.
    """
    if isinstance(value, Classifier):
        return
    how = "doorward.load_model(PATH) or doorward.train(images)"
    if isinstance(value, nn.Module):
        how = "doorward.Classifier.from_module(net, images, mean=..., std=...)"
    raise DoorwardError(f"{verb}: {name} is {_kind(value)}; expected a Classifier: {how}")


def _kind(value: Any) -> str:
    if isinstance(value, str | Path):
        return f"a path ({str(value)[:80]!r})"
    if isinstance(value, nn.Module):
        return f"a torch module ({type(value).__name__})"
    return f"of type {type(value).__name__}"
