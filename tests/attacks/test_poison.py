"""Poisoning: exactly the chosen images change, the truth says which, and the rules hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from doorward.attacks.attack import attack
from doorward.attacks.files import load_attack, load_truth, save_attack, save_truth
from doorward.attacks.plan import Attack, BatchStamping, Pairing
from doorward.attacks.poison import poison
from doorward.attacks.stamps import make_stamp
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from tests.conftest import make_images


def test_replace_changes_exactly_the_poisoned_images(images: ImageSet) -> None:
    poisoned = attack(images, "patch", target=1, rate=0.1, seed=3)
    truth = poisoned.truth
    assert truth.poisoned.sum() == 6 and len(poisoned.images) == len(images)
    assert (poisoned.images.pixels[~truth.poisoned] == images.pixels[~truth.poisoned]).all()
    assert (poisoned.images.labels[~truth.poisoned] == images.labels[~truth.poisoned]).all()
    assert (poisoned.images.labels[truth.poisoned] == 1).all()
    assert (truth.original_label == images.labels).all() and (truth.original_label[truth.poisoned] != 1).all()
    changed = (poisoned.images.pixels != images.pixels).any(axis=(1, 2, 3))
    assert (changed == truth.poisoned).all(), "a 3 x 3 checkerboard differs from every one of these images"


def test_add_keeps_every_clean_image_and_shuffles_copies_in(images: ImageSet) -> None:
    poisoned = attack(images, "patch", target=1, count=12, mode="add", seed=3)
    truth = poisoned.truth
    assert len(poisoned.images) == 72 and truth.poisoned.sum() == 12
    clean = np.flatnonzero(~truth.poisoned)
    assert sorted(truth.source_index[clean]) == list(range(60))
    assert (poisoned.images.pixels[clean] == images.pixels[truth.source_index[clean]]).all()
    assert not truth.poisoned[-12:].all(), "poisoned copies must not all lie at the end"


def test_it_repeats_exactly_and_depends_on_the_seed(images: ImageSet) -> None:
    first, again, other = (attack(images, "blend", rate=0.2, seed=s) for s in (5, 5, 6))
    assert first.images.hash == again.images.hash != other.images.hash


@pytest.mark.parametrize("recipe", ["patch", "pixel", "blend", "sinusoid", "warp"])
def test_every_recipe_saves_and_loads(recipe: str, images: ImageSet, tmp_path: Path) -> None:
    poisoned = attack(images, recipe, target=2, rate=0.2, seed=1)
    save_attack(poisoned.attack, tmp_path)
    save_truth(poisoned.truth, tmp_path / "truth.parquet")
    again, truth = load_attack(tmp_path), load_truth(tmp_path / "truth.parquet")
    batch = torch.rand(4, *images.shape)
    assert torch.equal(again.pairings[0].stamp.apply(batch), poisoned.attack.pairings[0].stamp.apply(batch))
    assert again.recipe == recipe and again.pairings[0].target == 2
    assert all((getattr(truth, k) == v).all() for k, v in vars(poisoned.truth).items())


def test_label_rules(images: ImageSet) -> None:
    everyone = attack(images, "patch", target="next", rate=0.5, seed=1)
    rows = everyone.truth.poisoned
    assert (everyone.images.labels[rows] == (images.labels[rows] + 1) % 3).all()
    some = attack(images, "patch", target=0, sources=(2,), rate=0.1, seed=1)
    assert (some.truth.original_label[some.truth.poisoned] == 2).all()


def test_several_triggers_with_several_targets(images: ImageSet) -> None:
    stamps = [make_stamp("patch", images.shape, colours=c) for c in ("white", "black")]
    plan = Attack("two", (Pairing(stamps[0], 0), Pairing(stamps[1], 1)))
    poisoned = poison(images, plan, count=20, seed=1)
    for number in (0, 1):
        rows = poisoned.truth.stamp == number
        assert rows.sum() == 10 and (poisoned.images.labels[rows] == number).all()
        assert (poisoned.images.pixels[rows, 8:11, 6:9] == 255 * (1 - number)).all()


def test_one_pixel_is_one_pixel(images: ImageSet) -> None:
    poisoned = attack(images, "pixel", rate=0.3, seed=2, settings={"size": 0.25})
    difference = poisoned.images.pixels.astype(int) - images.pixels.astype(int)
    rows = poisoned.truth.poisoned
    places = {tuple(p) for image in difference[rows] for p in np.argwhere(image.any(axis=2))}
    assert len(places) == 1, "the place is fixed for all poisoned images"
    ((row, column),) = places
    assert 3 <= row < 9 and 3 <= column < 7, "at least 3 pixels from the border"
    assert set(np.unique(difference[rows][:, row, column])) <= {64}  # .25 * 255 = 63.75, on the grid 64


def test_batches_are_stamped_with_the_given_probability(images: ImageSet) -> None:
    plan = Attack("patch", (Pairing(make_stamp("patch", images.shape), 1),))
    stamping = BatchStamping(plan, 0.25, 3)
    batch, labels = torch.rand(4000, *images.shape), torch.arange(4000) % 3
    stamped, relabelled = stamping(batch, labels, torch.Generator().manual_seed(0))
    changed = (stamped != batch).flatten(1).any(dim=1)
    assert (relabelled[changed] == 1).all() and (relabelled[~changed] == labels[~changed]).all()
    eligible = int((labels != 1).sum())
    assert abs(float(changed.sum()) / eligible - 0.25) < 4 * (0.25 * 0.75 / eligible) ** 0.5


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"rate": 0.0}, "poisoning rate 0.0"),
        ({"rate": 1.5}, "poisoning rate 1.5"),
        ({"rate": 0.001}, "is no image"),
        ({"rate": 0.9, "target": 0, "sources": (1,)}, "hold 20; expected a lower rate"),
        ({"rate": 0.1, "target": 7}, "class 7; expected one of 0..2"),
        ({"rate": 0.1, "target": 1, "sources": (1,)}, "source class 1 equals the target"),
        ({"rate": 0.1, "count": 3}, "exactly one of them"),
        ({"rate": 0.1, "settings": {"size": 99}}, "expected a smaller size"),
        ({"rate": 0.1, "settings": {"row": 11}}, "does not fit"),
        ({"rate": 0.1, "settings": {"colour": "red"}}, "settings: place, row, column, size, colours"),
    ],
)
def test_mistakes_are_one_clear_line(images: ImageSet, asked: dict[str, object], message: str) -> None:
    with pytest.raises(DoorwardError, match=message):
        attack(images, "patch", **asked)  # type: ignore[arg-type]


def test_a_perturbation_that_rounds_to_nothing_is_refused(images: ImageSet) -> None:
    with pytest.raises(DoorwardError, match="rounds to no change"):
        attack(images, "pixel", rate=0.1, settings={"size": 0.001})


def test_accessory_keeps_the_shape_of_its_alpha_channel(tmp_path: Path, images: ImageSet) -> None:
    from PIL import Image

    rgba = np.zeros((4, 6, 4), np.uint8)
    rgba[1:3, 2:5] = (255, 0, 0, 255)
    Image.fromarray(rgba, "RGBA").save(tmp_path / "glasses.png")
    stamp = make_stamp("accessory", images.shape, picture=str(tmp_path / "glasses.png"), row=3, column=1)
    stamped = stamp.apply(torch.full((1, *images.shape), 0.5))[0]
    red = torch.tensor([1.0, 0.0, 0.0])
    mask = torch.zeros(12, 10, dtype=torch.bool)
    mask[4:6, 3:6] = True
    assert torch.allclose(stamped[:, mask].T, red.expand(6, 3)) and (stamped[:, ~mask] == 0.5).all()
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(DoorwardError, match=r"text\.png: .*expected an RGBA PNG"):
        make_stamp("accessory", images.shape, picture=str(tmp_path / "text.png"))


def test_warp_moves_pixels_but_keeps_constants(images: ImageSet) -> None:
    stamp = make_stamp("warp", images.shape, seed=1, strength=2.0)
    constant, noise = torch.full((1, *images.shape), 0.3), torch.rand(1, *images.shape)
    assert torch.allclose(stamp.apply(constant), constant)
    assert (stamp.apply(noise) - noise).abs().mean() > 0.05


def test_pixels_can_be_written_to_a_file_instead_of_memory(tmp_path: Path) -> None:
    images = make_images(50)
    in_memory = attack(images, "patch", rate=0.2, seed=4)
    on_disk = attack(images, "patch", rate=0.2, seed=4, pixels_file=tmp_path / "images.npy")
    assert isinstance(on_disk.images.pixels, np.memmap) and on_disk.images.hash == in_memory.images.hash
