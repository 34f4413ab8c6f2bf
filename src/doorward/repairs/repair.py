"""The verb: methods side by side with what they come to without triggers, and one verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from doorward.core import methods as registry
from doorward.core.arguments import check_images, check_model
from doorward.core.classifier import Classifier
from doorward.core.errors import DoorwardError
from doorward.core.images import ImageSet
from doorward.core.progress import Progress
from doorward.core.triggers import Stamp
from doorward.inversion.results import Inversion
from doorward.inversion.triggers import InvertedTriggers, load_inverted
from doorward.repairs.arms import Planned, default_methods, make_bench, plan_arms, wants_all
from doorward.repairs.parts.stamping import Triggers, checked
from doorward.repairs.proof import proved
from doorward.repairs.results import Repair
from doorward.repairs.summary import summarise


def repair(
    model: Classifier,
    images: ImageSet,
    triggers: Inversion | Path | str | Mapping[int, Sequence[Stamp]] | None = None,
    methods: str | Sequence[str] = (),
    *,
    settings: dict[str, dict[str, Any]] | None = None,
    oracle: Triggers | None = None,
    controls: bool = True,
    held_out: float = 0.2,
    proof: bool = True,
    knowledge: dict[str, Any] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Repair:
    """Take a backdoor out of a classifier, and show how much of that is due to the triggers.

    Every method runs beside control arms without triggers; all are measured on the same clean images, unseen by all.

    Args:
        model: left as it was; its device is used.
        images: images known to be clean, with their labels; ``held_out`` of every class is for measuring.
        triggers: what `invert` gave, a folder that ``doorward invert`` wrote, or target class to stamps; for methods
            that need them, and to measure all arms with. Where an inversion accuses no class, nothing is run.
        methods: names of registered repairs; by default ``hold`` with triggers, else ``ibau``.
        settings: per method.
        oracle: the attacker's own triggers, for an arm that retrains with them. Truth: for scoring alone.
        controls: run ``fine-tune`` with the budget of each method that trains, and ``refresh``.
        proof: with triggers, invert the classifier as given and every repaired one afresh, which the verdict rests on
            (`doorward.repairs.proof`); without, the verdict is undecided unless the triggers still work.
        knowledge: what an auditor may not have and the caller declares to have, beside the clean images.
        seed: of everything random; the same for all arms.
        progress: called with (arm, arms done, arms in all).

    Returns:
        the arms with their classifiers, the one as given first, then methods, controls, oracle; and one verdict
        (`doorward.repairs.verdict`). Where an inversion accuses no class: the model itself, ``nothing found``.

    Raises:
        DoorwardError: methods, settings, images or triggers that do not fit.
    """
    check_model("repair", model)
    check_images("repair", "images", images)
    chosen = registry.as_names(methods) or default_methods(triggers is not None)
    every = triggers is not None and wants_all(chosen, settings or {})
    used = None if triggers is None else as_inverted(triggers, model, every)
    stamps = None if used is None else used.stamps
    nothing = used is not None and not used.stamps  # an inversion that accuses no class
    planned: tuple[Planned, ...] = ()
    if not nothing:
        planned = plan_arms(chosen, triggers=stamps, settings=settings, oracle=oracle, controls=controls)
    known = {"clean_images": images, **(knowledge or {})}
    running = [registry.get("repair", name) for name in ([arm.method for arm in planned] or chosen)]
    known = registry.check_knowledge("repair", known, running, model.classes)
    bench = make_bench(model, images, stamps, held_out=held_out, seed=seed, knowledge=known, prove=proof)
    arms = [bench.as_given()]
    rows = [proved(bench, arms[0])]  # without triggers there is nothing to prove
    for number, arm in enumerate(planned):
        if progress:
            progress(arm.name, number, len(planned))
        arms.append(bench.run(arm))
        rows.append(proved(bench, arms[-1], planned))
    return Repair(summarise(bench, rows, images, used), tuple(arms))


def as_inverted(
    triggers: Inversion | Path | str | Mapping[int, Sequence[Stamp]], model: Classifier, all_methods: bool = False
) -> InvertedTriggers:
    """Triggers by target class, wherever they come from; none where an inversion accuses no class.

    Args:
        all_methods: of every inversion that has some.
    """
    if isinstance(triggers, Inversion | Path | str):
        return load_inverted(triggers, model.classes, all_methods=all_methods, or_none=True)
    if not isinstance(triggers, Mapping):
        told = f"triggers of type {type(triggers).__name__}"
        raise DoorwardError(f"repair: {told}; expected what doorward.invert returned, or the folder of its run")
    checked("triggers", triggers, model)
    stamps = {int(k): list(stamps) for k, stamps in triggers.items() if stamps}
    return InvertedTriggers(stamps, dict.fromkeys(stamps, ("given",)))
