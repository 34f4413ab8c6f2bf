"""``doorward reproduce cluster-impurity``: mistakes are one line, a dry run writes nothing, one case runs through."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.cli.conftest import Call

COMMAND = ("reproduce", "cluster-impurity", "--profile", "quick")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--size", 0.001), "size 0.001 rounds to no change; expected at least 0.0039"),
        (("--source-class", 7), "source class 7 equals the target; expected another class"),
        (("--single-count", 500), "500 images to poison, but the source classes hold 400; expected 1 to 400"),
        (("--profile", "slow"), "profile 'slow'; expected one of cpu, gpu, quick, faithful"),
        (("--trainer", "lazy"), "trainer 'lazy'; expected one of faithful, fast, quick"),
        (("--channels", "two"), "--channels two; expected all or one"),
        (("--only", "lunch"), "no case 'lunch'; expected one of multiple-source-0.4"),
        (("--set", "epochs"), "expected NAME=VALUE"),
    ],
)
def test_mistakes_are_one_line_with_exit_code_2_and_leave_nothing(
    options: tuple[object, ...], message: str, call: Call, tmp_path: Path
) -> None:
    answer = call(*COMMAND, *options, "-o", tmp_path / "out")
    assert answer.code == 2 and answer.out == ""
    assert message in answer.err and len(answer.err.strip().splitlines()) == 1, answer.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_the_gpu_profile_without_a_gpu_is_refused(call: Call, tmp_path: Path) -> None:
    answer = call(*COMMAND, "--profile", "gpu", "-o", tmp_path / "out")
    assert answer.code == 2 and "without CUDA GPU; expected one, or profile 'cpu'" in answer.err


def test_a_dry_run_lists_the_stages_and_writes_nothing(call: Call, tmp_path: Path) -> None:
    answer = call(*COMMAND, "--dry-run", "--json", "-o", tmp_path / "out")
    stages = [s["stage"] for s in answer.json["stages"]]
    assert answer.code == 0 and "multiple-source-0.4, seed 0: retrain after CI" in stages
    assert answer.json["seconds"] > 0 and not (tmp_path / "out").exists()


def test_one_case_runs_through(call: Call, tmp_path: Path) -> None:
    options = ("--only", "control", "--set", "epochs=1", "-o", tmp_path / "out", "--json")
    answer = call(*COMMAND, *options)
    assert answer.code == 0 and "No poison: what is flagged all the same" in answer.json["text"]
    assert (tmp_path / "out" / "results" / "report.html").exists()
    again = call(*COMMAND, *options[:-1])
    assert again.code == 0 and "No poison" in again.out
    other = call(*COMMAND, "--only", "control", "--set", "epochs=2", "-o", tmp_path / "out")
    assert other.code == 2 and "holds runs with training" in other.err
