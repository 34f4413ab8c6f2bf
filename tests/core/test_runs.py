"""A run is whole or absent, resumes, and never deletes what it did not write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from doorward.core.errors import DoorwardError, OutputExistsError
from doorward.core.files import write_json
from doorward.core.opening import read_json
from doorward.core.runs import Run


def test_a_finished_run_has_its_manifest_and_no_partial(tmp_path: Path) -> None:
    with Run(tmp_path / "r", "train", {"seed": 1}, command="doorward train x") as run:
        (run.work / "data").write_text("x")
        assert not (tmp_path / "r").exists(), "the name appears only when the run is complete"
        run.results = {"loss": 0.5}
    manifest = Run.read(tmp_path / "r", "train")
    assert manifest["results"] == {"loss": 0.5} and manifest["settings"] == {"seed": 1}
    assert manifest["command"] == "doorward train x" and "torch" in manifest["versions"]
    assert not (tmp_path / "r.partial").exists()


def test_an_exception_leaves_finished_work_for_a_resume(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Run(tmp_path / "r", "train", {"seed": 1}) as run:
        (run.work / "checkpoint").write_text("half way")
        raise KeyboardInterrupt
    assert not (tmp_path / "r").exists()
    with Run(tmp_path / "r", "train", {"seed": 1}) as run:
        assert run.resumed and (run.work / "checkpoint").read_text() == "half way"


def test_an_exception_before_any_work_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DoorwardError), Run(tmp_path / "r", "train", {}):
        raise DoorwardError("no")
    assert list(tmp_path.iterdir()) == []


def test_other_settings_do_not_resume(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Run(tmp_path / "r", "train", {"seed": 1}) as run:
        (run.work / "checkpoint").write_text("x")
        raise KeyboardInterrupt
    with (
        pytest.raises(OutputExistsError, match="unfinished run with other settings"),
        Run(tmp_path / "r", "train", {"seed": 2}),
    ):
        pass
    with Run(tmp_path / "r", "train", {"seed": 2}, overwrite=True) as run:
        assert not run.resumed and not (run.work / "checkpoint").exists()


def test_an_existing_folder_is_refused_then_replaced_as_a_whole(tmp_path: Path) -> None:
    for seed in (1, 2):
        with Run(tmp_path / "r", "train", {"seed": seed}, overwrite=seed == 2) as run:
            (run.work / f"from-{seed}").write_text("x")
            if seed == 2:
                assert (tmp_path / "r" / "from-1").exists(), "the old run stays until the new one is complete"
    assert sorted(p.name for p in (tmp_path / "r").iterdir()) == ["from-2", "run.json"]
    with pytest.raises(OutputExistsError, match="exists already"), Run(tmp_path / "r", "train", {}):
        pass


def test_overwrite_never_deletes_a_folder_that_no_run_wrote(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with (
        pytest.raises(OutputExistsError, match="was not written by doorward"),
        Run(tmp_path / "mine", "train", {}, overwrite=True),
    ):
        pass
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_a_full_disk_is_one_line_and_keeps_what_was_done(tmp_path: Path) -> None:
    with pytest.raises(DoorwardError, match="No space left"), Run(tmp_path / "r", "train", {}) as run:
        (run.work / "checkpoint").write_text("x")
        raise OSError(28, "No space left on device", "checkpoint")
    assert (tmp_path / "r.partial" / "checkpoint").exists()


def test_an_unwritable_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DoorwardError, match="cannot be written"), Run(tmp_path / "file" / "r", "train", {}):
        pass


def test_reading_the_wrong_thing_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DoorwardError, match="holds no run.json"):
        Run.read(tmp_path)
    with Run(tmp_path / "r", "train", {}):
        pass
    with pytest.raises(DoorwardError, match="written by 'doorward train'.*'doorward cleanse'"):
        Run.read(tmp_path / "r", "cleanse")
    (tmp_path / "r" / "run.json").write_text('{"verb": "train", "resu')
    with pytest.raises(DoorwardError, match=r"run\.json"):
        Run.read(tmp_path / "r")


@pytest.mark.parametrize("change", [{"results": None}, {"settings": []}, {"verb": 3}, {}])
def test_a_manifest_without_its_parts_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    with Run(tmp_path / "r", "demo", {}):
        pass
    manifest = json.loads((tmp_path / "r" / "run.json").read_text())
    if not change:
        del manifest["results"]
    (tmp_path / "r" / "run.json").write_text(json.dumps(manifest | change))
    with pytest.raises(DoorwardError, match=f"{next(iter(change), 'results')} is .*expected a file"):
        Run.read(tmp_path / "r")


def test_write_json_refuses_nan_and_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1} == read_json(tmp_path / "a.json")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
