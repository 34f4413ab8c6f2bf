"""Draws around a found trigger: they cover what is in it and around it, stay in range, and repeat."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from doorward.core.errors import DoorwardError
from doorward.core.triggers import Placement, Trigger
from doorward.inversion.distribution.generators import make_generators
from doorward.inversion.distribution.triggers import TriggerDistribution
from doorward.repairs.parts.around import Around, around

MANY = 600
CORE = ((5, 6), (7, 8))  # two pixels of a square of rows 4 to 7, columns 5 to 8


def scattered(channels: int = 1) -> Trigger:
    """What an inversion finds of a square: two of its pixels, over the whole image."""
    alpha = torch.zeros(1, 20, 20)
    for row, column in CORE:
        alpha[0, row, column] = 0.9
    alpha[0, 15, 15] = 0.01  # crumbs are no part of it
    return Trigger(torch.full((channels, 20, 20), 0.8), alpha)


def grey(count: int = MANY, channels: int = 1, side: int = 20) -> Tensor:
    return torch.full((count, channels, side, side), 0.37)


def changed(stamp: Around, images: Tensor, seed: int = 0) -> Tensor:
    """Which pixels a draw changes clearly, ``[B, H, W]``."""
    return ((stamp.apply(images, torch.Generator().manual_seed(seed)) - images).abs() > 0.02).any(1)


def test_it_stays_in_range_keeps_shapes_and_leaves_its_input() -> None:
    for channels in (1, 3):
        images = torch.rand(64, channels, 20, 20)
        before = images.clone()
        for wider in (False, True):
            stamped = Around(scattered(channels), wider=wider, shift=2).apply(images, torch.Generator().manual_seed(1))
            assert torch.equal(images, before) and stamped.shape == images.shape and stamped.dtype == images.dtype
            assert stamped.min() >= 0 and stamped.max() <= 1 and not torch.equal(stamped, images)


def test_the_generator_decides_and_batches_differ() -> None:
    images, stamp = grey(40), Around(scattered())
    one, two, other = (stamp.apply(images, torch.Generator().manual_seed(s)) for s in (3, 3, 4))
    assert torch.equal(one, two) and not torch.equal(one, other)
    generator = torch.Generator().manual_seed(3)
    assert not torch.equal(stamp.apply(images, generator), stamp.apply(images, generator)), "a batch is not the last"
    assert len({tuple(row.flatten().tolist()) for row in one}) > 30, "an image is not the next one"


def test_supersets_of_the_core_are_among_the_draws_and_so_are_parts() -> None:
    where = changed(Around(scattered()), grey())
    square = where[:, 4:8, 5:9].flatten(1).all(1)
    core = torch.stack([where[:, row, column] for row, column in CORE], 1)
    assert square.float().mean() > 0.15, "the attacker's square, of which the mask found two pixels"
    assert 0.1 < (core.sum(1) < 2).float().mean() < 0.6, "parts of the core"
    reach = where.any(0).nonzero()
    assert reach.amin(0).tolist() == [2, 3] and reach.amax(0).tolist() == [10, 11], "3 pixels more on every side"


def test_the_whole_box_of_pixels_that_lie_apart_is_among_the_draws() -> None:
    alpha = torch.zeros(1, 20, 20)
    alpha[0, 3, 3] = alpha[0, 12, 12] = 1
    where = changed(Around(Trigger(torch.ones(1, 20, 20), alpha)), grey())
    assert 0.15 < where[:, 3:13, 3:13].flatten(1).all(1).float().mean() < 0.35, "one shape of four is a rectangle"


def test_larger_images_are_grown_further_and_large_triggers_not_at_all() -> None:
    alpha = torch.zeros(1, 96, 96)
    alpha[0, 40, 40] = 1
    reach = changed(Around(Trigger(torch.ones(1, 96, 96), alpha)), grey(200, side=96)).any(0).nonzero()
    assert reach.amin(0).tolist() == [31, 31] and reach.amax(0).tolist() == [49, 49], "three times three pixels"
    half = torch.zeros(1, 20, 20)
    half[0, 2:16, 2:16] = 1
    assert not changed(Around(Trigger(torch.ones(1, 20, 20), half)), grey())[:, 16:].any()


def test_contents_are_the_pattern_colours_noise_black_and_white() -> None:
    alpha = torch.zeros(1, 20, 20)
    alpha[0, 4:10, 4:10] = 1
    stamped = Around(Trigger(torch.full((1, 20, 20), 0.8), alpha), grow=0).apply(
        grey(), torch.Generator().manual_seed(0)
    )
    inside = stamped[:, 0, 4:10, 4:10].flatten(1)
    flat = inside[(inside.std(1) < 1e-6)][:, 0]
    for value in (0.0, 0.8, 1.0):
        assert ((flat - value).abs() < 1e-3).float().mean() > 0.04, value
    assert ((flat > 0.05) & (flat < 0.7)).any() and (inside.std(1) > 0.2).any()


def test_a_roaming_trigger_roams_and_a_distribution_is_stamped_whole() -> None:
    patch = Trigger(torch.ones(1, 3, 3), torch.ones(1, 3, 3), Placement("random"))
    where = changed(Around(patch), grey())
    assert where.any(0).all() and where.flatten(1).float().sum(1).max() <= 81, "everywhere, at most 9 x 9 at once"
    net = make_generators(1, 8, 9, 16, torch.Generator().manual_seed(0))
    cloud = TriggerDistribution(net, (1, 3, 3), (0.9,), (1.0,), (0.0,))
    assert changed(Around(cloud), grey()).any(0).all()


def test_the_place_moves_only_where_it_is_asked_to() -> None:
    dot = Trigger(torch.ones(1, 1, 1), torch.ones(1, 1, 1), Placement("fixed", 9, 9))
    assert changed(Around(dot, grow=0), grey()).any(0).nonzero().tolist() == [[9, 9]]
    reach = changed(Around(dot, grow=0, shift=2), grey()).any(0).nonzero()
    assert reach.amin(0).tolist() == [7, 7] and reach.amax(0).tolist() == [11, 11]


def test_an_additive_picture_is_fainter_and_louder() -> None:
    picture = Trigger(torch.full((1, 20, 20), 0.1), torch.ones(1, 20, 20), blend="add")
    gain = (Around(picture).apply(grey(), torch.Generator().manual_seed(0)) - grey()).amax((1, 2, 3)) / 0.1
    assert gain.min() < 0.2 and gain.max() > 2.3 and gain.max() <= 2.5001 and 1.1 < gain.mean() < 1.4


def test_a_stamp_of_another_kind_stays_what_it_is() -> None:
    class Warp:
        def apply(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
            return images.flip(3)

    warp = Warp()
    kept, made = around([warp, scattered()], grow=1)
    assert kept is warp and isinstance(made, Around) and made.grow == 1
    with pytest.raises(DoorwardError, match="3 channels on images of 1"):
        Around(scattered(3)).apply(grey())
    with pytest.raises(DoorwardError, match="does not fit"):
        wide = Trigger(torch.zeros(1, 40, 40), torch.ones(1, 40, 40), Placement("random"))
        Around(wide).apply(grey())
