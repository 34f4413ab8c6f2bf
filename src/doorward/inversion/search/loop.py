"""The loop that all inversions share: many lanes, one forward pass.

A lane is one optimisation: a class, a pair of classes, a class at one level of the staircase. The tensors of all lanes
are stacked, so that every lane advances in the same pass through the frozen net. No value leaves the device but at the
checks, every ``check`` steps, where lanes that are done or hopeless are taken out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from doorward.core.errors import DoorwardError
from doorward.core.methods import Settings
from doorward.inversion.search.checkpoint import load_checkpoint, save_checkpoint
from doorward.inversion.search.race import Race

Tensors = dict[str, Tensor]
_PIXELS_PER_PASS = 128 * 112 * 112


class LoopSettings(Settings):
    """What every inversion has; a method gives its own defaults."""

    steps: int = Field(300, ge=1, description="optimiser steps at most")
    batch: int = Field(64, ge=1, description="images per lane and step")
    check: int = Field(10, ge=1, description="steps between looks at which lanes are done")
    halve_from: int = Field(32, ge=2, description="with this many lanes or more, the worse half is dropped early")
    images_per_pass: int = Field(0, ge=0, description="images in one forward pass; 0: by device")
    precision: str = Field(
        "auto",
        pattern="^(auto|bf16|fp32)$",
        description="of the arithmetic: auto, bf16 or fp32; auto: bf16 where the hardware has it",
    )


@dataclass
class Lanes:
    """The stacked tensors of some lanes; the first dimension of each counts them.

    Args:
        trained: what the optimiser moves.
        held: everything else that belongs to a lane: its target class, its best result so far.
    """

    trained: Tensors
    held: Tensors

    def __len__(self) -> int:
        return len(next(iter(self.held.values())))

    def part(self, rows: slice) -> Lanes:
        """Views of some lanes, for one forward pass."""
        return Lanes({k: v[rows] for k, v in self.trained.items()}, {k: v[rows] for k, v in self.held.items()})

    def take(self, rows: Tensor) -> Lanes:
        """Copies of some lanes, ready for an optimiser."""
        trained = {k: v.detach()[rows].clone().requires_grad_() for k, v in self.trained.items()}
        return Lanes(trained, {k: v[rows].clone() for k, v in self.held.items()})

    def put(self, rows: Tensor, lanes: Lanes) -> None:
        """Write lanes back to where they came from."""
        for mine, theirs in ((self.trained, lanes.trained), (self.held, lanes.held)):
            for key, value in theirs.items():
                mine[key][rows] = value.detach()


class Objective:
    """What a method brings to the loop. All methods work on all lanes at once and keep values on the device."""

    def draw(self, lanes: Lanes, batch: int, generator: torch.Generator) -> Tensors:
        """Everything random of one step, ``[lanes, ...]`` each."""
        return {}

    def loss(self, lanes: Lanes, drawn: Tensors) -> tuple[Tensor, Tensors]:
        """The loss per lane, ``[lanes]``, and detached values per lane for `note`."""
        raise NotImplementedError

    def optimiser(self, trained: list[Tensor]) -> torch.optim.Optimizer:
        """The optimiser of stacked tensors; must treat every element, or every lane, by itself."""
        raise NotImplementedError

    def note(self, lanes: Lanes, told: Tensors, step: int) -> None:
        """Keep what the step told, before the optimiser moves."""

    def settle(self, lanes: Lanes) -> None:
        """Put moved tensors back into their valid range."""

    def done(self, lanes: Lanes) -> Tensor:
        """Lanes that have converged, bool ``[lanes]``."""
        return torch.zeros(len(lanes), dtype=torch.bool, device=next(iter(lanes.held.values())).device)

    def promise(self, lanes: Lanes) -> Tensor | None:
        """How much a lane looks like a backdoor so far, ``[lanes]``; None when lanes are never dropped."""
        return None


@dataclass
class Watch:
    """Who looks at a running loop.

    Args:
        progress: called at every check with (steps done, steps in all, lanes left).
        checkpoint: a file that is rewritten at checks and at the end, so that a killed loop goes on and a finished
            one is not repeated; removed by the caller.
        every: seconds between two writes of the checkpoint.
    """

    progress: Callable[[int, int, int], None] | None = None
    checkpoint: Path | None = None
    every: float = 20.0
    _last: float = field(default_factory=time.monotonic)

    def due(self) -> bool:
        """Whether the checkpoint is to be written now."""
        if self.checkpoint is None or time.monotonic() - self._last < self.every:
            return False
        self._last = time.monotonic()
        return True


@dataclass
class Room:
    """How much goes through the net at once; halved when the GPU runs out of memory."""

    lanes: int
    batch: int

    def shrink(self, lanes: int) -> bool:
        """Halve the lanes per pass, then the images per lane; False when nothing is left to halve."""
        if min(self.lanes, lanes) > 1:
            self.lanes = min(self.lanes, lanes) // 2
        elif self.batch > 1:
            self.batch //= 2
        else:
            return False
        return True


def optimise(
    objective: Objective,
    lanes: Lanes,
    s: LoopSettings,
    *,
    seed: int,
    watch: Watch | None = None,
    race: Race | None = None,
) -> Lanes:
    """Move all lanes until each has converged, was dropped, is stopped by a race, or the steps are used up.

    Args:
        lanes: where they start; ``held`` gets two more entries, ``steps`` (taken by the lane) and ``dropped``.
        seed: everything random of step i hangs on (seed, i) alone, so a resumed loop repeats exactly.
        race: looks at all lanes at the checks; ``held`` gets its entries too.

    Returns: all lanes, those taken out as they were then.

    Raises:
        DoorwardError: no memory for a single lane with a single image; a checkpoint of another inversion.

    A lane whose numbers stop being finite is dropped; the others do not notice.
    """
    watch, device = watch or Watch(), next(iter(lanes.held.values())).device
    everything, first, alive, state = _begin(lanes, watch, race)
    active = everything.take(alive)
    optimiser = make_optimiser(objective, active, state)
    per_pass = s.images_per_pass or images_per_pass(device, objective)
    room = Room(max(1, per_pass // s.batch), s.batch)
    rungs = halving_steps(len(lanes), s)
    for step in range(first, s.steps if len(alive) else 0):
        generator = torch.Generator(device).manual_seed((seed * 1_000_003 + step) % (1 << 63))
        told = _gradients(objective, active, optimiser, room, generator)
        active.held["steps"] += 1
        with torch.no_grad():
            objective.note(active, told, step)
            optimiser.step()
            objective.settle(active)
        if (step + 1) % s.check and step + 1 not in rungs and step + 1 < s.steps:
            continue
        everything.put(alive, active)
        keep = _kept(objective, active, step + 1 in rungs)
        everything.held["dropped"][alive] = active.held["dropped"]
        if race is not None:
            keep &= race.look(everything.held, step + 1)[alive]
            active.held |= {k: everything.held[k][alive] for k in race.entries(0, device)}
        if not bool(keep.all()):
            alive = alive[keep]
            state = [{k: v[keep] if v.ndim else v for k, v in p.items()} for p in optimiser_state(optimiser)]
            active = everything.take(alive)
            optimiser = make_optimiser(objective, active, state)
        if watch.progress:
            watch.progress(step + 1, s.steps, len(alive))
        ended = step + 1 == s.steps or not len(alive)
        if watch.checkpoint is not None and (ended or watch.due()):
            save_checkpoint(
                watch.checkpoint, step + 1, alive, everything.trained, everything.held, optimiser_state(optimiser)
            )
        if ended:
            break
    return everything


def images_per_pass(device: torch.device, objective: Objective) -> int:
    """How many images go through the net at once. On a GPU many, for `Room` shrinks where they do not fit.

    On a CPU 128 where they are small (see `forward_batch`), of larger ones as many as have the pixels of 128 of 112 x
    112: with what the backward pass keeps, an image of 224 x 224 takes some 80 MiB in EfficientNet-lite0.
    """
    if device.type != "cpu":
        return 16_384
    model = getattr(getattr(objective, "scene", objective), "model", None)
    return 128 if model is None else max(1, min(128, _PIXELS_PER_PASS // (model.shape[1] * model.shape[2])))


def _begin(lanes: Lanes, watch: Watch, race: Race | None) -> tuple[Lanes, int, Tensor, list[Tensors] | None]:
    """All lanes with the loop's own entries, the steps done, the lanes alive, the optimiser's state."""
    alive = torch.arange(len(lanes), device=next(iter(lanes.held.values())).device)
    counted = {"steps": torch.zeros_like(alive), "dropped": torch.zeros_like(alive, dtype=torch.bool)}
    counted |= race.entries(len(lanes), alive.device) if race is not None else {}
    everything = Lanes(
        {k: v.detach().clone() for k, v in lanes.trained.items()},
        {k: v.clone() for k, v in lanes.held.items()} | counted,
    )
    if watch.checkpoint is None or not watch.checkpoint.exists():
        return everything, 0, alive, None
    first, alive, state = load_checkpoint(watch.checkpoint, everything.trained, everything.held)
    return everything, first, alive, state


def halving_steps(lanes: int, s: LoopSettings) -> dict[int, int]:
    """Successive halving: after which steps the worse half of the lanes is dropped, and how many lanes stay.

    Halvings lie evenly over the first half of the steps and stop at ``halve_from / 2`` lanes or more.
    """
    count = 0
    while lanes >> count >= s.halve_from:
        count += 1
    return {max(1, round(s.steps / 2 * (i + 1) / count)): -(-lanes >> (i + 1)) for i in range(count)}


def optimiser_state(optimiser: torch.optim.Optimizer) -> list[Tensors]:
    """The optimiser's tensors per parameter, in order."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    return [{k: v for k, v in optimiser.state.get(p, {}).items() if isinstance(v, Tensor)} for p in parameters]


