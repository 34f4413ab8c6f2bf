"""Images that look to a net as stamped pictures do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from doorward.cleansers.observe import observe
from doorward.cleansers.parts.likeness import as_stamped
from doorward.cleansers.parts.stamping import stamped
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.triggers import Trigger
from doorward.models.train.start import fresh


def test_a_trigger_that_covers_the_whole_picture_leaves_pictures_that_are_all_alike() -> None:
    rng = np.random.default_rng(0)
    images = ImageSet(rng.integers(0, 256, (90, 12, 12, 1), np.uint8), np.arange(90) % 3, ("a", "b", "c"))
    model = fresh(images, "two-layer", 0)
    seen = observe(images, model)
    trigger = Trigger(torch.rand(1, 12, 12, generator=torch.Generator().manual_seed(1)), torch.ones(1, 12, 12))
    covered = stamped(images.pixels, trigger, 0)
    label = int(model.predict(covered[:1])[0])
    same = ImageSet(covered, images.labels, images.classes)
    with pytest.raises(DoorwardError, match="the same for every image"):
        observe(same, model)
    assert np.ptp(observe(same, model, alike=True).features, axis=0).max() == 0
    found = as_stamped(images, model, seen.features, np.zeros(90, bool), {label: [trigger]}, 0)
    assert found.shape == (90,) and not found[images.labels != label].any()
    assert found.sum() < 15  # not half of the class
