"""From the first moment of a command to what two equal ones leave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.cli.conftest import Call
from tests.conftest import make_images

posix = pytest.mark.skipif(os.name != "posix", reason="needs signals")


@posix
@pytest.mark.parametrize("after", [0.03, 0.1])
def test_an_interrupt_during_the_imports_is_one_line(after: float) -> None:
    heard = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # as a job in the background does not
    )
    program = f"{heard}; import sys; sys.argv[1:] = ['methods']"
    program += "; from doorward.__main__ import main; print(flush=True); main()"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as begun:
        assert begun.stdout is not None and begun.stdout.readline() == b"\n"
        time.sleep(after)
        begun.send_signal(signal.SIGINT)
        _, told = begun.communicate(timeout=60)
    assert begun.returncode == 130
    assert told.decode().splitlines() == ["doorward: interrupted; nothing of this call is kept"]


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> object:
    before = torch.get_num_threads()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, os.environ.get(name, "2"))
    yield before
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_threads_are_set_before_anything_runs(call: Call) -> None:
    torch.set_num_threads(2)
    assert call("--threads", 1, "methods").code == 0
    assert torch.get_num_threads() == 1 and os.environ["OMP_NUM_THREADS"] == "1"
    for wrong in (0, -1, "many"):
        answer = call("--threads", wrong, "methods")
        assert answer.code == 2 and "--threads" in answer.err and "Traceback" not in answer.err


def without_times(value: object) -> object:
    """JSON without how long things took, and where they lie."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in ("seconds", "images_per_second", "command")}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def contents(folder: Path) -> dict[str, object]:
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {
        name: without_times(json.loads(path.read_text())) if path.name == "run.json" else path.read_bytes()
        for name, path in found.items()
    }


@pytest.mark.usefixtures("threads")
def test_equal_trainings_and_inversions_leave_equal_bytes(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "images").mkdir()
    make_images(90).save(tmp_path / "images")
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        assert call("--threads", 1, "train", "../images", "--epochs", 1, "-o", "model").code == 0
        asked = ("--method", "mask", "--set", "mask.steps=10")
        answer = call("--threads", 1, "invert", "model", "--images", "../images", *asked, "-o", "found")
        assert answer.code in (0, 1, 3), answer.err
        assert call("attack", "../images", "--rate", 0.2, "--target", "class-1", "-o", "poisoned").code == 0
    first, second = contents(tmp_path / "first"), contents(tmp_path / "second")
    assert any(name.startswith("found/triggers/") and name.endswith(".safetensors") for name in first)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