def make_optimiser(objective: Objective, lanes: Lanes, state: list[Tensors] | None) -> torch.optim.Optimizer:
    """The method's optimiser over these lanes, going on from ``state``."""
    optimiser = objective.optimiser(list(lanes.trained.values()))
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for parameter, values in zip(parameters, state or [], strict=False):
        if values:
            optimiser.state[parameter] = dict(values)
    return optimiser


def _gradients(
    objective: Objective, lanes: Lanes, optimiser: torch.optim.Optimizer, room: Room, generator: torch.Generator
) -> Tensors:
    """One backward pass for all lanes, in as many parts as memory wants."""
    state = generator.get_state()
    while True:
        try:
            optimiser.zero_grad(set_to_none=True)
            generator.set_state(state)
            drawn, told = objective.draw(lanes, room.batch, generator), []
            for start in range(0, len(lanes), room.lanes):
                rows = slice(start, start + room.lanes)
                loss, values = objective.loss(lanes.part(rows), {k: v[rows] for k, v in drawn.items()})
                loss.sum().backward()
                told.append(values)
            return {k: torch.cat([t[k] for t in told]) for k in told[0]}
        except torch.OutOfMemoryError:
            if not room.shrink(len(lanes)):
                raise DoorwardError(
                    "invert: out of memory with one image of one class; expected a smaller net or --device cpu"
                ) from None
            if generator.device.type == "cuda":
                torch.cuda.empty_cache()


def _kept(objective: Objective, lanes: Lanes, halve: bool) -> Tensor:
    """Lanes that go on, bool; marks the dropped ones. The one place where the host waits for the device."""
    finite = torch.stack([t.detach().flatten(1).isfinite().all(1) for t in lanes.trained.values()]).all(0)
    lanes.held["dropped"] |= ~finite
    keep = ~objective.done(lanes) & finite
    promise = objective.promise(lanes) if halve else None
    if promise is not None:
        worse = promise.argsort(descending=True, stable=True)[-(-len(lanes) // 2) :]
        lanes.held["dropped"][worse] |= keep[worse]
        keep[worse] = False
    return keep
