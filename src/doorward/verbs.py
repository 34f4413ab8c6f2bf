"""Lets a verb's package be called as the verb itself: ``doorward.cleanse(...)``."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Verb(ModuleType):
    """A module whose call is the call of its function ``__verb__``."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__verb__(*args, **kwargs)


def make_callable(module_name: str, function: Any) -> None:
    """Make the imported module ``module_name`` callable; its call runs ``function``."""
    module = sys.modules[module_name]
    module.__class__ = _Verb
    module.__verb__ = function  # type: ignore[attr-defined]
    module.__doc__ = f"{module.__doc__}\n\nCalled: {function.__doc__}"
