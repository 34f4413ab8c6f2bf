"""Pictures of a cleansing for its page: typical images, suspects, and others before and under what was found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from doorward.cleansers.parts.stamping import Pixels, at_work
from doorward.cleansers.samples import Samples, pick_thumbnails
from doorward.core.images import ImageSet
from doorward.core.triggers import Trigger

_AT_WORK = 6  # images shown with a trigger on them


def pictures(images: ImageSet, samples: Samples, triggers: Mapping[int, Trigger]) -> tuple[Pixels, dict[str, Any]]:
    """The pictures ``[n, H, W, C]`` and, by kind and class, which of them are which."""
    typical, suspects, which = pick_thumbnails(samples)
    made, places = [images.pixels[which]], {"before": dict[int, list[int]](), "after": dict[int, list[int]]()}
    flagged = np.any(list(samples.flags.values()), axis=0)
    for label, trigger in triggers.items():
        pair = at_work(images, label, flagged, trigger, 0, _AT_WORK)
        for kind, shown in zip(places, pair, strict=True):
            first = sum(map(len, made))
            places[kind][label] = list(range(first, first + len(shown)))
            made.append(shown)
    return np.concatenate(made), {"typical": typical, "suspects": suspects, **places}
