"""The documentation site's pages that are made from the registry. `make lint` builds the whole site."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import Field

from doorward.core import methods
from doorward.core.methods import Method
from doorward.core.settings import Settings

ROOT = Path(__file__).parent.parent
ALL = [methods.get(verb, name) for verb in methods.VERBS for name in methods.names(verb)]


@pytest.fixture(scope="module")
def site() -> ModuleType:
    pytest.importorskip("mkdocs")
    spec = importlib.util.spec_from_file_location("gen_methods", ROOT / "docs" / "gen_methods.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class HalfSettings(Settings):
    share: float = Field(0.5, gt=0, le=1, description="of the images | of each class")


@pytest.fixture
def half() -> Iterator[Method]:
    """A method that was registered a moment ago."""

    @methods.method("cleanse", "half", settings=HalfSettings, given={"labels"}, accepts={"target_class"})
    def half(labels: object, s: HalfSettings, *, target_class: int | None = None) -> None:
        """Flag half of the images.

        Nobody 2020, equation 1.

        Args:
            labels: training labels ``[N]``.

        Fails when: always.
        """

    yield methods.get("cleanse", "half")
    del methods._REGISTRY["cleanse", "half"]


@pytest.mark.parametrize("method", ALL, ids=lambda m: f"{m.verb}-{m.name}")
def test_a_page_tells_all(site: ModuleType, method: Method) -> None:
    page = site.method_page(method)
    assert method.summary in page and "## Fails when" in page and f"doorward {method.verb} " in page
    for name, field in method.settings.model_fields.items():
        assert f"| `{name}" in page and field.description.replace("|", "\\|") in page
    assert all(f"| `{name}` |" in page for name in method.given | method.accepts)


def test_a_new_method_gets_its_page(site: ModuleType, half: Method) -> None:
    page = site.method_page(half)
    assert "| `share` | `0.5` | number, above 0, at most 1 | of the images \\| of each class |" in page
    assert "| `labels` | yes | Training labels ``[N]``. |" in page and "Nobody 2020, equation 1." in page
    assert "| `target_class` | no |  (knowledge that an auditor does not have in practice) |" in page
    assert "[`half`](methods/cleanse/half.md)" in site.method_list("cleanse", "cleanse.md")
    assert "half" in str(site.on_config(Config([{"Methods": None}, {"API": [{"Rooms": None}]}])).nav)


class Config:
    """As much of a configuration as the menu needs."""

    def __init__(self, nav: list[object]) -> None:
        self.nav = nav


def test_links_fit_the_site(site: ModuleType) -> None:
    text = "[a](../results/mesa/README.md) ![b](report.png) [c](own.md#images) [d](../results) [e](../src/x.py)"
    told = "[a](results/mesa/README.md) ![b](report.png) [c](own.md#images) [d](results/README.md) e"
    assert site.relink(text, "inversion.md") == told
    assert site.relink("[a](../docs/faces.md) [p](x.parquet)", "results/README.md") == "[a](../faces.md) p"
    assert site.relink("[a](docs/own.md)", "index.md") == "[a](own.md)"
