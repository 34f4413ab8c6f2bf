"""The world is made once for the tests of all repairs."""

from __future__ import annotations

import pytest

from doorward.core.images import ImageSet
from tests.light import lighten
from tests.repairs.world import World, make_world


@pytest.fixture(scope="session")
def world(digits: tuple[ImageSet, ImageSet]) -> World:
    with pytest.MonkeyPatch.context() as patch:
        lighten(patch)
        return make_world(digits)
