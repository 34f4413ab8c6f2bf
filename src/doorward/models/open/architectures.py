"""Architectures by one word: built in, the user's own, timm's, or those of a Hugging Face folder."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from doorward.core.errors import DoorwardError, brief, show, whole
from doorward.core.outputs import giving_logits
from doorward.models.nets.architecture import Architecture, Shape
from doorward.models.nets.catalogue import NETS, build
from doorward.models.open import hugging_face

Named = str | nn.Module | Callable[..., Any]
FORMS = f"{', '.join(NETS)}, FILE.py:factory, timm:NAME or hf:FOLDER"
_CLASSES = ("classes", "num_classes", "n_classes", "nclasses", "num_labels")


def find_architecture(arch: Named) -> Architecture:
    """The architecture that a word, a module or a factory stands for.

    Args:
        arch: a built-in name; ``FILE.py:factory`` (the file is run: it must be your own); ``timm:NAME``; ``hf:FOLDER``
            (``config.json``; no code of the folder is run). In Python also a module, which is copied, or a factory. A
            factory is ``f()``, ``f(classes)`` or ``f(shape, classes)``, told apart by how many arguments it must have;
            ``shape`` is (channels, height, width). An optional argument called ``classes`` or ``num_classes`` is given.

    Raises:
        DoorwardError: there is no such architecture, or what it needs is not installed.
    """
    if isinstance(arch, nn.Module):
        return Architecture(type(arch).__name__, lambda *_: giving_logits(copy.deepcopy(arch)), takes_classes=False)
    if not isinstance(arch, str):
        if not callable(arch):
            expected = f"{FORMS}, a torch.nn.Module or a factory"
            raise DoorwardError(f"net of type {type(arch).__name__}; expected {expected}")
        return _of_factory(arch, getattr(arch, "__name__", type(arch).__name__))
    kind, colon, rest = arch.partition(":")
    if kind == "timm" and colon:
        return _of_timm(rest)
    if kind == "hf" and colon:
        return hugging_face.of_folder(Path(rest), arch)
    if not colon and not arch.endswith(".py"):
        if arch not in NETS:
            raise DoorwardError(f"net {arch!r}; expected one of {FORMS}")
        return Architecture(arch, lambda shape, classes: build(arch, shape, classes))
    file, _, name = arch.rpartition(":") if colon else (arch, "", "")
    return _of_factory(_factory(Path(file), name), arch)


def make_net(arch: Named, shape: Shape, classes: int) -> nn.Module:
    """A fresh net for images of ``shape`` (C, H, W); weights come from torch's global generator."""
    return find_architecture(arch).build(shape, classes)


def is_file(arch: str) -> bool:
    """Whether the architecture is made by a file of the user's own, which is run."""
    return ":" in arch and not arch.startswith(("timm:", "hf:"))


def file_hash(arch: str) -> str | None:
    """SHA-256 of the file in ``FILE.py:factory``; None for other architectures, or where it is no longer there."""
    path = Path(arch.rpartition(":")[0])
    return hashlib.sha256(path.read_bytes()).hexdigest() if is_file(arch) and path.is_file() else None


def _factory(file: Path, name: str) -> Callable[..., Any]:
    if file.suffix != ".py" or not file.is_file():
        raise DoorwardError(f"{file}: no such Python file; expected --arch FILE.py:factory")
    if not name:
        raise DoorwardError(f"{file}: names no factory in it; expected --arch {file}:factory")
    spec = importlib.util.spec_from_file_location(f"doorward_user_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the user's own code
        raise DoorwardError(
            f"{file}: raised {type(error).__name__}: {whole(error)}; expected a file that runs"
        ) from None
    factory = getattr(module, name, None)
    if not callable(factory):
        raise DoorwardError(_no_function(file, name, module))
    return factory  # type: ignore[no-any-return]


def _no_function(file: Path, name: str, module: ModuleType) -> str:
    """Says which there are."""
    own = [k for k, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module.__name__]
    there = f"expected one of {', '.join(own[:8])}" if own else "expected the factory of the net"
    return f"{file}: has no function {name!r}; {there}"


def _of_factory(factory: Callable[..., Any], name: str) -> Architecture:
    try:
        given = list(inspect.signature(factory).parameters.values())
    except (TypeError, ValueError):
        given = []
    required = [p for p in given if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(required) > 2 or any(p.kind is p.KEYWORD_ONLY for p in required):
        wanted = ", ".join(f"{p.name}=" if p.kind is p.KEYWORD_ONLY else p.name for p in required)
        raise DoorwardError(f"{name}: must be given {wanted}; expected f(), f(classes) or f(shape, classes)")
    optional = None if required else next((p.name for p in given if p.name in _CLASSES), None)

    def make(shape: Shape, classes: int) -> nn.Module:
        positional = (shape, classes)[2 - len(required) :]
        named = {optional: classes} if optional else {}
        try:
            net = factory(*positional, **named)
        except (Exception, SystemExit) as error:  # the user's own code
            told = ", ".join(map(str, (*positional, *named.values())))
            raise DoorwardError(
                f"{name}: called with ({told}), it raised {type(error).__name__}: {whole(error)}; expected a net"
            ) from None
        if not isinstance(net, nn.Module):
            given = "nothing (is a return missing?)" if net is None else f"a {type(net).__name__}"
            raise DoorwardError(f"{name}: gave {given}; expected a torch.nn.Module")
        return giving_logits(net)

    return Architecture(name, make, takes_classes=bool(required or optional))


def _of_timm(name: str) -> Architecture:
    if not re.fullmatch(r"[A-Za-z0-9_.]{1,200}", name):  # hf-hub:NAME and local-dir:PATH lead elsewhere
        raise DoorwardError(f"timm:{show(name)}; expected the plain name of a timm model")
    try:
        import timm
    except ImportError as error:
        raise DoorwardError(
            f"timm:{name}: timm is not installed ({brief(error)}); expected pip install timm, which needs torchvision"
        ) from None
    try:
        config = timm.get_pretrained_cfg(name).to_dict()
    except Exception as error:  # whatever timm makes of a name
        raise DoorwardError(f"timm:{name}: {brief(error)}; expected the name of a timm model") from None

    def make(shape: Shape, classes: int) -> nn.Module:
        fixed = {"img_size": shape[1:]} if config.get("fixed_input_size") else {}
        try:
            net = timm.create_model(name, pretrained=False, num_classes=classes, in_chans=shape[0], **fixed)
        except Exception as error:  # whatever timm makes of a size
            raise DoorwardError(f"timm:{name}: {brief(error)}; expected a timm model for {shape}") from None
        return giving_logits(net)

    size = config.get("input_size")
    return Architecture(
        f"timm:{name}",
        make,
        shape=tuple(size) if size else None,
        mean=tuple(config["mean"]) if config.get("mean") else None,
        std=tuple(config["std"]) if config.get("std") else None,
    )
