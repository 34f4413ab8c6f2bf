"""The house stays small enough to take in; `make lint` checks which floor may import which."""

from __future__ import annotations

import ast
import importlib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

import doorward

SOURCE = Path(doorward.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
ROOMS = sorted(p.stem for p in SOURCE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists())
ROOMS.remove("__init__")


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """Every module but the package itself, whose public names are imported when they are used."""
    graph = grimp.build_graph("doorward", cache_dir=None)
    return {m: set(graph.find_modules_directly_imported_by(m)) for m in graph.modules - {"doorward"}}


def room_imports(imports: dict[str, set[str]]) -> set[tuple[str, str]]:
    pairs = {
        (module.split(".")[1], other.split(".")[1]) for module, of in imports.items() for other in of & set(imports)
    }
    return {(room, other) for room, other in pairs if room != other}


def sort(edges: dict[str, set[str]]) -> None:
    """Fail with the cycle, where there is one."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        pytest.fail(f"imports in a circle: {' -> '.join(error.args[1])}")


def test_rooms_are_few() -> None:
    assert len(ROOMS) <= 22, ROOMS


def test_rooms_know_few_others(imports: dict[str, set[str]]) -> None:
    assert len(room_imports(imports)) <= 100


def test_no_imports_in_a_circle(imports: dict[str, set[str]]) -> None:
    sort({module: of - {"doorward"} for module, of in imports.items()})
    edges = dict[str, set[str]]()
    for room, other in room_imports(imports):
        edges.setdefault(room, set()).add(other)
    sort(edges)


def test_the_verifier_stands_apart(imports: dict[str, set[str]]) -> None:
    of_verifier = set().union(
        *(of for module, of in imports.items() if module.split(".")[:2] == ["doorward", "verifier"])
    )
    others = {module for module in of_verifier if not module.startswith("doorward.verifier")}
    assert others == {"doorward.core.opening"}
    assert imports["doorward.core.opening"] == {"doorward.core.errors"}
    assert imports["doorward.core.errors"] == set()


def test_files_and_functions_are_short() -> None:
    for path in FILES:
        text = path.read_text()
        assert text.count("\n") <= 300, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None and node.end_lineno - node.lineno < 80, f"{path}: {node.name}"


def test_public_names_are_few() -> None:
    assert len([name for name in dir(doorward) if not name.startswith("_")]) <= 40
    rooms = [importlib.import_module(f"doorward.{room}") for room in ROOMS if room != "__main__"]
    assert sum(len(getattr(room, "__all__", ())) for room in rooms) <= 120
