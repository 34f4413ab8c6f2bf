"""The whole way on the command line, on real digits, and every mistake in one line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from doorward.cli.app import main
from doorward.core.runs import Run
from doorward.core.tables import read_parquet
from tests.cli.conftest import Call
from tests.light import lighten

TRAINING = ("--epochs", 6, "--set", "batch=64", "--set", "lr=0.05")


@pytest.fixture(scope="module", autouse=True)
def light() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        lighten(patch)
        yield


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Poisoned set, model and cleanse run, made once by the commands themselves."""
    folder = tmp_path_factory.mktemp("way")
    commands: list[tuple[object, ...]] = [
        ("attack", "mnist-5k", "--recipe", "patch", "--rate", 0.02, "--seed", 1, "-o", folder / "poisoned"),
        ("train", folder / "poisoned", *TRAINING, "--seed", 1, "-o", folder / "model"),
        ("cleanse", folder / "poisoned", "--model", folder / "model", "--method", "impurity", "-o", folder / "run"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        for command in commands:
            patch.setattr(sys, "argv", ["doorward", *map(str, command)])
            with pytest.raises(SystemExit):
                main()
    assert (folder / "run" / "run.json").exists()
    return folder


def test_the_way_finds_the_backdoor_and_removes_it(way: Path, call: Call) -> None:
    again = call(
        "cleanse", way / "poisoned", "--model", way / "model", "--method", "impurity", "-o", way / "r2", "--json"
    )
    assert again.code == 1, "findings end with 1"
    first = Run.read(way / "run")["results"]["methods"]["impurity"]
    assert again.json["methods"]["impurity"]["flagged"] == first["flagged"]
    trained = call("train", way / "poisoned", *TRAINING, "--without", way / "run", "-o", way / "after", "--json")
    assert trained.code == 0 and trained.json["images"] < 4000
    models = ("--model", f"before={way / 'model'}", "--model", f"after={way / 'after'}")
    truth = way / "poisoned" / "truth.parquet"
    scored = call("score", way / "run", "--truth", truth, "--test", "mnist-5k", *models, "--json")
    assert scored.code == 0
    found = scored.json["methods"]["impurity"]
    assert found["tpr"]["value"] > 0.95 and found["fpr"]["value"] < 0.01 and found["fpr_target"]["trials"] < 500
    before, after = scored.json["models"]
    assert before["asr"]["value"] > 0.9 and after["asr"]["value"] < 0.05
    reported = call("report", way / "run", "-o", way / "report.html")
    assert reported.code == 1 and (way / "report.html").stat().st_size < 3_000_000


def test_the_run_repeats_exactly(way: Path, call: Call) -> None:
    call("attack", "mnist-5k", "--recipe", "patch", "--rate", 0.02, "--seed", 1, "-o", way / "poisoned2")
    first, second = (Run.read(way / name)["results"]["sha256"] for name in ("poisoned", "poisoned2"))
    assert first == second
    call("cleanse", way / "poisoned2", "--model", way / "model", "--method", "impurity", "-o", way / "run2")
    samples = [read_parquet(way / name / "samples.parquet") for name in ("run", "run2")]
    assert all(np.array_equal(samples[0][k], samples[1][k]) for k in samples[0])


def test_a_clean_set_ends_with_zero(way: Path, call: Call) -> None:
    call("train", "mnist-5k", *TRAINING, "--seed", 1, "-o", way / "clean-model")
    found = call(
        "cleanse", "mnist-5k", "--model", way / "clean-model", "--method", "impurity", "-o", way / "clean", "--json"
    )
    assert found.code == 0 and found.json["methods"]["impurity"]["flagged"] == 0
    scored = call("score", way / "clean", "--clean", "--json")
    assert scored.json["attack"] is None and scored.json["methods"]["impurity"]["tpr"]["value"] is None


def test_truth_is_not_among_what_a_defence_loads(way: Path) -> None:
    from doorward.data.sources import load_images

    images = load_images(str(way / "poisoned"))
    assert set(vars(images)) - {"hash"} == {"pixels", "labels", "classes", "name", "provenance", "ids"}
    text = (way / "poisoned" / "images.json").read_text()
    assert "poison" not in text and "truth" not in text, "the set itself must not tell"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("attack", "nowhere/", "-o", "OUT"), "nowhere"),
        (("attack", "mnist-5k", "--recipe", "spell", "-o", "OUT"), "no method 'spell'; expected one of accessory"),
        (("attack", "mnist-5k", "--rate", "3", "-o", "OUT"), "poisoning rate 3.0; expected a number between 0 and 1"),
        (
            ("attack", "mnist-5k", "--target", "10", "-o", "OUT"),
            "class '10'; expected one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 or 0..9",
        ),
        (("attack", "mnist-5k", "--set", "size", "-o", "OUT"), "expected NAME=VALUE"),
        (("attack", "mnist-5k", "--mode", "melt", "-o", "OUT"), "--mode melt; expected replace or add"),
        (("attack", "mnist-5k", "--plan", "none.yaml", "-o", "OUT"), "none.yaml"),
        (("train", "mnist-5k", "--net", "resnet9000", "-o", "OUT"), "net 'resnet9000'; expected one of two-layer"),
        (("train", "mnist-5k", "--set", "lr=fast", "-o", "OUT"), "'lr' = 'fast'"),
        (("train", "mnist-5k", "--device", "abacus", "-o", "OUT"), "abacus"),
        (("train", "mnist-5k", "--without", "norun", "-o", "OUT"), "norun: holds no run.json"),
        (
            ("cleanse", "mnist-5k", "--model", "nomodel", "-o", "OUT"),
            "nomodel: no such file or folder",
        ),
        (("cleanse", "mnist-5k", "--model", "m", "--method", "magic", "-o", "OUT"), "no method 'magic'"),
        (("cleanse", "mnist-5k", "--model", "m", "--set", "threshold=1", "-o", "OUT"), "METHOD.NAME=VALUE"),
        (("score", "norun", "--clean"), "norun: holds no run.json"),
        (("score", "norun"), "either --truth FILE (truth.parquet, or a list of ids) or --clean"),
        (("methods", "dance"), "verb 'dance'; expected one of attack"),
        (("attack",), "Missing argument"),
        (("frobnicate",), "frobnicate"),
    ],
)
def test_mistakes_are_one_line_with_exit_code_2_and_leave_nothing(
    command: tuple[str, ...], message: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = call(*command)
    assert answer.code == 2 and answer.out == ""
    assert message in answer.err and len(answer.err.strip().splitlines()) == 1, answer.err
    assert list(tmp_path.iterdir()) == []


def test_an_existing_output_is_refused_unless_overwritten(way: Path, call: Call) -> None:
    command = ("attack", "mnist-5k", "--rate", 0.01, "-o", way / "twice")
    assert call(*command).code == 0
    refused = call(*command)
    assert refused.code == 2 and "exists already" in refused.err
    assert call(*command, "--overwrite").code == 0


def test_flags_of_another_set_do_not_apply(way: Path, call: Call) -> None:
    answer = call("train", "mnist-5k", "--without", way / "run", "-o", way / "wrong")
    assert answer.code == 2 and "looked at other images" in answer.err


def test_an_interrupted_training_goes_on_with_the_same_command(
    way: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    from doorward.models.train import loop

    original, calls = loop.run_epoch, []

    def interrupted(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(*arguments)  # type: ignore[arg-type]

    command = ("train", way / "poisoned", *TRAINING, "--seed", 1, "-o", way / "again")
    monkeypatch.setattr(loop, "run_epoch", interrupted)
    answer = call(*command)
    assert answer.code == 130 and "the same command goes on from here" in answer.err and not (way / "again").exists()
    assert call(*command).code == 0 and len(calls) == 7, "three epochs before, three after"
    weights = [(way / name / "weights.safetensors").read_bytes() for name in ("model", "again")]
    assert weights[0] == weights[1]


def test_methods_are_listed_with_what_they_are_given(call: Call) -> None:
    answer = call("methods", "cleanse", "--json")
    names = [m["name"] for m in answer.json["methods"]]
    assert {"spectral", "activation", "impurity"} <= set(names)
    assert "poisoning_rate" in next(m for m in answer.json["methods"] if m["name"] == "spectral")["accepts"]


def test_help_does_not_import_torch() -> None:
    code = "import sys; sys.argv = ['doorward', '--help']\nimport doorward\nfrom doorward.cli.app import main\n"
    code += "try: main()\nexcept SystemExit: pass\nassert not {'torch', 'sklearn', 'duckdb', 'PIL'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_control_characters_of_names_do_not_reach_the_terminal(tmp_path: Path, call: Call) -> None:
    answer = call("attack", str(tmp_path / "\x1b[31mred"), "-o", tmp_path / "out")
    assert answer.code == 2 and "\x1b" not in answer.err


def test_a_plan_has_several_triggers_and_targets(tmp_path: Path, call: Call) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        "- {recipe: patch, target: 3, settings: {colours: white}}\n"
        "- {recipe: pixel, target: next, sources: ['1', 7], settings: {size: 1.0}}\n"
    )
    made = call("attack", "mnist-5k", "--plan", plan, "--count", 40, "-o", tmp_path / "p", "--json")
    assert made.code == 0 and made.json["poisoned"] == 40
    assert made.json["description"] == "patch+pixel: any class -> 3; 1, 7 -> the next class"
    truth = read_parquet(tmp_path / "p" / "truth.parquet")
    second = truth["stamp"] == 1
    assert second.sum() == 20 and set(truth["original_label"][second]) <= {1, 7}
    plan.write_text("- {recipe: patch, tarrget: 3}\n")
    refused = call("attack", "mnist-5k", "--plan", plan, "-o", tmp_path / "q")
    assert refused.code == 2 and "no setting 'tarrget'; did you mean 'target'" in refused.err


def test_an_attacker_inside_the_training_plants_a_backdoor_in_clean_data(way: Path, call: Call) -> None:
    inside = ("--attacker", way / "poisoned", "--probability", 0.1, "--seed", 1)
    trained = call("train", "mnist-5k", *TRAINING, *inside, "-o", way / "inside", "--json")
    assert trained.code == 0 and trained.json["images"] == 4000
    truth = ("--truth", way / "poisoned" / "truth.parquet", "--test", "mnist-5k")
    scored = call("score", way / "run", *truth, "--model", way / "inside", "--json")
    (model,) = scored.json["models"]
    assert model["name"] == "inside" and model["asr"]["value"] > 0.9 and model["clean_accuracy"]["value"] > 0.9
    refused = call("train", "mnist-5k", *inside[:2], "--probability", 0, "-o", way / "never")
    assert refused.code == 2 and "probability 0" in refused.err


def test_the_truth_of_another_attack_on_as_many_images_is_refused(way: Path, call: Call) -> None:
    assert call("attack", "mnist-5k", "--rate", 0.02, "--seed", 2, "-o", way / "other").code == 0
    refused = call("score", way / "run", "--truth", way / "other" / "truth.parquet")
    assert refused.code == 2 and "but others; expected the truth of the same set" in refused.err
    assert call("score", way / "run", "--truth", way / "poisoned" / "truth.parquet").code == 0


def test_a_repair_is_scored_on_images_that_it_did_not_work_on(way: Path, call: Call) -> None:
    assert call("repair", way / "model", "--images", "mnist-5k", "--method", "refresh", "-o", way / "fixed").code == 3
    models = ("--model", f"before={way / 'model'}", "--model", f"after={way / 'fixed'}")
    scored = call("score", way / "run", "--clean", "--test", "mnist-5k", *models, "--json")
    assert [m["clean_accuracy"]["trials"] for m in scored.json["models"]] == [200, 200], "a fifth of 1,000 was held out"
    other = ("--images", "mnist-5k", "--method", "refresh", "--seed", 1, "-o", way / "otherwise")
    assert call("repair", way / "model", *other).code == 3
    refused = call("score", way / "run", "--clean", "--test", "mnist-5k", *models, "--model", way / "otherwise")
    assert refused.code == 2 and "held out other images of the test set; expected one of them at a time" in refused.err


def test_training_that_diverges_or_leaves_nothing_out_is_refused(way: Path, call: Call) -> None:
    refused = call("train", "mnist-5k", "--epochs", 1, "--set", "lr=1e6", "-o", way / "far")
    assert refused.code == 2 and "loss nan in epoch 1; expected a smaller lr than 1e+06" in refused.err
    assert not list(way.glob("far*")), "nothing to go on from"
    refused = call("train", way / "poisoned", "--by", "impurity", "-o", way / "all")
    assert refused.code == 2 and "--by impurity without a run; expected --without RUN" in refused.err


def test_a_run_does_not_overwrite_what_it_reads(way: Path, call: Call) -> None:
    for output, name in ((way / "model", "model"), (way / "poisoned", "source")):
        command = ("cleanse", way / "poisoned", "--model", way / "model", "--method", "spectral", "-o", output)
        refused = call(*command, "--overwrite")
        assert refused.code == 2 and f"is what this run reads ({name}); expected another folder" in refused.err
    assert (way / "model" / "weights.safetensors").exists() and (way / "poisoned" / "images.npy").exists()


def test_a_set_without_splits_can_be_tested_on(tmp_path: Path, call: Call) -> None:
    rng = np.random.default_rng(0)
    for name in ("mine", "others"):
        np.savez(
            tmp_path / f"{name}.npz", images=rng.integers(0, 256, (40, 8, 8, 1), np.uint8), labels=np.arange(40) % 4
        )
    command = ("train", tmp_path / "mine.npz", "--net", "two-layer", "--epochs", 1, "--test")
    trained = call(*command, tmp_path / "others.npz", "-o", tmp_path / "net", "--json")
    assert trained.code == 0 and trained.json["test_accuracy"]["trials"] == 40
    refused = call(*command, "mnist-5k", "-o", tmp_path / "never")
    assert refused.code == 2 and "10 classes of 1x28x28 images; expected those of" in refused.err
    asked = ("cleanse", tmp_path / "mine.npz", "--model", tmp_path / "net", "--method", "spectral")
    assert "of these images only. It has not learned them" in call(*asked, "-o", tmp_path / "r").out
    np.savez(tmp_path / "named.npz", images=np.zeros((40, 8, 8, 1), np.uint8), labels=np.array(list("abcd") * 10))
    refused = call("cleanse", tmp_path / "named.npz", *asked[2:], "-o", tmp_path / "never")
    assert refused.code == 2 and "without class '0', '1', '2', '3' of the model, with class 'a'" in refused.err


def test_a_bug_ends_with_2_and_its_traceback_since_1_means_findings(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from doorward.attacks import job as command

    monkeypatch.setattr(command, "build_attack", lambda *_: 1 / 0)
    answer = call("attack", "mnist-5k", "-o", tmp_path / "p")
    assert answer.code == 2 and "ZeroDivisionError" in answer.err and "mistake of doorward, not yours" in answer.err
