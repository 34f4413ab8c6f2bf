"""Every setting of every registered method says what it does: tables of settings are made from that."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from doorward.core import methods
from doorward.core.methods import Method
from doorward.core.settings import Settings

ALL = [methods.get(verb, name) for verb in methods.VERBS for name in methods.names(verb)]


def undescribed(settings: type[Settings]) -> Iterator[str]:
    for name, field in settings.model_fields.items():
        if not field.description:
            yield name
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            yield from (f"{name}.{inner}" for inner in undescribed(field.annotation))


@pytest.mark.parametrize("method", ALL, ids=lambda m: f"{m.verb}-{m.name}")
def test_every_setting_is_described(method: Method) -> None:
    assert not list(undescribed(method.settings))
