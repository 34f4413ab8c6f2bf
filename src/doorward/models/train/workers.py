"""Several processes in one training (``torchrun``): the same weights everywhere, a part of every batch each."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from doorward.core.errors import DoorwardError, brief

T = TypeVar("T")


def process_number() -> int:
    """Number of this process among those of ``torchrun``; 0, which writes, where there is one process."""
    return int(os.environ.get("RANK", "0")) if _count() > 1 else 0


def _count() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


@dataclass(frozen=True)
class Workers:
    """The processes of one training.

    Args:
        number: of this process.
        count: how many there are.
    """

    number: int = 0
    count: int = 1

    @property
    def writes(self) -> bool:
        """Whether this process reads and writes the checkpoint."""
        return self.number == 0

    def wrap(self, net: nn.Module) -> nn.Module:
        """The net, whose gradients are averaged over the processes; the first one's weights go to all."""
        return nn.parallel.DistributedDataParallel(net) if self.count > 1 else net

    def total(self, values: Tensor) -> Tensor:
        """The sum over the processes."""
        if self.count > 1:
            distributed.all_reduce(values)
        return values

    def first(self, value: T) -> T:
        """The value that the first process has."""
        if self.count == 1:
            return value
        held: list[Any] = [value]
        distributed.broadcast_object_list(held, src=0)
        return held[0]  # type: ignore[no-any-return]


def join(device: torch.device) -> tuple[Workers, torch.device]:
    """This process among those that ``torchrun`` started, and its device: a GPU each, or the CPU with gloo."""
    if _count() == 1:
        return Workers(), device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        try:
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        except (RuntimeError, ValueError) as error:
            told = f"WORLD_SIZE {_count()}: {brief(error)}; expected a start by torchrun, or no WORLD_SIZE"
            raise DoorwardError(told) from None
    return Workers(distributed.get_rank(), distributed.get_world_size()), device
