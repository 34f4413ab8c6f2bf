"""The state of a running loop on disk: one safetensors file, whole or absent."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from doorward.core.errors import DoorwardError
from doorward.core.tensors import read_tensors, write_tensors

Tensors = dict[str, Tensor]


def save_checkpoint(
    path: Path, step: int, alive: Tensor, trained: Tensors, held: Tensors, optimiser: list[Tensors]
) -> None:
    """Write the state after ``step`` steps; a kill during the write leaves the former one."""
    tensors = {"step": torch.tensor(step), "alive": alive}
    tensors |= {f"trained.{k}": v for k, v in trained.items()} | {f"held.{k}": v for k, v in held.items()}
    for index, state in enumerate(optimiser):
        tensors |= {f"optimiser.{index}.{k}": v for k, v in state.items()}
    write_tensors(path, {k: v.detach().clone() for k, v in tensors.items()})  # lanes may share their storage


def load_checkpoint(path: Path, trained: Tensors, held: Tensors) -> tuple[int, Tensor, list[Tensors]]:
    """Fill the lanes' tensors in place; returns the steps done, the lanes alive, the optimiser's state."""
    device = next(iter(held.values())).device
    try:
        tensors = {k: v.to(device) for k, v in read_tensors(path).items()}
        for prefix, mine in (("trained", trained), ("held", held)):
            for key, value in mine.items():
                found = tensors[f"{prefix}.{key}"]
                if found.shape != value.shape:
                    raise ValueError(f"{key} has shape {list(found.shape)}, not {list(value.shape)}")
                mine[key] = found
        states: dict[int, Tensors] = {}
        for name in tensors:
            if name.startswith("optimiser."):
                _, index, key = name.split(".", 2)
                # torch keeps step counts on the CPU
                states.setdefault(int(index), {})[key] = tensors[name].cpu() if key == "step" else tensors[name]
        count = max(states, default=-1) + 1
        return int(tensors["step"]), tensors["alive"], [states.get(i, {}) for i in range(count)]
    except (DoorwardError, KeyError, ValueError) as error:
        line = str(error).splitlines()[0]
        raise DoorwardError(f"{path}: does not fit this inversion ({line}); delete it to start over") from None
