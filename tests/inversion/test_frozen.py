"""Freezing changes no answer, touches no weight of the user's, and refuses what is broken."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.inversion.search.frozen import Frozen
from doorward.models.folding import fold_batch_norm
from doorward.models.nets.catalogue import build

SHAPE = (3, 12, 10)


def classifier(name: str) -> Classifier:
    torch.manual_seed(0)
    net = build(name, SHAPE, 5)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):  # statistics that a training could have left
            module.running_mean.normal_()  # type: ignore[union-attr]
            module.running_var.uniform_(0.2, 3)  # type: ignore[union-attr]
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias)
    return Classifier(net, name, tuple("abcde"), SHAPE, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))


@pytest.mark.parametrize("name", ["two-layer", "small-cnn", "resnet20"])
def test_answers_are_those_of_the_classifier(name: str) -> None:
    original = classifier(name)
    original.net.train()
    before = {k: v.clone() for k, v in original.net.state_dict().items()}
    frozen = Frozen(original, "fp32")
    assert not any(isinstance(m, nn.BatchNorm2d) for m in frozen.net.modules()), "folded"
    pixels = torch.rand(2, 4, *SHAPE[1:], SHAPE[0])
    found = frozen.logits(frozen.normalise(pixels))
    original.net.eval()
    expected = original.logits(pixels.flatten(0, 1).permute(0, 3, 1, 2)).detach().view(2, 4, 5)
    assert torch.allclose(found, expected, atol=1e-3 * float(expected.abs().max()))
    assert all(torch.equal(v, before[k]) for k, v in original.net.state_dict().items())
    assert all(p.requires_grad for p in original.net.parameters())


class Same(nn.Conv2d):
    """Pads its images itself, as TensorFlow's convolutions do."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(nn.functional.pad(input, (0, 1, 0, 1)), self.weight, self.bias, self.stride)


def test_batch_norm_is_folded_into_convolutions_that_pad_themselves() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(Same(3, 4, 3, 2, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))
    images = torch.randn(6, *SHAPE)
    net(images)  # statistics move
    folded = fold_batch_norm(net.eval(), images)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert torch.allclose(folded(images), net(images), atol=1e-5)


def test_a_batch_norm_that_cannot_be_folded_stays() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(self.conv(x)) + self.conv(x)

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
            self.norm.running_var.fill_(4)  # type: ignore[union-attr]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return self.norm(y) + y  # type: ignore[no-any-return]

    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    probe = torch.rand(2, 3, 4, 4)
    for net in (Twice().eval(), Shared().eval()):
        folded = fold_batch_norm(net, probe)
        assert torch.allclose(folded(probe), net(probe), atol=1e-6)
        assert folded is not net and any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    untraceable = Branching()
    assert fold_batch_norm(untraceable, probe) is untraceable


def test_a_net_that_cannot_be_traced_is_frozen_all_the_same() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.output = nn.Linear(360, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found = self.output(x.flatten(1))
            return found if found.sum() > 1e9 else -found  # type: ignore[no-any-return]

    frozen = Frozen(Classifier(Branching(), "branching", tuple("abcde"), SHAPE))
    assert isinstance(frozen.net, Branching) and not any(p.requires_grad for p in frozen.net.parameters())


def test_broken_nets_are_told_in_one_line() -> None:
    good = classifier("small-cnn")
    with pytest.raises(DoorwardError, match=r"gives \[2, 5\] for two images; expected logits \[2, 7\]"):
        Frozen(replace(good, classes=tuple("abcdefg")))
    with pytest.raises(DoorwardError, match="does not take images of 3x20x20"):
        Frozen(replace(good, shape=(3, 20, 20)))
    with torch.no_grad():
        next(good.net.parameters())[0] = torch.nan
    with pytest.raises(DoorwardError, match="holds NaN or infinity"):
        Frozen(good)
    infinite = classifier("two-layer")
    with torch.no_grad():
        infinite.net.output.bias[:] = 3e38  # type: ignore[union-attr]
        infinite.net.output.weight[:] = 3e38  # type: ignore[union-attr]
    with pytest.raises(DoorwardError, match="logits hold NaN or infinity"):
        Frozen(infinite)
