"""One lane per class, all moving alike: which class is reached first from images of all others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from doorward.core.errors import DoorwardError
from doorward.core.triggers import Trigger
from doorward.inversion.inverted import Inverted, spread
from doorward.inversion.search.additive import EVEN, AdditiveObjective, AdditiveSettings, even_race
from doorward.inversion.search.loop import Lanes, Watch, optimise
from doorward.inversion.search.race import decided, outliers


def reach(
    objective: AdditiveObjective,
    shape: Sequence[int],
    s: AdditiveSettings,
    *,
    name: str,
    meaning: str,
    seed: int,
    watch: Watch,
    reference: NDArray[np.float64] | None,
    trigger: Callable[[Tensor], Trigger] | None = None,
) -> Inverted:
    """Move every class's perturbation until it sends enough images of other classes to the class.

    Args:
        shape: of a class's perturbation, which starts as zeros. ``s``: its batch is of images of other classes.
        name: of the method, for messages. ``meaning``: of its statistic, where no race decides.
        reference: the statistic of clean nets ``[K]``, which a race takes out before it compares.
        trigger: makes one of a perturbation; None makes none.

    Returns: statistic -log of the shortest norm into the class; in a race `EVEN`.
    """
    scene = objective.scene
    held = _held(scene.labels.cpu(), scene.candidates, shape, name, s.batch, seed, scene.pixels.device)
    usual = None if reference is None else reference[list(scene.candidates)]
    race = even_race(held, partial(outliers, usual=usual)) if s.race else None
    trained = {"perturbation": held["best"].clone()}
    lanes = optimise(objective, Lanes(trained, held), s, seed=seed, watch=watch, race=race)
    held = lanes.held
    reached = held["best_norm"].isfinite()
    size = torch.where(reached, held["best_norm"], held["norm"]).cpu().numpy().astype(np.float64)
    last = [(held["best"] if ok else lanes.trained["perturbation"])[lane] for lane, ok in enumerate(reached.tolist())]
    triggers = {k: (trigger(v),) for k, v in zip(scene.candidates, last, strict=True)} if trigger else {}
    works, dropped = reached.cpu().numpy(), held["dropped"].cpu().numpy()
    missing = int((~works & ~dropped).sum())
    place = (scene.candidates, scene.model.classes)
    told = f"{missing} of {len(works)} classes were not reached in {s.steps} steps"
    statistic, compared, equal = decided(held, -np.log(np.maximum(size, 1e-9)), works)
    return Inverted(
        spread(statistic, *place),
        EVEN if equal else meaning,
        spread(compared, *place, False),
        spread(works, *place, False),
        spread(~dropped, *place, False),
        triggers,
        spread(size, *place),
        details={"steps": held["steps"].tolist()},
        even=equal,
        warnings=(told,) if missing and not equal else (),
    )


def _held(
    labels: Tensor,
    candidates: tuple[int, ...],
    shape: Sequence[int],
    name: str,
    batch: int,
    seed: int,
    device: torch.device,
) -> dict[str, Tensor]:
    """What the lanes hold: their class, the images that it is to be reached from, and how far they are."""
    generator, rows = torch.Generator().manual_seed(seed), []
    for label in candidates:
        others = (labels != label).nonzero()[:, 0]
        if len(others) < 2:
            raise DoorwardError(f"invert {name}: {len(others)} images of other classes than {label}; expected more")
        others = others[torch.randperm(len(others), generator=generator)]
        rows.append(others[torch.arange(batch) % len(others)])
    infinite = torch.full((len(candidates),), torch.inf, device=device)
    best = torch.zeros(len(candidates), *shape, device=device)
    held = {"label": torch.tensor(candidates, device=device), "rows": torch.stack(rows).to(device), "best": best}
    held |= {k: infinite.clone() for k in ("best_norm", "norm")}
    return held | {"rate": torch.zeros(len(candidates), device=device)}
