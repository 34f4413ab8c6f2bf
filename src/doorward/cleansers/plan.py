"""What a cleansing would do, and how long: some of the images are looked at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from doorward.cleansers.observe import observe
from doorward.core import methods as registry
from doorward.core.classifier import Classifier
from doorward.core.images import ImageSet
from doorward.core.plan import Plan, about, timed

_TRIED = 128  # images


def plan_cleansing(model: Classifier, images: ImageSet, methods: Sequence[str], filters: Sequence[str]) -> Plan:
    """A plan of `cleanse`: one pass through the net, and one per filter. The methods' own time is not in it."""
    some = images.subset(np.random.default_rng(0).permutation(len(images))[:_TRIED])
    observe(some.subset(np.arange(min(8, len(some)))), model, filters)  # the first pass prepares things
    seconds = timed(lambda: observe(some, model, filters)) * len(images) / len(some)
    passes = f"{len(filters) + 1} passes of {len(images):,} images through the net"
    own = [name for name in methods if "classifier" in registry.get("cleanse", name).given]
    more = (f"{', '.join(own)}: passes of their own, which are not in the time",) if own else ()
    return Plan((*about(model, images), f"methods: {', '.join(methods)}", passes, *more), seconds)
