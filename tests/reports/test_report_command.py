import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from doorward.cli.report import report_command
from doorward.core.errors import DoorwardError

APP = typer.Typer()
APP.command("report")(report_command)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(APP, [str(a) for a in arguments])


def test_findings_end_with_one(finished_run: Path, tmp_path: Path) -> None:
    result = run(finished_run, "-o", tmp_path / "r.html", "--sarif", tmp_path / "f.sarif", "--title", "T")
    assert result.exit_code == 1
    assert "Evidence of a backdoor in class “0”" in result.stdout
    assert str(tmp_path / "r.html") in result.stdout.replace("\n", "")
    assert json.loads((tmp_path / "f.sarif").read_text())["version"] == "2.1.0"
    assert "<title>T</title>" in (tmp_path / "r.html").read_text()


def test_nothing_found_ends_with_zero(make_run: Any, tmp_path: Path) -> None:
    result = run(make_run(poisoned=0, kinds=("impurity",)), "-o", tmp_path / "r.html")
    assert result.exit_code == 0


def test_json_is_one_object_and_nothing_else(finished_run: Path, make_certificate: Any, tmp_path: Path) -> None:
    result = run(finished_run, make_certificate(), "-o", tmp_path / "r.html", "--json")
    summary = json.loads(result.stdout)
    assert [r["verdict"] for r in summary["runs"]] == ["evidence", "certificate"]
    assert summary["bytes"] == (tmp_path / "r.html").stat().st_size
    first = summary["runs"][0]["findings"][0]
    assert (first["label"], first["level"], first["images"]) == (0, "evidence", 400) and first["sentence"]


@pytest.mark.parametrize("taken", ["r.html", "f.sarif"])
def test_nothing_is_written_when_one_output_is_taken(finished_run: Path, tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("mine")
    arguments = (finished_run, "-o", tmp_path / "r.html", "--sarif", tmp_path / "f.sarif")
    result = run(*arguments)
    assert isinstance(result.exception, DoorwardError)
    assert [p.name for p in tmp_path.iterdir()] == [taken]
    assert (tmp_path / taken).read_text() == "mine"
    assert run(*arguments, "--overwrite").exit_code == 1


def test_page_and_sarif_cannot_be_one_file(finished_run: Path, tmp_path: Path) -> None:
    result = run(finished_run, "-o", tmp_path / "one", "--sarif", tmp_path / "." / "one", "--overwrite")
    assert isinstance(result.exception, DoorwardError) and "is the page's own file" in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_a_broken_run_writes_nothing(tmp_path: Path) -> None:
    result = run(tmp_path / "absent", "-o", tmp_path / "r.html", "--sarif", tmp_path / "f.sarif")
    assert isinstance(result.exception, DoorwardError)
    assert not list(tmp_path.iterdir())


def test_help_shows_an_example() -> None:
    assert "doorward report run/ -o report.html" in " ".join(run("--help").stdout.split())


def test_the_command_s_module_imports_nothing_heavy() -> None:
    code = "import doorward.cli.report, sys; print({'torch', 'numpy', 'jinja2', 'duckdb', 'pydantic'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
