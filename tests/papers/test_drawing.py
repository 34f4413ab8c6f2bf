"""matplotlib belongs to the papers alone: without it they say so before the work, and nothing else misses it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from doorward.cli.reproduced import carry_out
from doorward.core.errors import DoorwardError
from doorward.papers import smoothing_mnist17
from doorward.papers.drawing import open_pyplot, save_figure

TOLD = r"matplotlib, which draws the figures, is not installed; expected pip install 'doorward\[papers\]'"


def test_without_matplotlib_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(DoorwardError, match=TOLD):
        smoothing_mnist17.reproduce(smoothing_mnist17.profile("mnist-5k", 1, "cpu"), tmp_path / "a", tmp_path / "b")
    with pytest.raises(DoorwardError, match=TOLD):
        carry_out(smoothing_mnist17, None, tmp_path / "a", None, jobs=1, as_json=True)
    assert list(tmp_path.iterdir()) == []


def test_a_figure_is_written_whole(tmp_path: Path) -> None:
    figure, axes = open_pyplot().subplots()
    axes.plot([1, 2])
    assert save_figure(figure, tmp_path / "a.png", 50).read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"] and open_pyplot().get_fignums() == []


def test_everything_can_be_imported_without_it() -> None:
    code = (
        "import importlib, pkgutil, sys; sys.modules['matplotlib'] = None; import doorward\n"
        "for m in pkgutil.walk_packages(doorward.__path__, 'doorward.'):\n"
        "    if not m.name.endswith('__main__'): importlib.import_module(m.name)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
