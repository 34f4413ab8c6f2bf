"""Moving-window detection: which class has a small trigger, where it lies, and the whole of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field, model_validator

from doorward.errors import DoorwardError
from doorward.invert.complete import Complete, CompleteSettings, complete_triggers
from doorward.invert.effort import EffortSettings, equal_effort
from doorward.invert.heatmap import HeatMap, HeatSettings, check_window, heat_maps
from doorward.invert.loop import Watch
from doorward.invert.result import Inverted, spread
from doorward.invert.scene import Scene
from doorward.invert.verdict import FEWEST_CLASSES
from doorward.methods import Settings, method

_TARGET_SUCCESS = 0.5  # a class whose complete trigger fools fewer images is no target
_COMPARED = 3  # at most one class in three is a suspect, so that controls are left


class WindowSettings(Settings):
    """Settings of moving-window detection: of its three steps, and what they share."""

    window: int = Field(15, ge=1, description="side of the window in pixels")
    suspects: int = Field(8, ge=1, description="classes that go on to the heat map")
    completed: int = Field(4, ge=1, description="classes whose complete trigger is searched, after the heat map")
    effort: EffortSettings = EffortSettings()
    heat: HeatSettings = HeatSettings()
    complete: CompleteSettings = CompleteSettings()
    precision: str = Field("auto", pattern="^(auto|bf16|fp32)$")

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


@method("invert", "window", settings=WindowSettings, given={"scene", "seed", "watch"})
def window(scene: Scene, s: WindowSettings, *, seed: int, watch: Watch) -> Inverted:
    """Find triggers of any shape at a fixed place among many classes: size at equal effort, heat map, whole trigger.

    Qiao, Yang and Li 2019, slides "More challenge in realistic defense": transparency is searched with the pattern,
    x' = (1 - alpha) x + alpha t. Step 1 looks at all classes; step 2 accumulates the strength of windows into a heat
    map per suspicious class; step 3 searches the complete trigger where the map is hot. Deviations: step 1 gives every
    class the same steps from the same start, over the whole image by default (``effort.search`` = ``window``
    for the slides' random windows), so that the verdict compares all classes rather than survivors with survivors;
    the suspects alone go on, fewer of them at each step; strength is told against control classes at the same place.

    Args:
        scene: the frozen net and clean images; a few dozen are enough.
        seed: of the batches, the windows' places and the control classes.

    Returns: statistic -log of the smallest L1 norm of alpha that works, for every class that something worked for;
        RGBA triggers, heat maps and the number of image passes for the suspects.

    Raises:
        DoorwardError: a window larger than the image; fewer than four classes to compare.

    Fails when: the trigger needs most of the image (blends, warps); works from few source classes only; most classes
        are targets; a natural feature of one class is as strong as a backdoor (see `doorward.invert.evidence`).
    """
    check_window(s.window, scene.model.shape, "invert window")
    labels = scene.candidates
    if len(labels) < FEWEST_CLASSES:
        raise DoorwardError(f"invert window: {len(labels)} classes to compare; expected at least {FEWEST_CLASSES}")
    shared = {"window": s.window}
    lanes = equal_effort(scene, s.effort.model_copy(update=shared), seed=seed, watch=_stage(watch, "effort"))
    size = lanes.held["best"].double().cpu().numpy().clip(min=1e-3)
    order = np.argsort(size, kind="stable")
    suspects = tuple(int(labels[i]) for i in order[: min(s.suspects, max(1, len(labels) // _COMPARED))])
    watches = (_stage(watch, "coarse"), _stage(watch, "fine"))
    maps, heat_passes = heat_maps(scene, suspects, s.heat.model_copy(update=shared), seed=seed, watches=watches)
    kept = {label: maps[label] for label in suspects[: s.completed]}
    found, complete_passes = complete_triggers(scene, kept, s.complete, seed=seed, watch=_stage(watch, "complete"))
    steps = s.effort.steps * s.effort.batch
    passes = {"effort": len(labels) * steps, "heat": heat_passes, "complete": complete_passes}
    positions = (scene.model.shape[1] - s.window + 1) * (scene.model.shape[2] - s.window + 1)
    exhaustive = len(labels) * positions * s.heat.steps * s.heat.batch
    details = _details(maps, found) | {"passes": passes, "passes_of_every_class_and_position": exhaustive}
    return _result(scene, size, suspects, found, details)


def _result(
    scene: Scene,
    size: np.ndarray[tuple[int], np.dtype[np.float64]],
    suspects: tuple[int, ...],
    found: dict[int, Complete],
    details: dict[str, Any],
) -> Inverted:
    classes, reached = scene.model.classes, np.isfinite(size)
    compared = spread(reached, scene.candidates, classes, False)
    enough = 2 * reached.sum() >= len(size)  # else the verdict would be about those that were easiest to reach
    works = [found[k].success >= _TARGET_SUCCESS for k in found]
    failed = [str(k) for k, c in found.items() if c.success < _TARGET_SUCCESS]
    warnings = [f"no trigger in the hot region of class {', '.join(failed)} fools half of the images"] if failed else []
    if not reached.all():
        warnings.append(f"{int((~reached).sum())} of {len(size)} classes: no trigger worked after equal effort")
    return Inverted(
        spread(np.where(reached, -np.log(size), np.nan), scene.candidates, classes),
        "-log of the smallest L1 norm of alpha that works, after the same effort for every class",
        compared & enough,
        spread(works, tuple(found), classes, False),
        compared,
        {label: (c.trigger,) for label, c in found.items()},
        spread([c.size for c in found.values()], tuple(found), classes),
        details={"suspects": list(suspects), "size_at_equal_effort": size.tolist(), **details},
        warnings=tuple(warnings),
    )


def _details(maps: dict[int, HeatMap], found: dict[int, Complete]) -> dict[str, Any]:
    """Heat maps and complete triggers as JSON values."""
    heat = {
        str(label): {
            "peak": list(m.peak),
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
