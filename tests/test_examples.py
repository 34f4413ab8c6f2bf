"""The scripts of examples/ run, and say what they promise."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.light import lighten, look_briefly

FOLDER = Path(__file__).parent.parent / "examples"


@pytest.fixture
def briefly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts run here, in this process, have light nets and short inversions; their temporary files go here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    lighten(monkeypatch)
    look_briefly(monkeypatch, steps=200)


@pytest.mark.slow
def test_audit_a_folder(tmp_path: Path, briefly: None, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(FOLDER / "audit_a_folder.py"), run_name="__main__")
    printed = capsys.readouterr().out
    before, after = (int(hits) for hits in re.findall(r"(\d+) of 500 stamped digits", printed))
    assert before > 400 and after < 50
    assert "evidence" in printed.lower() or "suspicious" in printed.lower()
    assert len(list(tmp_path.glob("doorward-*/audit.html"))) == 1


@pytest.mark.slow
def test_audit_a_model(tmp_path: Path, briefly: None, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(FOLDER / "audit_a_model.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "A backdoor into class “0”" in printed and "<Repair: After hold" in printed
    assert len(list(tmp_path.glob("doorward-*/repaired.pt"))) == 1


def test_certify_in_a_process_of_its_own(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(FOLDER / "certify.py")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 changed cells" in done.stdout and "valid=True" in done.stdout


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda p: p.name)
def test_they_are_short(path: Path) -> None:
    assert path.read_text().count("\n") < 60
