"""`Attack`: which images get which stamp, and which label then."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from doorward.core.errors import DoorwardError
from doorward.core.triggers import Stamp


@dataclass(frozen=True, eq=False)
class Pairing:
    """One stamp and its label rule.

    Args:
        stamp: what is put on an image.
        target: the label it then gets; None means the next class, label + 1 modulo K (all-to-all).
        sources: the classes whose images are stamped; None means all but the target.
    """

    stamp: Stamp
    target: int | None
    sources: tuple[int, ...] | None = None

    def targets(self, labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
        """The label that each image would get, ``[N]``."""
        return (labels + 1) % classes if self.target is None else np.full_like(labels, self.target)

    def eligible(self, labels: NDArray[np.int64], classes: int) -> NDArray[np.bool_]:
        """Images that the rule may stamp: of a source class, and not of the target class already."""
        allowed = labels != self.targets(labels, classes)
        return allowed if self.sources is None else allowed & np.isin(labels, self.sources)


@dataclass(frozen=True, eq=False)
class Attack:
    """A recipe's name and its pairings: one for most attacks, more for several triggers with several targets."""

    recipe: str
    pairings: tuple[Pairing, ...]

    def check(self, classes: int) -> None:
        """Refuse targets and sources that the classes do not have, and a source that equals its target."""
        for pairing in self.pairings:
            named = [*(pairing.sources or ()), *([] if pairing.target is None else [pairing.target])]
            for label in named:
                if not 0 <= label < classes:
                    raise DoorwardError(f"attack: class {label}; expected one of 0..{classes - 1}")
            if pairing.sources is not None and pairing.target in pairing.sources:
                raise DoorwardError(f"attack: source class {pairing.target} equals the target; expected another class")

    def describe(self, names: tuple[str, ...]) -> str:
        """The label rules in words."""
        told = []
        for pairing in self.pairings:
            into = "the next class" if pairing.target is None else names[pairing.target]
            origin = "any class" if pairing.sources is None else ", ".join(names[s] for s in pairing.sources)
            told.append(f"{origin} -> {into}")
        return f"{self.recipe}: {'; '.join(told)}"


@dataclass(frozen=True, eq=False)
class BatchStamping:
    """The attacker inside the training (Qiao, Yang and Li 2019, attack loss).

    Each image of a batch is stamped and relabelled with ``probability``; the pairing is drawn at random.
    """

    attack: Attack
    probability: float
    classes: int

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images ``[B, C, H, W]`` in [0, 1] and labels ``[B]``, some stamped and relabelled."""
        plain = labels.cpu().numpy()
        drawn = torch.rand(len(plain), generator=generator).numpy() < self.probability
        choice = torch.randint(len(self.attack.pairings), (len(plain),), generator=generator).numpy()
        images, labels = images.clone(), labels.clone()
        for index, pairing in enumerate(self.attack.pairings):
            rows = np.flatnonzero(drawn & (choice == index) & pairing.eligible(plain, self.classes))
            if len(rows):
                where = torch.from_numpy(rows).to(images.device)
                images[where] = pairing.stamp.apply(images[where], generator)
                labels[where] = torch.from_numpy(pairing.targets(plain[rows], self.classes)).to(labels.device)
        return images, labels
