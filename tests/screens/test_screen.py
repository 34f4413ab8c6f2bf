"""Screens: stamped images stand out, clean ones are refused at the chosen rate, nothing depends on batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binom

import doorward
from doorward.core import methods
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.triggers import Placement, Trigger
from doorward.screens.base import roc, threshold_at
from doorward.screens.methods.ada import Ada, features_and_logits
from doorward.screens.methods.strip import Strip
from doorward.screens.screen import fit, load_screen, save_screen, screen
from tests.screens.worlds import CORNER, SIDE, TARGET, stamp, stamped, striped, stripes

TRIGGERS = {TARGET: stamp()}


def test_the_world_is_backdoored() -> None:
    images, net = stripes(), striped()
    assert (net.predict(images.pixels) == images.labels).mean() > 0.99
    assert (net.predict(stamped(images)) == TARGET).all()


@pytest.mark.parametrize(("method", "least"), [("strip", 0.99), ("ada", 0.9), ("inverted", 0.99)])
def test_stamped_images_stand_out(method: str, least: float) -> None:
    made = fit(striped(), stripes(seed=1), method, triggers=TRIGGERS)
    unseen = stripes(seed=2)
    false, true, area = roc(made.scores(unseen.pixels), made.scores(stamped(unseen)))
    assert area > least
    assert false[0] == true[0] == 0 and false[-1] == true[-1] == 1 and (np.diff(true) >= 0).all()
    assert made(stamped(unseen)).flags.mean() > 0.95


@pytest.mark.parametrize("method", methods.names("screen"))
def test_the_false_rejection_rate_holds_on_clean_images_it_has_not_seen(method: str) -> None:
    rate, clean = 0.1, stripes(400, seed=3)
    flagged = fit(striped(), clean, method, triggers=TRIGGERS, false_rejection=rate)(stripes(1000, seed=4).pixels).flags
    # the threshold is an order statistic of 200 images, and the count on 1,000 varies: three deviations of both
    spread = np.sqrt(rate * (1 - rate) * (1 / 200 + 1 / 1000))
    assert flagged.mean() <= rate + 3 * spread


def test_the_threshold_is_the_order_statistic_of_split_conformal_prediction() -> None:
    clean = np.arange(1.0, 100.0)  # 99 scores
    assert threshold_at(clean, 0.05) == 95 and threshold_at(clean, 0.01) == 99
    with pytest.raises(
        DoorwardError, match=r"99 clean images for a false rejection rate of 0\.005; expected at least 199"
    ):
        threshold_at(clean, 0.005)
    rng = np.random.default_rng(0)
    exceeded = sum(rng.normal() > threshold_at(rng.normal(size=19), 0.1) for _ in range(4000))
    assert binom.ppf(1e-4, 4000, 0.1) <= exceeded <= binom.ppf(1 - 1e-4, 4000, 0.1), "exactly 10 % with 19 images"


def test_strip_is_the_mean_entropy_over_overlays_by_hand() -> None:
    net, images = striped(), stripes(6)
    made = Strip(net, 0.0, images.pixels[:2], 0.25)
    expected = []
    for picture in images.pixels:
        mixed = 0.75 * picture.astype(np.float64) + 0.25 * images.pixels[:2].astype(np.float64)
        p = net.logits(torch.from_numpy(mixed / 255).float().permute(0, 3, 1, 2)).softmax(1).detach().double().numpy()
        expected.append((p * np.log2(p)).sum(1).mean())
    assert made.scores(images.pixels) == pytest.approx(np.array(expected), abs=1e-5)


def test_ada_is_the_divergence_between_densities_and_decisions() -> None:
    net = striped()
    made = fit(net, stripes(seed=1), "ada", settings={"dimensions": 2})
    assert isinstance(made, Ada)
    pixels = stripes(3, seed=9).pixels
    features, logits = features_and_logits(net, pixels)
    points = (np.log1p(features) - made.shift) @ made.axes
    for point, logit, score in zip(points, logits, made.scores(pixels), strict=True):
        p, q = (np.exp(v - v.max()) for v in (-((point - made.means) ** 2).sum(1) / 2, logit))
        p, q = p / p.sum(), q / q.sum()
        assert score == pytest.approx((p * np.log(p / q)).sum(), rel=1e-6)


def test_within_a_class_adas_points_are_white() -> None:
    net, clean = striped(), stripes(400, seed=1)
    made = fit(net, clean, "ada", settings={"dimensions": 3})
    assert isinstance(made, Ada)
    features, _ = features_and_logits(net, clean.pixels)
    points = (np.log1p(features) - made.shift) @ made.axes
    within = points - made.means[clean.labels]
    assert np.cov(within.T) == pytest.approx(np.eye(3), abs=0.3)


def test_the_inverted_screen_leaves_images_of_other_decisions_alone() -> None:
    made, images = fit(striped(), stripes(seed=1), "inverted", triggers=TRIGGERS), stripes(seed=2)
    scores, decided = made.scores(images.pixels), striped().predict(images.pixels)
    assert (scores[decided != TARGET] == 0).all()
    assert np.abs(scores[decided == TARGET]).max() < 0.2, (
        "people of the target class keep their class without the corner"
    )
    assert not made(images.pixels).flags.any()


@pytest.mark.parametrize("method", methods.names("screen"))
def test_scores_do_not_hang_on_the_batch_and_survive_the_disk(method: str, tmp_path: Path) -> None:
    net, images = striped(), stripes(50, seed=5)
    made = fit(net, stripes(seed=1), method, triggers=TRIGGERS)
    pixels = np.concatenate([images.pixels, stamped(images)])
    whole = made.scores(pixels)
    single = np.concatenate([made.scores(pixels[i : i + 1]) for i in range(0, len(pixels), 7)])
    assert single == pytest.approx(whole[::7], abs=1e-4)
    save_screen(made, tmp_path / "screen.safetensors")
    again = load_screen(tmp_path / "screen.safetensors", net)
    assert (again.scores(pixels) == whole).all() and again.threshold == made.threshold
    assert (again(pixels).flags == (whole > made.threshold)).all()


def test_the_package_is_the_function() -> None:
    said = doorward.screen(striped(), stripes(20, seed=2), stripes(seed=1), "strip", false_rejection=0.1)
    assert said.scores.shape == said.flags.shape == (20,)
    again = screen(striped(), stripes(20, seed=2).pixels, stripes(seed=1), "strip", false_rejection=0.1)
    assert (said.scores == again.scores).all()


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    net, clean = striped(), stripes()
    moving = Trigger(torch.ones(1, 2, 2), torch.ones(1, 2, 2), Placement("random"))
    small = ImageSet(clean.pixels[:, :5], clean.labels, clean.classes)
    few = clean.subset(np.arange(6))
    cases: list[tuple[ImageSet, str, dict[str, object], str]] = [
        (clean, "smell", {}, "screen: no method 'smell'; expected one of "),
        (small, "strip", {}, "images of 1x5x12; the classifier takes 1x12x12"),
        (few, "strip", {}, "3 clean images for a false rejection rate of 0.05; expected at least 19"),
        (clean, "strip", {"settings": {"overlay": 3}}, "settings: overlays, weight"),
        (clean, "inverted", {}, "screen inverted: needs triggers, which were not given"),
        (clean, "inverted", {"triggers": {1: moving}}, "expected alpha at a fixed place"),
        (replace(clean, classes=(*clean.classes, "more")), "ada", {}, "6 classes, the classifier has 5"),
        (clean, "strip", {"false_rejection": 1.5}, "between 0 and 1"),
    ]
    for images, method, options, expected in cases:
        with pytest.raises(DoorwardError) as caught:
            fit(net, images, method, **options)  # type: ignore[arg-type]
        assert expected in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(DoorwardError, match="the classifier takes 12x12x1"):
        fit(net, clean, "strip")(clean.pixels[:, :, :7])
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(DoorwardError, match="not a screen"):
        load_screen(tmp_path / "x.safetensors", net)
    assert CORNER < SIDE


@pytest.mark.parametrize("method", ["strip", "ada"])
def test_progress_counts_the_pictures_and_changes_nothing(method: str) -> None:
    told: list[tuple[str, str]] = []
    made = screen(striped(), stripes(40, seed=3), stripes(80, seed=1), method,
                  progress=lambda stage, done, total, note="": told.append((stage, note)))  # fmt: skip
    assert {stage for stage, _ in told} == {f"{method}: making the screen", f"{method}: looking at 40 images"}
    passed = 40 * (32 if method == "strip" else 1)
    assert told[-1][1] == f"{passed:,} pictures through the net"
    alone = screen(striped(), stripes(40, seed=3), stripes(80, seed=1), method)
    assert made.rows() == alone.rows() and made.record == alone.record
