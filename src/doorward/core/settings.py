"""`Settings`: the base of every method's settings and of every request. Imports little, for the command line."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from doorward.core.errors import DoorwardError


class Settings(BaseModel):
    """Base of every method's settings: immutable, unknown names refused, ranges checked, numbers finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


S = TypeVar("S", bound=Settings)


def build_settings(kind: type[S], what: str, values: dict[str, Any]) -> S:
    """Settings from plain values; one clear line about ``what`` when a name or a value is wrong."""
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        told = f"setting {where!r} = {first.get('input')!r}: {first['msg']}"
        raise DoorwardError(f"{what}: {told} (settings: {', '.join(kind.model_fields)})") from None
