"""One repair by itself: hands a method what it declared, nothing more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from doorward.core import methods as registry
from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.repairs.parts.stamping import Triggers
from doorward.repairs.repaired import Repaired


def apply_repair(
    classifier: Classifier,
    method: str = "prune",
    *,
    triggers: Triggers | None = None,
    settings: dict[str, Any] | None = None,
    knowledge: dict[str, Any] | None = None,
    seed: int = 0,
) -> Repaired:
    """Take the backdoor out of a classifier by one method, without control arms.

    Args:
        classifier: left as it was; its device is used.
        method: name of a registered repair.
        triggers: what an inversion found, target class to stamps; input like the images, not the truth.
        settings: the method's own.
        knowledge: what an auditor may not have and the caller declares to have (``clean_images``, an `ImageSet`); a
            method that needs one that is not here is refused.
        seed: of everything random.

    Returns: the classifier, the record, and (`Repaired.guard`) the original guarded by its repair.
    """
    found = registry.get("repair", method)
    configured = found.configure(settings)
    known = registry.check_knowledge("repair", knowledge or {}, [found], classifier.classes)
    if "triggers" in found.given and not triggers:
        raise DoorwardError(f"repair {method}: needs triggers, which were not given; expected those of an inversion")
    available = {"classifier": classifier, "seed": seed, "triggers": triggers}
    handed = {k: v for k, v in available.items() if k in found.given}
    used = {k: v for k, v in known.items() if k in found.given | found.accepts}
    repaired: Repaired = found.function(**handed, **used, s=configured)
    return replace(repaired, original=classifier)
