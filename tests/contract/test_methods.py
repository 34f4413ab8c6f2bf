"""What every registered method keeps to, whatever it does; a new method is tested by being registered."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch

from doorward.cleansers.cleanse import cleanse
from doorward.cleansers.suspicion import Suspicion
from doorward.core import methods
from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.methods import KNOWLEDGE, Method
from doorward.models.train.loop import train
from doorward.models.train.settings import TrainSettings
from tests.conftest import make_images

Trained = tuple[ImageSet, Classifier]
ALL = [methods.get(verb, name) for verb in methods.VERBS for name in methods.names(verb)]
CLEANSERS = [m for m in ALL if m.verb == "cleanse"]
RECIPES = [m for m in ALL if m.verb == "attack"]


def by_name(method: Method) -> str:
    return f"{method.verb}-{method.name}"


@pytest.mark.parametrize("method", ALL, ids=by_name)
def test_it_is_documented(method: Method) -> None:
    assert method.summary.endswith("."), "one sentence first"
    assert len(method.summary) < 125
    if method.verb == "cleanse":
        assert "Fails when" in (method.function.__doc__ or ""), "a cleanser says when it fails"
        assert any(year in (method.function.__doc__ or "") for year in ("201", "202")), "and names its source"


@pytest.mark.parametrize("method", ALL, ids=by_name)
def test_settings_refuse_unknown_names_and_cannot_change(method: Method) -> None:
    with pytest.raises(DoorwardError, match="settings:"):
        method.configure({"no_such_setting": 1})
    fields = method.settings.model_fields
    if fields and not any(field.is_required() for field in fields.values()):
        configured = method.configure()
        with pytest.raises(ValueError):
            setattr(configured, next(iter(fields)), 1)


@pytest.mark.parametrize("method", CLEANSERS, ids=by_name)
def test_its_parameters_are_what_it_declares(method: Method) -> None:
    parameters = inspect.signature(method.function).parameters
    assert set(parameters) == method.given | method.accepts | {"s"}
    assert method.accepts <= KNOWLEDGE and all(parameters[a].default is None for a in method.accepts)


@pytest.fixture(scope="module")
def trained() -> Trained:
    images = make_images(240)
    return images, train(images, "small-cnn", TrainSettings(epochs=3, batch=32, lr=0.05))


def run(method: Method, images: ImageSet, classifier: Classifier, seed: int = 0) -> Suspicion:
    known = {"poisoning_rate": 0.05, "target_class": 1}
    needed = {k: v for k, v in known.items() if k in method.given}
    return cleanse(images, classifier, [method.name], knowledge=needed, seed=seed).suspicion(method.name)


@pytest.mark.parametrize("method", CLEANSERS, ids=by_name)
def test_a_cleanser_gives_a_score_and_a_flag_per_image_and_repeats(method: Method, trained: Trained) -> None:
    images, classifier = trained
    first, again = run(method, images, classifier), run(method, images, classifier)
    assert first.score.shape == first.flag.shape == (240,)
    assert first.score.dtype == np.float32 and first.flag.dtype == bool and np.isfinite(first.score).all()
    assert (first.score == again.score).all() and (first.flag == again.flag).all()
    assert sum(g.flagged for g in first.groups) == first.flag.sum()


@pytest.mark.parametrize("method", CLEANSERS, ids=by_name)
def test_a_cleanser_does_not_hang_on_the_order_of_the_images(method: Method, trained: Trained) -> None:
    images, classifier = trained
    order = np.random.default_rng(0).permutation(len(images))
    first, shuffled = run(method, images, classifier), run(method, images.subset(order), classifier)
    agree = (first.flag[order] == shuffled.flag).mean()
    assert agree > 0.9, "clusterings start from random images, but verdicts must not follow the order"


@pytest.mark.parametrize("method", RECIPES, ids=by_name)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 16, 12)])
def test_a_recipe_stamps_within_the_valid_range_and_leaves_its_input(
    method: Method, shape: tuple[int, int, int]
) -> None:
    if method.name == "accessory":
        pytest.skip("needs a picture; tested with one in tests/attack")
    stamp = method.function(shape, method.configure(), torch.Generator().manual_seed(1))
    images = torch.rand(5, *shape)
    before = images.clone()
    stamped = stamp.apply(images, torch.Generator().manual_seed(2))
    assert torch.equal(images, before) and not torch.equal(stamped, before)
    assert stamped.shape == images.shape and stamped.min() >= 0 and stamped.max() <= 1
    assert torch.equal(stamped, stamp.apply(images, torch.Generator().manual_seed(2)))


def test_knowledge_is_refused_unless_given() -> None:
    images = make_images(60)
    classifier = train(images, "two-layer", TrainSettings(epochs=1, batch=16))

    @methods.method("cleanse", "test-only-oracle", settings=methods.Settings, given={"labels", "target_class"})
    def oracle(labels: np.ndarray, target_class: int, s: methods.Settings) -> None:
        """Never runs."""
        raise AssertionError

    try:
        with pytest.raises(DoorwardError, match="test-only-oracle: needs target_class, which was not given"):
            cleanse(images, classifier, ["test-only-oracle"])
    finally:
        del methods._REGISTRY["cleanse", "test-only-oracle"]
