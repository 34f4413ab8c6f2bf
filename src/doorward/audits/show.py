"""Pictures of an audit for its page: suspects, and other images before and after the trigger."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from doorward.audits.parts.trainer import Pixels, Rows
from doorward.audits.results import SHOWN
from doorward.cleansers.parts.stamping import at_work
from doorward.core.images import ImageSet
from doorward.core.triggers import Stamp


def pictures(
    images: ImageSet, suspects: Rows, doubtful: Rows, triggers: Mapping[int, Stamp], seed: int
) -> tuple[Pixels | None, dict[int, dict[str, tuple[int, ...]]]]:
    """The pictures ``[n, H, W, C]`` and, by class and kind, which of them are which; None where there are none."""
    made, places = list[Pixels](), dict[int, dict[str, tuple[int, ...]]]()
    number = 0
    for label in sorted({*triggers, *np.unique(images.labels[suspects | doubtful]).tolist()}):
        own = images.labels == label
        kinds = {"suspects": suspects, "doubtful": doubtful}
        shown = {kind: images.pixels[np.flatnonzero(rows & own)[:SHOWN]] for kind, rows in kinds.items()}
        if label in triggers:
            shown["before"], shown["after"] = at_work(images, label, suspects, triggers[label], seed, SHOWN)
        for kind, pixels in shown.items():
            if len(pixels):
                places.setdefault(label, {})[kind] = tuple(range(number, number + len(pixels)))
                made.append(pixels)
                number += len(pixels)
    return (np.concatenate(made) if made else None), places
