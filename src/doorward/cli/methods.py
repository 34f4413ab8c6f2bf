"""``doorward methods``: what there is, and what each method is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from doorward.cli import common

if TYPE_CHECKING:
    from doorward.core.methods import Method
    from doorward.core.settings import Settings


def methods_command(
    verb: Annotated[
        str | None, typer.Argument(help="attack, cleanse, invert, repair, screen, certify or train; default all.")
    ] = None,
    as_json: common.AsJson = False,
) -> None:
    """List the methods of a verb: what each does, what it is given, its settings. Of train, the settings.

    Example: doorward methods cleanse
    """
    from doorward.core import methods
    from doorward.core.errors import DoorwardError

    if verb is not None and verb not in (*methods.VERBS, "train"):
        raise DoorwardError(f"verb {verb!r}; expected one of {', '.join((*methods.VERBS, 'train'))}")
    verbs = [verb] if verb else [*methods.VERBS, "train"]
    if as_json:
        listed = [_as_json(name) for name in verbs]
        common.print_json(listed[0] if verb else {"verbs": listed})
        return
    for name in verbs:
        if verb is None:
            common.out.print(f"[bold]doorward {name}[/bold]", soft_wrap=True)
        _show(name)


def _found(verb: str) -> list[Method]:
    from doorward.core import methods

    return [methods.get(verb, name) for name in methods.names(verb)]


def _train_settings() -> type[Settings]:
    from doorward.models.train.settings import TrainSettings

    return TrainSettings


def _as_json(verb: str) -> dict[str, Any]:
    if verb == "train":
        return {"verb": verb, "settings": _train_settings().model_json_schema().get("properties", {})}
    rows = [
        {
            "name": m.name,
            "summary": m.summary,
            "given": sorted(m.given),
            "accepts": sorted(m.accepts),
            "settings": m.settings.model_json_schema().get("properties", {}),
        }
        for m in _found(verb)
    ]
    return {"verb": verb, "methods": rows}


def _show(verb: str) -> None:
    if verb == "train":
        for name, field in _train_settings().model_fields.items():
            common.out.print(f"{common.escape(_setting(name, field))}  {field.description}", soft_wrap=True)
        return
    for m in _found(verb):
        given = ", ".join([*sorted(m.given), *(f"({a})" for a in sorted(m.accepts))]) or "nothing but the image shape"
        settings = ", ".join(_setting(name, field) for name, field in m.settings.model_fields.items()) or "none"
        common.out.print(f"[bold]{common.escape(m.name)}[/bold]  {common.escape(m.summary)}", soft_wrap=True)
        common.out.print(f"    given: {common.escape(given)}", soft_wrap=True)
        common.out.print(f"    settings: {common.escape(settings)}", soft_wrap=True)


def _setting(name: str, field: Any) -> str:
    default = field.get_default(call_default_factory=True, validated_data={})
    return f"{name} (required)" if field.is_required() else f"{name}={default!r}"
