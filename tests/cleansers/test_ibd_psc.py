"""IBD-PSC: the number of amplified layers and the score by hand, in a chain of batch norms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from doorward.cleansers.methods.ibd_psc import IbdPscSettings, ibd_psc
from doorward.cleansers.suspicion import Suspicion
from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError

COUNT = 40


class Chain(nn.Module):
    """Two numbers through batch norms; the last adds 0.25 to the first. Logits: 3, the first, 20 times the second."""

    def __init__(self, layers: int, affine: bool = True) -> None:
        super().__init__()
        self.norms = nn.Sequential(*(nn.BatchNorm1d(2, eps=0, affine=affine) for _ in range(layers)))
        self.other = nn.Linear(1, 1)
        if layers and affine:
            with torch.no_grad():
                self.norms[-1].bias[0] = 0.25

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        first, second = self.norms(images[:, 0, 0, :2]).unbind(dim=1)
        return torch.stack([torch.full_like(first, 3), first, 20 * second], dim=1)


def chain(layers: int, affine: bool = True) -> Classifier:
    return Classifier(Chain(layers, affine).eval(), "chain", ("a", "b", "c"), (1, 2, 2))


def images() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clean images have a white first pixel and are of class 0; the others a white second one, of class 2."""
    poisoned = np.arange(COUNT) % 5 == 0
    pixels = np.zeros((COUNT, 2, 2, 1), np.uint8)
    pixels[~poisoned, 0, 0, 0] = pixels[poisoned, 0, 1, 0] = 255
    return pixels, np.where(poisoned, 2, 0).astype(np.int64), poisoned


def look(layers: int, pale: int = 0, **more: object) -> tuple[Suspicion, np.ndarray]:
    """What the method says of the images, of which the last ``pale`` are half as bright."""
    pixels, labels, poisoned = images()
    pixels[COUNT - pale :] //= 2
    net = chain(layers)
    logits = net.logits(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255).detach().numpy()
    clean = more.pop("clean_images", None)
    found = ibd_psc(net, pixels, logits, labels, IbdPscSettings(**more), clean_images=clean)  # type: ignore[arg-type]
    return found, poisoned


def kept(layers: int, factor: float = 1.5) -> float:
    """Probability of class 0 of a clean image with so many amplified layers."""
    logits = np.array([3, factor**layers + 0.25 * factor, 0])
    return float(np.exp(3) / np.exp(logits).sum())


@pytest.mark.parametrize(("layers", "used"), [(9, (3, 4, 5, 6, 7)), (5, (3, 4, 5)), (3, (3,))])
def test_the_score_is_the_mean_over_the_nets_from_the_first_that_errs(layers: int, used: tuple[int, ...]) -> None:
    found, poisoned = look(layers)  # 1.5 ** 3 + 0.375 > 3: the third amplified layer turns the decision
    expected = np.mean([kept(k) for k in used])
    assert found.score[~poisoned] == pytest.approx(expected, rel=1e-4)
    assert found.score[poisoned] == pytest.approx(1, abs=1e-4)
    assert (found.flag == poisoned).all() and not found.warnings
    assert [(g.label, g.size, g.flagged) for g in found.groups] == [(0, 32, 0), (2, 8, 8)]


def test_the_first_net_errs_on_the_share_that_is_asked_for() -> None:
    for error, first in ((0.6, 5), (0.3, 3)):  # the bright images turn at three layers, the pale ones at five
        found, poisoned = look(9, pale=20, error=error)
        bright = ~poisoned & (np.arange(COUNT) < 20)
        expected = np.mean([kept(k) for k in range(first, min(first + 5, 10))])
        assert found.score[bright] == pytest.approx(expected, rel=1e-4)


def test_the_settings_decide() -> None:
    found, poisoned = look(9, factor=3.5, versions=2)
    assert found.score[~poisoned] == pytest.approx(np.mean([kept(1, 3.5), kept(2, 3.5)]), rel=1e-4)
    late, _ = look(9, threshold=0.999999)
    assert late.flag.sum() <= poisoned.sum()


def test_where_amplifying_turns_nothing_nothing_is_flagged_and_that_is_told() -> None:
    found, _ = look(2)
    assert not found.flag.any()
    assert "with every batch norm amplified 0% of the decisions are wrong, expected more than 60%" in found.warnings[0]


def test_the_first_net_is_found_on_the_clean_images() -> None:
    _, poisoned = look(9)
    found, _ = look(9, error=0.9)  # 80 % of the set are clean and turn: on the whole set never more than 90 %
    told, _ = look(9, error=0.9, clean_images=np.flatnonzero(~poisoned))
    assert not found.flag.any() and found.warnings
    assert (told.flag == poisoned).all() and not told.warnings
    with pytest.raises(DoorwardError, match=r"clean_images \[40\]; expected row numbers from 0 to 39"):
        look(9, clean_images=np.array([40]))


def test_a_net_without_batch_norms_that_have_weights_is_refused() -> None:
    pixels, labels, _ = images()
    for net in (chain(0), chain(3, affine=False)):
        with pytest.raises(DoorwardError, match="cleanse ibd-psc: chain: no batch norm with weights; expected some"):
            ibd_psc(net, pixels, np.zeros((COUNT, 3), np.float32), labels, IbdPscSettings())


def test_the_net_that_it_is_given_stays_as_it_is() -> None:
    pixels, labels, _ = images()
    net = chain(9)
    ibd_psc(net, pixels, np.zeros((COUNT, 3), np.float32), labels, IbdPscSettings())
    assert all(bool((m.weight == 1).all()) for m in net.net.modules() if isinstance(m, nn.BatchNorm1d))
