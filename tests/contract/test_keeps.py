"""What every method keeps to, whatever it finds: it repeats, hangs on its seed alone, and leaves its inputs alone."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from doorward.core import methods
from doorward.core.methods import Method
from tests.contract.runs import arrays, digest, found, handed, run, same, stir
from tests.contract.table import ALL, SEED_DECIDES_NOTHING, by_name, knowledge, of, settings
from tests.contract.worlds import CLASSES, certified_sets, world


@cache
def quickly(verb: str, name: str) -> tuple[Any, dict[str, NDArray[Any]]]:
    """A short run with seed 3: its result, and that as arrays."""
    method, w = methods.get(verb, name), world(True)
    stir(1)
    result = run(method, w, seed=3, quick=True)
    return result, arrays(method, result, w)


def again(method: Method, seed: int) -> dict[str, NDArray[Any]]:
    stir(2)
    return arrays(method, run(method, world(True), seed=seed, quick=True), world(True))


@pytest.mark.parametrize("method", ALL, ids=by_name)
def test_the_same_seed_gives_the_same_result_and_inputs_stay(method: Method) -> None:
    """Every run checks that images, labels and weights are as they were."""
    assert same(quickly(method.verb, method.name)[1], again(method, 3))


@pytest.mark.parametrize("method", [m for m in ALL if "seed" in m.given], ids=by_name)
def test_the_seed_that_it_declares_decides_something(method: Method) -> None:
    """The function itself is called, for a verb uses the seed too."""
    w = world(True)
    given = handed(method, w, quick=True)
    before = digest(given)
    first = arrays(method, method.function(**{**given, "seed": 3}), w)
    differs = any(not same(first, arrays(method, method.function(**{**given, "seed": k}), w)) for k in (4, 5))
    assert digest(given) == before, "what it is handed is left as it was, for the next method is handed the same"
    assert differs != (by_name(method) in SEED_DECIDES_NOTHING)


@pytest.mark.parametrize("method", [m for m in of("cleanse", "screen") if "seed" not in m.given], ids=by_name)
def test_without_a_seed_it_leaves_what_it_is_handed_too(method: Method) -> None:
    given = handed(method, world(True), quick=True)
    before = digest(given)
    first, other = (arrays(method, method.function(**given), world(True)) for _ in range(2))
    assert same(first, other) and digest(given) == before


@pytest.mark.parametrize("method", [m for m in ALL if "noise" in m.given], ids=by_name)
def test_other_noise_gives_other_votes(method: Method) -> None:
    assert not same(quickly(method.verb, method.name)[1], again(method, 4))


@pytest.mark.parametrize("method", of("attack"), ids=by_name)
def test_a_recipe_stamps_within_the_valid_range(method: Method) -> None:
    for shape in ((1, 28, 28), (3, 16, 12)):
        stamp = method.function(shape, method.configure(settings(method)), torch.Generator().manual_seed(1))
        images = torch.rand(5, *shape)
        before = images.clone()
        stamped = stamp.apply(images, torch.Generator().manual_seed(2))
        assert torch.equal(images, before) and not torch.equal(stamped, before)
        assert stamped.shape == images.shape and stamped.dtype == images.dtype
        assert stamped.min() >= 0 and stamped.max() <= 1
        assert torch.equal(stamped, stamp.apply(images, torch.Generator().manual_seed(2)))


@pytest.mark.parametrize("method", of("cleanse"), ids=by_name)
def test_a_cleanser_gives_a_score_and_a_flag_per_image(method: Method) -> None:
    result, count = quickly(method.verb, method.name)[0], len(world(True).train)
    assert result.score.shape == result.flag.shape == (count,)
    assert result.score.dtype == np.float32 and result.flag.dtype == bool and np.isfinite(result.score).all()
    assert sum(g.flagged for g in result.groups) == result.flag.sum()
    assert {g.label for g in result.groups} == set(range(CLASSES))


@pytest.mark.parametrize("method", of("cleanse"), ids=by_name)
def test_a_cleanser_does_not_hang_on_the_order_of_the_images(method: Method) -> None:
    w, order = world(True), np.random.default_rng(0).permutation(len(world(True).train))
    shuffled = replace(w, train=w.train.subset(order), poisoned=w.poisoned[order])
    known = knowledge(method, w)
    if "clean_images" in known:  # the same images, where they lie now
        known["clean_images"] = np.argsort(order)[known["clean_images"]]
    first, second = found(method.verb, method.name), run(method, shuffled, known=known)
    assert (first.flag[order] == second.flag).mean() > 0.99, "verdicts do not follow the order"
    assert (first.flag & w.poisoned).sum() == (second.flag & shuffled.poisoned).sum()


@pytest.mark.parametrize("method", of("invert"), ids=by_name)
def test_an_inversion_speaks_of_every_class(method: Method) -> None:
    result = quickly(method.verb, method.name)[0]
    inverted = result.outcomes[method.name].inverted
    assert (
        inverted.statistic.shape == result.class_p_values.shape == (CLASSES,) and inverted.statistic.dtype == np.float64
    )
    assert np.isfinite(inverted.statistic).all() and inverted.meaning
    for flags in (inverted.converged, inverted.works, inverted.ran_out):
        assert flags.shape == (CLASSES,) and flags.dtype == bool
    known = result.class_p_values[np.isfinite(result.class_p_values)]
    assert ((known > 0) & (known <= 1)).all() and (result.p_value is None) == (not len(known))
    height, width = world(True).model.shape[1:]
    for triggers in inverted.triggers.values():
        for t in triggers:
            assert t.pattern.dtype == torch.float32 and t.size[0] <= height and t.size[1] <= width
            assert t.pattern.abs().max() <= 1 and t.alpha.min() >= 0 and t.alpha.max() <= 1
            assert t.blend == "add" or t.pattern.min() >= 0


@pytest.mark.parametrize("method", of("repair"), ids=by_name)
def test_a_repair_gives_a_classifier_of_the_same_kind_and_its_record(method: Method) -> None:
    result, model = quickly(method.verb, method.name)[0], world(True).model
    new = result.classifier
    assert (new.arch, new.classes, new.shape, new.mean, new.std) == (
        model.arch,
        model.classes,
        model.shape,
        model.mean,
        model.std,
    )
    old = model.net.state_dict()
    weights = new.net.state_dict()
    assert weights.keys() == old.keys()
    assert all(v.dtype == old[k].dtype and torch.isfinite(v).all() for k, v in weights.items())
    shared = {v.data_ptr() for v in old.values()} & {v.data_ptr() for v in weights.values()}
    assert new.net is not model.net and not shared, "a copy, not the net that was given"
    assert len(result.steps) >= 2 and all(s.name and s.accuracy.trials for s in result.steps)


@pytest.mark.parametrize("method", of("screen"), ids=by_name)
def test_a_screen_gives_a_score_per_image_whatever_the_batch(method: Method) -> None:
    made, w = quickly(method.verb, method.name)[0], world(True)
    said = made(w.test.pixels)
    assert said.scores.shape == said.flags.shape == (len(w.test),)
    assert said.scores.dtype == np.float64 and said.flags.dtype == bool and np.isfinite(said.scores).all()
    assert (said.flags == (said.scores > said.record.threshold)).all() and said.record.method == method.name
    assert made.scores(w.test.pixels[:7]) == pytest.approx(said.scores[:7], abs=1e-4)


@pytest.mark.parametrize("method", of("certify"), ids=by_name)
def test_a_certificate_has_a_label_and_two_radii_per_image(method: Method) -> None:
    made, (_, test) = quickly(method.verb, method.name)[0], certified_sets()
    for column in (made.predicted, made.radii, made.joint_radii):
        assert column.shape == (len(test),) and column.dtype == np.int64
    assert (made.joint_radii <= made.radii).all() and (made.radii >= -1).all()
    assert ((made.predicted == -1) == (made.radii == -1)).all()
