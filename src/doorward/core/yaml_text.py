"""Plain values in YAML: no aliases, which a few lines multiply without end, every name once, bounded depth."""

from __future__ import annotations

from typing import Any

from doorward.core.errors import DoorwardError, brief, show

_MAX_DEPTH = 64  # of lists and names in each other


class NotYamlError(DoorwardError):
    """Text that is no YAML at all, and may be meant as it stands."""


def parse_yaml(text: str, where: object, expected: str = "YAML") -> Any:
    """Plain values, as ``yaml.safe_load`` gives them.

    Args:
        where: what is read, and ``expected`` what it should be, for the message.

    Raises:
        NotYamlError: no YAML.
        DoorwardError: an alias (``*name``), a name that comes twice, or values too deep in each other.
    """
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.events.AliasEvent):
                raise ValueError("an alias (*name), which is not read")
            self.depth += 1
            if self.depth > _MAX_DEPTH:
                raise ValueError(f"more than {_MAX_DEPTH} values in each other")
            try:
                return super().compose_node(parent, index)
            finally:
                self.depth -= 1

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if len(set(names)) != len(names):
                twice = next(name for at, name in enumerate(names) if name in names[:at])
                raise ValueError(f"the name {twice[:80]!r} comes twice")
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise NotYamlError(f"{show(where)}: {brief(error)}; expected {expected}") from None
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise DoorwardError(f"{show(where)}: {brief(error)}; expected {expected}") from None
