"""``doorward methods``: what there is, and what each method is given."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from doorward.cli import common


def methods_command(
    verb: Annotated[str, typer.Argument(help="attack, cleanse, certify ...")] = "cleanse",
    as_json: common.AsJson = False,
) -> None:
    """List the methods of a verb: what each does, what it is given, its settings.

    Example: doorward methods cleanse
    """
    from doorward.core import methods
    from doorward.core.errors import DoorwardError

    if verb not in methods.VERBS:
        raise DoorwardError(f"verb {verb!r}; expected one of {', '.join(methods.VERBS)}")
    found = [methods.get(verb, name) for name in methods.names(verb)]
    if as_json:
        rows: list[dict[str, Any]] = [
            {
                "name": m.name,
                "summary": m.summary,
                "given": sorted(m.given),
                "accepts": sorted(m.accepts),
                "settings": m.settings.model_json_schema().get("properties", {}),
            }
            for m in found
        ]
        common.print_json({"verb": verb, "methods": rows})
        return
    for m in found:
        given = ", ".join([*sorted(m.given), *(f"({a})" for a in sorted(m.accepts))]) or "nothing but the image shape"
        settings = ", ".join(_setting(name, field) for name, field in m.settings.model_fields.items()) or "none"
        common.out.print(f"[bold]{common.escape(m.name)}[/bold]  {common.escape(m.summary)}", soft_wrap=True)
        common.out.print(f"    given: {common.escape(given)}", soft_wrap=True)
        common.out.print(f"    settings: {common.escape(settings)}", soft_wrap=True)


def _setting(name: str, field: Any) -> str:
    default = field.get_default(call_default_factory=True, validated_data={})
    return f"{name} (required)" if field.is_required() else f"{name}={default!r}"
