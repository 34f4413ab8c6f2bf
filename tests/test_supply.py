"""What is installed for the suite, and what the list of parts says, are the versions of constraints.txt."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LOCKED = (ROOT / "supply" / "locked.txt").read_text()


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _pins(text: str) -> dict[str, str]:
    found = re.findall(r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)", text, re.MULTILINE)
    return {_plain(name): version for name, version in found}


CONSTRAINTS = _pins((ROOT / "constraints.txt").read_text())


def _required(extras: tuple[str, ...] = ()) -> set[str]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(r for e in extras for r in project["optional-dependencies"][e])]
    return {_plain(re.split(r"[\[<>=]", r)[0]) for r in wanted} - {"doorward"}


def test_the_lock_has_the_versions_of_constraints() -> None:
    locked = _pins(LOCKED)
    elsewhere = {n for n in locked.keys() - CONSTRAINTS.keys() if f"{n}==" in LOCKED and "emscripten" in _entry(n)}
    assert {n: v for n, v in locked.items() if n not in elsewhere} == CONSTRAINTS


def _entry(name: str) -> str:
    return next(p for p in re.split(r"^(?=[A-Za-z0-9])", LOCKED, flags=re.MULTILINE) if p.startswith(f"{name}=="))


def test_every_package_of_the_lock_has_hashes() -> None:
    parts = [p for p in re.split(r"^(?=[A-Za-z0-9])", LOCKED, flags=re.MULTILINE) if "==" in p and p[0] != "#"]
    assert len(parts) == len(_pins(LOCKED))
    assert [p.split()[0] for p in parts if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", p)] == []


def test_all_that_the_suite_needs_is_locked() -> None:
    extras = ("dev", "ray", "keras", "hf", "art", "papers", "docs")
    assert _required(extras) <= _pins(LOCKED).keys()
    assert _pins((ROOT / "supply" / "locked-build.txt").read_text()) == {"setuptools": CONSTRAINTS["setuptools"]}


def test_the_list_of_parts_is_what_an_installation_brings() -> None:
    parts = json.loads((ROOT / "supply" / "sbom.cdx.json").read_text())
    assert (parts["bomFormat"], parts["specVersion"]) == ("CycloneDX", "1.6")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = parts["metadata"]["component"]
    assert (named["name"], named["version"]) == (project["name"], project["version"])
    found = {_plain(c["name"]): c["version"].split("+")[0] for c in parts["components"]}
    assert _required() <= found.keys()
    assert found == {name: CONSTRAINTS[name] for name in found}
    assert {"doorward", *found} >= {_plain(d["ref"].split("==")[0]) for d in parts["dependencies"]} - {"root-component"}
