"""A single method may be named as plain text."""

from __future__ import annotations

import pytest

from doorward.cleansers.cleanse import cleanse
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.methods import as_names
from doorward.inversion.invert import invert
from doorward.repairs.repair import repair
from tests.core.test_repr import net, noise


def test_names() -> None:
    assert as_names("scan") == ("scan",)
    assert as_names(["scan", "spectral", "scan"]) == ("scan", "spectral")
    assert as_names(()) == ()


def test_every_verb_takes_one() -> None:
    images: ImageSet = noise()
    assert list(cleanse(images, net(images), "spectral").suspicions) == ["spectral"]
    assert list(invert(net(images), methods="margin").outcomes) == ["margin"]
    arms = repair(net(images), images, methods="refresh", controls=False).arms
    assert [arm.planned.name for arm in arms] == ["as given", "refresh"]
    with pytest.raises(DoorwardError, match="cleanse: no method 'scann'; expected one of"):
        cleanse(images, net(images), "scann")
