"""Moving-window detection: which class has a small trigger, where it lies, and the whole of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from doorward.core.errors import DoorwardError
from doorward.core.methods import Settings, method
from doorward.core.order_test import FEWEST_CLASSES
from doorward.inversion.inverted import Inverted, spread
from doorward.inversion.methods.window.complete import Complete, CompleteSettings, complete_triggers
from doorward.inversion.methods.window.effort import EffortSettings, equal_effort
from doorward.inversion.methods.window.heatmap import Floats, HeatMap, HeatSettings, check_window, heat_maps
from doorward.inversion.search.loop import Watch
from doorward.inversion.search.scene import Scene

_TARGET_SUCCESS = 0.5  # a class whose complete trigger fools fewer images is no target
_CONTROLS = 1  # keeps the draw of control classes apart from other draws by the same seed
_COMPARED = 3  # at most one class in three is a suspect, so that controls are left


class WindowSettings(Settings):
    """Settings of moving-window detection: of its three steps, and what they share."""

    window: int = Field(15, ge=1, description="side of the window in pixels")
    finalists: int = Field(24, ge=1, description="classes that go on from the first look to the thorough one")
    controls: int = Field(
        32, ge=8, description="classes drawn at random for the thorough look: the verdict compares finalists with them"
    )
    suspects: int = Field(5, ge=0, description="classes that go on to the heat map; 0: size and verdict alone")
    completed: int = Field(5, ge=1, description="classes whose complete trigger is searched, after the heat map")
    effort: EffortSettings = Field(EffortSettings(), description="of the first look, at all classes")
    thorough: EffortSettings = Field(
        EffortSettings(steps=100, batch=16), description="of the second look, at finalists and controls"
    )
    heat: HeatSettings = Field(HeatSettings(), description="of the heat map")
    complete: CompleteSettings = Field(CompleteSettings(), description="of the search for the complete trigger")
    precision: str = Field(
        "auto",
        pattern="^(auto|bf16|fp32)$",
        description="of the arithmetic: auto, bf16 or fp32; auto: bf16 where the hardware has it",
    )

    def for_reference(self) -> WindowSettings:
        """For clean nets, of which nothing but the size is asked: of all classes, without heat maps and triggers."""
        return self.model_copy(update={"finalists": 1 << 30, "suspects": 0})

    @model_validator(mode="before")
    @classmethod
    def _nested(cls, values: Any) -> Any:
        """``effort.steps`` and the like, as the command line has them, put into their step."""
        if not isinstance(values, dict):
            return values
        nested: dict[str, Any] = {k: v for k, v in values.items() if "." not in k}
        for name, value in values.items():
            step, dot, setting = name.partition(".")
            if dot:
                nested[step] = {**nested.get(step, {}), setting: value}
        return nested


@method("invert", "window", settings=WindowSettings, given={"scene", "seed", "watch", "reference"})
def window(
    scene: Scene, s: WindowSettings, *, seed: int, watch: Watch, reference: NDArray[np.float64] | None = None
) -> Inverted:
    """Find triggers of any shape at a fixed place among many classes: their size, a heat map, the whole trigger.

    Qiao, Yang and Li 2019, slides "More challenge in realistic defense": transparency is searched with the pattern,
    x' = (1 - alpha) x + alpha t. Step 1 looks at all classes; step 2 accumulates the strength of windows into a heat
    map per suspicious class; step 3 searches the complete trigger where the map is hot. Deviations: step 1 searches
    the whole image by default (``effort.search`` = ``window`` for the slides' random windows). It looks at many classes
    twice: briefly at all, then thoroughly at those with the smallest triggers and, beside them, at classes drawn at
    random, which the verdict compares them with. Strength is told against control classes at the same place.

    Args:
        scene: the frozen net and clean images; a few dozen are enough.
        seed: of the batches, the windows' places and the control classes.
        reference: the statistic of clean nets ``[K]``; suspects are those that stand out from it.

    Returns: statistic -log of the smallest L1 norm of alpha that works, of classes that were looked at thoroughly;
        RGBA triggers, heat maps and the number of image passes for the suspects.

    Raises:
        DoorwardError: a window larger than the image; fewer than four classes to compare.

    Fails when: the trigger needs most of the image (blends, warps); works from few source classes only; most classes
        are targets; a natural feature of one class is as strong as a backdoor (see `rank_targets`).
    """
    check_window(s.window, scene.model.shape, "invert window")
    labels = scene.candidates
    if len(labels) < FEWEST_CLASSES:
        raise DoorwardError(f"invert window: {len(labels)} classes to compare; expected at least {FEWEST_CLASSES}")
    shared = {"window": s.window}
    sizes = _sizes(scene, s, seed, watch)
    usual = 0.0 if reference is None else np.nan_to_num(reference[list(sizes.labels)])
    order = np.argsort(np.log(sizes.thorough) + usual, kind="stable")
    suspects = tuple(sizes.labels[i] for i in order[: min(s.suspects, max(1, len(labels) // _COMPARED))])
    if not suspects:
        return _result(scene, sizes, (), {}, {"passes": sizes.passes})
    watches = (_stage(watch, "coarse"), _stage(watch, "fine"))
    maps, heat_passes = heat_maps(scene, suspects, s.heat.model_copy(update=shared), seed=seed, watches=watches)
    kept = {label: maps[label] for label in suspects[: s.completed]}
    found, complete_passes = complete_triggers(scene, kept, s.complete, seed=seed, watch=_stage(watch, "complete"))
    passes = {**sizes.passes, "heat": heat_passes, "complete": complete_passes}
    positions = (scene.model.shape[1] - s.window + 1) * (scene.model.shape[2] - s.window + 1)
    exhaustive = len(labels) * positions * s.heat.steps * s.heat.batch
    details = _details(maps, found) | {"passes": passes, "passes_of_every_class_and_position": exhaustive}
    return _result(scene, sizes, suspects, found, details)


@dataclass(frozen=True, eq=False)
class _Sizes:
    """Smallest L1 norm of alpha that works, in pixels; infinity where nothing does.

    Args:
        first: of all candidates after the first look; None when all were looked at thoroughly at once.
        labels: classes of the thorough look, ``thorough`` their sizes.
        controls: those of them that were drawn at random; empty when they are all candidates.
    """

    first: Floats | None
    labels: tuple[int, ...]
    thorough: Floats
    controls: tuple[int, ...]
    passes: dict[str, int]


def _sizes(scene: Scene, s: WindowSettings, seed: int, watch: Watch) -> _Sizes:
    """Trigger sizes after a thorough look at all classes, or at finalists and controls when there are many."""
    labels, shared = scene.candidates, {"window": s.window}
    first, controls, passes = None, tuple[int, ...](), {}
    if len(labels) > s.finalists + s.controls:
        first = _smallest(scene, s.effort.model_copy(update=shared), seed, _stage(watch, "effort"))
        passes["effort"] = len(labels) * s.effort.steps * s.effort.batch
        finalists = np.asarray(labels)[np.argsort(first, kind="stable")[: s.finalists]].tolist()
        drawn = np.random.default_rng((seed, _CONTROLS)).permutation(labels)[: s.controls]
        controls = tuple(sorted(int(k) for k in drawn))
        labels = tuple(sorted({*finalists, *controls}))
    narrowed = replace(scene, candidates=labels)
    thorough = _smallest(narrowed, s.thorough.model_copy(update=shared), seed, _stage(watch, "thorough"))
    passes["thorough"] = len(labels) * s.thorough.steps * s.thorough.batch
    return _Sizes(first, labels, thorough, controls, passes)


def _smallest(scene: Scene, s: EffortSettings, seed: int, watch: Watch) -> Floats:
    lanes = equal_effort(scene, s, seed=seed, watch=watch)
    return np.asarray(lanes.held["best"].double().cpu().numpy().clip(min=1e-3))


def _result(
    scene: Scene, sizes: _Sizes, suspects: tuple[int, ...], found: dict[int, Complete], details: dict[str, Any]
) -> Inverted:
    classes, labels, size = scene.model.classes, sizes.labels, sizes.thorough
    reached = np.isfinite(size)
    compared = spread(reached, labels, classes, False)
    enough = 2 * reached.sum() >= len(size)  # else the verdict would be about those that were easiest to reach
    works = spread([found[k].success >= _TARGET_SUCCESS for k in found], tuple(found), classes, False)
    failed = [str(k) for k, c in found.items() if c.success < _TARGET_SUCCESS]
    warnings = [f"no trigger in the hot region of class {', '.join(failed)} fools half of the images"] if failed else []
    if not reached.all():
        warnings.append(f"{int((~reached).sum())} of {len(size)} classes: no trigger worked after equal effort")
    first = size if sizes.first is None else sizes.first
    return Inverted(
        spread(np.where(reached, -np.log(size), np.nan), labels, classes),
        "-log of the smallest L1 norm of alpha that works, after the same effort for every class",
        compared & enough,
        works if suspects else compared,  # without complete triggers, those of the search count
        compared,
        {label: (c.trigger,) for label, c in found.items()},
        spread([c.size for c in found.values()], tuple(found), classes),
        details={"suspects": list(suspects), "size_at_equal_effort": first.tolist(), **details},
        warnings=tuple(warnings),
        controls=sizes.controls,
    )


def _details(maps: dict[int, HeatMap], found: dict[int, Complete]) -> dict[str, Any]:
    """Heat maps and complete triggers as JSON values."""
    heat = {
        str(label): {
            "peak": list(m.peak),
            "centre": [round(v, 2) for v in m.centre],
            "strongest": float(m.strength.max()),
            "success": float(m.success.max()),
            "map": np.round(m.heat, 3).tolist(),
        }
        for label, m in maps.items()
    }
    complete = {
        str(label): {"success": c.success, "size": c.size, "level": c.level, "tried": c.tried}
        for label, c in found.items()
    }
    return {"heat_maps": heat, "complete": complete}


def _stage(watch: Watch, name: str) -> Watch:
    """A watch whose checkpoint is the stage's own; finished stages are not repeated."""
    path = watch.checkpoint
    if path is None:
        return Watch(watch.progress)
    stem = path.name.removesuffix("-checkpoint.safetensors")
    return Watch(watch.progress, path.with_name(f"{stem}-{name}-checkpoint.safetensors"), watch.every)
