"""Options of a command, made from the fields of its request."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from inspect import Parameter
from typing import Annotated, Any, Literal, TypeVar, get_origin

import typer
from pydantic.fields import FieldInfo

from doorward.core.settings import Settings

Command = TypeVar("Command", bound=Callable[..., None])


def options_of(request: type[Settings], **kept: Any) -> Callable[[Command], Command]:
    """Give a command an option for every field of a request: name, type, default, bounds and help are the field's.

    Args:
        request: fields that the command itself has a parameter for are left out.
        kept: the annotation of options that are spelled by hand, such as `common.Set` for ``settings``.

    Returns: a decorator; the command takes the options as ``**asked`` and builds the request from them.
    """

    def decorate(command: Command) -> Command:
        return add_options(
            command, {name: _option(field, kept.get(name)) for name, field in request.model_fields.items()}
        )

    return decorate


def add_options(command: Command, options: Mapping[str, tuple[Any, Any]]) -> Command:
    """Give a command options, each an annotation and a default, but those that it has a parameter for."""
    own = list(inspect.signature(command, eval_str=True).parameters.values())
    first = [p for p in own if p.kind is Parameter.POSITIONAL_OR_KEYWORD]
    last = [p for p in own if p.kind is Parameter.KEYWORD_ONLY]
    named = {p.name for p in own}
    made = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in options.items()
        if name not in named
    ]
    command.__signature__ = inspect.Signature([*first, *made, *last])  # type: ignore[attr-defined]
    return command


def _option(field: FieldInfo, annotation: Any) -> tuple[Any, Any]:
    """Annotation and default."""
    default: Any = None if field.default_factory else field.default
    if annotation is None:
        kind: Any = field.annotation
        if get_origin(kind) is Literal:
            kind = str  # what may be said stands in the help; the request refuses the rest
        elif get_origin(kind) is tuple:
            kind, default = str, ",".join(default)
        bounds = {bound: getattr(m, at) for m in field.metadata for bound, at in _BOUNDS.items() if hasattr(m, at)}
        annotation = Annotated[kind, typer.Option(help=field.description, **bounds)]
    return annotation, default


_BOUNDS = {"min": "ge", "max": "le"}
