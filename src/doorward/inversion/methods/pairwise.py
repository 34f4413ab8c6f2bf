"""Additive perturbations per pair of classes: a target class is unusually easy to reach from some source."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from doorward.core.errors import DoorwardError
from doorward.core.methods import method
from doorward.core.order_test import gamma_p_value
from doorward.core.triggers import Trigger
from doorward.inversion.inverted import Inverted
from doorward.inversion.judge.pairs import nearest, shift_test, target_statistic
from doorward.inversion.search.additive import EVEN, AdditiveObjective, AdditiveSettings, even_race
from doorward.inversion.search.loop import Lanes, Watch, optimise
from doorward.inversion.search.race import GOES_ON, Floats, Outlook, decided, outliers
from doorward.inversion.search.scene import Scene

Pairs = list[tuple[int, int]]  # source and target
_FIRST = 0.03  # of the pairs: when so many are nearly reached, a race compares all


class PairwiseSettings(AdditiveSettings):
    """Settings of pairwise perturbations."""

    batch: int = Field(16, ge=1, description="images of the source class per pair")
    success: float = Field(0.9, gt=0, le=1, description="share of the source's images that must be decided as target")


@method("invert", "pairwise", settings=PairwiseSettings, given={"scene", "seed", "watch", "reference"})
def pairwise(
    scene: Scene,
    s: PairwiseSettings,
    *,
    seed: int,
    watch: Watch,
    reference: NDArray[np.float64] | None = None,
) -> Inverted:
    """Find, for every pair of classes, the shortest additive perturbation that leads from one to the other.

    Xiang, Miller and Kesidis 2020 (post-training detection, reference [5] of the cluster-impurity poster): v minimises
    the surrogate loss over images of the source class, and its size counts when a share ``success`` of them is decided
    as the target; statistic 1 / |v|. The authors' order-statistic p-value (gamma null over all pairs) is shown. The
    verdict is the common one, on each target's most reachable source, so that one source class is enough.
    Deviation: steps of fixed L2 length, so that the norm at the first success is the shortest to one step.

    In a race (ours) all pairs are compared at equal length, when the first 3 % are three quarters on their way, by
    minus the cube root of their loss. A class's statistic is then the mean over its sources, which shows a trigger that
    works from several of them; and whether most sources are near to one class each is tested beside it
    (`doorward.inversion.judge.pairs.shift_test`), which shows a backdoor from every class to the next.

    Args:
        scene: the frozen net and clean images; classes without images are no source.
        seed: which images of a class are taken.
        reference: the statistic of clean nets ``[K]``, which a race takes out before it compares.

    Returns: statistic -log of the shortest norm into the class; its perturbation as an additive trigger.

    Fails when: the trigger is a visible patch (its norm is no smaller than that of a natural change); every class is
        a target, but in a race; the images are too few to stand for their class.
    """
    pairs, rows = _pairs(scene, s, seed)
    shape, device = scene.pixels.shape[1:], scene.pixels.device
    zeros = torch.zeros(len(pairs), *shape, device=device)
    infinite = torch.full((len(pairs),), torch.inf, device=device)
    held = {"label": torch.tensor([t for _, t in pairs], device=device), "rows": rows.to(device), "best": zeros}
    held |= {"best_norm": infinite, "norm": infinite.clone(), "rate": torch.zeros_like(infinite)}
    race = even_race(held, partial(_outlook, pairs, scene.model.classes, reference)) if s.race else None
    objective = AdditiveObjective(scene, s, near=max(1, round(_FIRST * len(pairs))))
    lanes = Lanes({"perturbation": zeros.clone()}, held)
    lanes = optimise(objective, lanes, s, seed=seed, watch=watch, race=race)
    return _result(scene, lanes, pairs)


def _outlook(pairs: Pairs, classes: int, reference: NDArray[np.float64] | None, seen: Floats) -> Outlook | None:
    """Which pairs are worth going on: those of targets that stand out, and each row's nearest where most rows have one.

    What references show of pairs is not known here; it decides nothing but whose trigger is finished.
    """
    square = _square(pairs, seen, classes)
    targets, shifted = outliers(target_statistic(square), usual=reference), shift_test(square)
    if targets is None:
        return None
    p, hopeful = targets.p_value, targets.hopeful[[t for _, t in pairs]]
    if shifted is not None:
        p = min(p, shifted.p_value)
        if shifted.p_value <= GOES_ON:
            best = set(nearest(square).items())
            hopeful |= np.array([pair in best for pair in pairs])
    return Outlook(p, hopeful)


def _square(pairs: Pairs, values: Floats, classes: int) -> Floats:
    """Values of pairs as source by target, ``[K, K]``."""
    square = np.full((classes, classes), np.nan)
    square[tuple(np.array(pairs).T)] = values
    return square


def _pairs(scene: Scene, s: PairwiseSettings, seed: int) -> tuple[Pairs, Tensor]:
    """(source, target) of every lane, and its images ``[lanes, batch]``; short classes repeat theirs."""
    labels, generator = scene.labels.cpu(), torch.Generator().manual_seed(seed)
    chosen: dict[int, Tensor] = {}
    for label in labels.unique().tolist():
        members = (labels == label).nonzero()[:, 0]
        members = members[torch.randperm(len(members), generator=generator)]
        if len(members) >= 2:
            chosen[label] = members[torch.arange(s.batch) % len(members)]
    if len(chosen) < 2:
        raise DoorwardError(
            f"invert pairwise: {len(chosen)} classes with two images or more; expected images of at least two classes"
        )
    pairs = [(source, target) for target in scene.candidates for source in chosen if source != target]
    return pairs, torch.stack([chosen[source] for source, _ in pairs])


def _result(scene: Scene, lanes: Lanes, pairs: Pairs) -> Inverted:
    classes, held = scene.model.classes, lanes.held
    works = held["best_norm"].isfinite().cpu().numpy()
    norm = torch.where(held["best_norm"].isfinite(), held["best_norm"], held["norm"]).cpu().numpy().astype(np.float64)
    dropped = held["dropped"].cpu().numpy()
    targets = np.array([t for _, t in pairs])
    size, source, triggers = np.full(classes, np.nan), [-1] * classes, {}
    converged, ran_out = np.zeros(classes, bool), np.zeros(classes, bool)
    for label in scene.candidates:
        mine = np.flatnonzero(targets == label)
        # a pair that never worked is longer than it got, so pairs that worked come first
        best = int(mine[np.lexsort((norm[mine], ~works[mine]))[0]])
        size[label], converged[label], source[label] = norm[best], works[best], pairs[best][0]
        ran_out[label] = not dropped[mine].all()
        tensor = held["best"] if works[best] else lanes.trained["perturbation"]
        pattern = tensor[best].permute(2, 0, 1).cpu().clamp(-1, 1).contiguous()
        triggers[label] = (Trigger(pattern, torch.ones(1, *pattern.shape[1:]), blend="add"),)
    statistic, meaning, square = -np.log(np.maximum(size, 1e-9)), "-log of the shortest perturbation's L2 norm", None
    seen, _, equal = decided(held, norm, works)
    if equal:
        square = _square(pairs, seen, classes)
        statistic, meaning = target_statistic(square), f"{EVEN}, over its sources"
    missing = int((~converged[list(scene.candidates)]).sum())
    details: dict[str, Any] = {
        "source": source,
        "steps": held["steps"].tolist(),
        "published_p_value": gamma_p_value(1 / np.maximum(norm, 1e-9)),
        "pairs": [[s, t, float(n) if w else None] for (s, t), n, w in zip(pairs, norm, works, strict=True)],
    }
    told = f"{missing} of {len(scene.candidates)} classes were reached from no source"
    return Inverted(
        statistic,
        meaning,
        np.isfinite(statistic) if equal else converged,
        converged,
        ran_out,
        triggers,
        size,
        details=details,
        pairs=square,
        even=equal,
        warnings=(told,) if missing and not equal else (),
    )
