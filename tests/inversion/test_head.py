"""The look at the head: a hint in words, never a verdict."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.inversion.invert import invert
from doorward.inversion.methods.head import HeadSettings, head
from doorward.inversion.search.frozen import Frozen
from tests.inversion.worlds import TARGET, row_classifier, row_images

CLASSES = tuple("abcdef")


def pooled_net(favoured: int | None = None, convolution: bool = False) -> Classifier:
    """Global average of 32 channels; every class has weights of the same size, one of them more positive ones."""
    torch.manual_seed(0)
    last = nn.Conv2d(32, 6, 1, bias=False) if convolution else nn.Linear(32, 6, bias=False)
    with torch.no_grad():
        last.weight.sub_(last.weight.flatten(1).mean(1).view(-1, *[1] * (last.weight.ndim - 1)))
        if favoured is not None:
            last.weight[favoured] += 0.05
    pool = [nn.Conv2d(1, 32, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    net = nn.Sequential(*pool, last, nn.Flatten()) if convolution else nn.Sequential(*pool, nn.Flatten(), last)
    return Classifier(net, "pooled", CLASSES, (1, 6, 6))


@pytest.mark.parametrize("convolution", [False, True])
def test_a_class_that_little_has_to_speak_for_is_favoured(convolution: bool) -> None:
    usual, planted = (head(Frozen(pooled_net(k, convolution)), HeadSettings(), seed=0) for k in (None, 4))
    shares = np.array(planted.details["share"])
    assert shares.argmax() == 4 and shares[4] > 0.5 and shares.sum() == pytest.approx(1)
    assert max(usual.details["share"]) < 0.4
    assert np.allclose(planted.statistic, np.log((4000 * shares + 0.5) / (4000 - 4000 * shares + 0.5)))


def test_no_verdict_rests_on_it() -> None:
    found = invert(pooled_net(4), None, ["head"])
    assert found.verdict == "undecided" and not found.targets and "prior" in found.outcomes["head"].undecided
    images, model = row_images(), row_classifier()
    alone, beside = (invert(model, images, methods, held_out=0) for methods in (["mask"], ["mask", "head"]))
    assert alone.p_value == beside.p_value and alone.target_labels == beside.target_labels == (TARGET,)


def test_it_is_told_of_a_class_that_stands_out_and_of_no_other() -> None:
    reasons = [
        " ".join(invert(model, row_images(), ["mask", "head"], held_out=0).record.judgement.reasons)
        for model in (row_classifier(), row_classifier(planted=False))
    ]
    assert "of random features as" in reasons[0] and "of random features as" not in reasons[1]


def test_a_net_without_a_linear_layer_is_refused() -> None:
    net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(DoorwardError, match="no linear layer"):
        invert(Classifier(net, "none", CLASSES, (1, 6, 6)), None, ["head"])
