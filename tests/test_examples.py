"""The scripts of examples/ run, and say what they promise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "examples"


def run(name: str, folder: Path) -> str:
    """What the script prints; its temporary files go into ``folder``."""
    environment = {**os.environ, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(FOLDER / name)], capture_output=True, text=True, env=environment, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_audit_a_folder(tmp_path: Path) -> None:
    printed = run("audit_a_folder.py", tmp_path)
    before, after = (int(hits) for hits in re.findall(r"(\d+) of 500 stamped digits", printed))
    assert before > 400 and after < 50
    assert "evidence" in printed.lower() or "suspicious" in printed.lower()
    assert len(list(tmp_path.glob("doorward-*/audit.html"))) == 1


@pytest.mark.slow
def test_audit_a_model(tmp_path: Path) -> None:
    printed = run("audit_a_model.py", tmp_path)
    assert "A backdoor into class “0”" in printed and "<Repair: After hold" in printed
    assert len(list(tmp_path.glob("doorward-*/repaired.pt"))) == 1


def test_certify(tmp_path: Path) -> None:
    printed = run("certify.py", tmp_path)
    assert "2 changed cells" in printed and "valid=True" in printed


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda p: p.name)
def test_they_are_short(path: Path) -> None:
    assert path.read_text().count("\n") < 60
