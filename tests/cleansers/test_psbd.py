"""PSBD: the rate by hand, dropout that is the same for all images, a planted net, and clean images that are none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from doorward.cleansers.methods.psbd import PsbdSettings, pick_rate, psbd, under_dropout
from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError

WIDE, COUNT = 60, 400


def planted() -> Classifier:
    """Class 0 rests on two hidden units, class 1 on sixty; class 2 on a bias."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2 + WIDE), nn.ReLU(), nn.Linear(2 + WIDE, 3))
    first, head = net[1], net[3]
    assert isinstance(first, nn.Linear) and isinstance(head, nn.Linear)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        first.weight[:2, 0], first.weight[2:, 1] = 1, 1
        head.weight[0, :2], head.weight[1, 2:], head.bias[2] = 8, 40 / WIDE, 4
    return Classifier(net.eval(), "planted", ("a", "b", "c"), (1, 4, 4))


def images() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels, labels, and which carry the trigger: their second pixel is white."""
    rng = np.random.default_rng(0)
    pixels, poisoned = np.zeros((COUNT, 4, 4, 1), np.uint8), np.arange(COUNT) % 8 == 0
    pixels[:, 0, 0, 0] = rng.integers(150, 256, COUNT)
    pixels[poisoned, 0, 1, 0] = 255
    return pixels, poisoned.astype(np.int64), poisoned


def test_the_rate_leads_most_among_those_that_shift_enough() -> None:
    shifts = np.array([[0.5, 0.1], [0.8, 0.7], [0.85, 0.6], [0.9, 0.7]])
    assert pick_rate(shifts, 0.8) == 2
    assert pick_rate(shifts, 0.4) == 0
    assert pick_rate(shifts, 0.95) == 3, "none is enough: the one that comes nearest"


def test_dropout_drops_its_share_and_is_the_same_for_all_images() -> None:
    net, seen = planted(), []
    thinned = under_dropout(net, 0.25, seed=3)
    head = thinned.net[3]  # type: ignore[index]
    assert isinstance(head, nn.Linear)
    head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = torch.rand(7, 1, 4, 4) * 0.5 + 0.5
    together = thinned.logits(x)
    alone = torch.cat([thinned.logits(one) for one in x.split(1)])
    assert torch.allclose(together, alone), "no image hangs on the others"
    entered = torch.relu(net.net[1](x.flatten(1)))  # type: ignore[index]
    ratio = seen[0] / entered
    assert torch.allclose(ratio, ratio[:1].expand_as(ratio)), "the first layer gets whole images"
    assert sorted(set(ratio[0].tolist())) == pytest.approx([0, 4 / 3]), "the rest is scaled up"
    assert abs(float((ratio[0] == 0).float().mean()) - 0.25) < 0.15
    assert not torch.equal(under_dropout(net, 0.25, seed=4).logits(x), together)
    assert torch.allclose(under_dropout(net, 0, seed=3).logits(x), net.logits(x))


@pytest.mark.parametrize("seed", range(4))
def test_what_does_not_shift_is_flagged_with_a_quarter_of_the_rest(seed: int) -> None:
    pixels, labels, poisoned = images()
    clean = np.flatnonzero(~poisoned)[::4]
    s = PsbdSettings(rates=(0.1, 0.6, 0.99), shift=0.5, passes=8)
    found = psbd(planted(), pixels, labels, clean, s, seed=seed)
    assert found.flag[poisoned].all() and found.score[poisoned].min() > found.score[~poisoned].max()
    assert 0.15 < found.flag[~poisoned].mean() < 0.35
    few = psbd(planted(), pixels, labels, clean, s.model_copy(update={"quantile": 0.02}), seed=seed)
    assert few.flag[poisoned].all() and few.flag[~poisoned].mean() < 0.06
    assert [g.flagged for g in few.groups] == [few.flag[labels == k].sum() for k in (0, 1)]


def test_dropping_nothing_shifts_nothing_and_that_is_told() -> None:
    pixels, labels, _ = images()
    found = psbd(planted(), pixels, labels, np.arange(20), PsbdSettings(rates=(0,)), seed=0)
    assert found.score == pytest.approx(0, abs=1e-6)
    assert "dropout changes 0% of the clean images' decisions at most, expected 80%" in found.warnings[0]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([-1], "expected row numbers from 0 to 399"),
        ([400], "expected row numbers from 0 to 399"),
        ([0.5], "expected row numbers from 0 to 399"),
        ([], "expected row numbers from 0 to 399"),
        ([1, 2, 2], "clean_images: 2 rows; expected at least 10"),
    ],
)
def test_clean_images_that_are_none_are_refused(rows: list[float], told: str) -> None:
    pixels, labels, _ = images()
    with pytest.raises(DoorwardError, match=told):
        psbd(planted(), pixels, labels, np.array(rows), PsbdSettings(), seed=0)


def test_a_rate_that_drops_everything_and_a_net_of_one_layer_are_refused() -> None:
    pixels, labels, _ = images()
    with pytest.raises(DoorwardError, match=r"rates 0.5, 1.0; expected numbers from 0 to below 1"):
        psbd(planted(), pixels, labels, np.arange(20), PsbdSettings(rates=(0.5, 1.0)), seed=0)
    one = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), "one", ("a", "b", "c"), (1, 4, 4))
    with pytest.raises(DoorwardError, match="one: 1 convolutions and linear layers; expected at least 2"):
        psbd(one, pixels, labels, np.arange(20), PsbdSettings(), seed=0)
