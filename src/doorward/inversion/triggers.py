"""Triggers of an inversion run, as the input of a repair or a screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doorward.core.errors import DoorwardError
from doorward.core.images import class_number
from doorward.core.runs import Run
from doorward.core.triggers import Stamp, Trigger
from doorward.inversion.files import load_stamps


@dataclass(frozen=True, eq=False)
class InvertedTriggers:
    """Stamps per target class, and per target the inversions they are of."""

    stamps: dict[int, list[Stamp]]
    methods: dict[int, tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class _Look:
    """One round of an inversion: where its triggers lie, what each method kept, and the targets it found."""

    folder: Path
    kept: dict[str, dict[str, list[str]]]
    classes: dict[str, list[dict[str, Any]]]
    surest: dict[int, str]

    @classmethod
    def read(cls, folder: Path, methods: dict[str, Any], targets: Sequence[dict[str, Any]]) -> _Look:
        return cls(
            folder,
            {name: found["triggers"] for name, found in methods.items()},
            {name: found["classes"] for name, found in methods.items()},
            {int(t["label"]): str(t["method"]) for t in targets},
        )

    def choose(self, label: int, method: str | None) -> str | None:
        """The inversion to take a class's triggers from: a distribution that works, the verdict's, the best."""
        able = [m for m, kept in self.kept.items() if kept.get(str(label)) and method in (None, m)]
        whole = [
            m
            for m in able
            if self.classes[m][label]["works"] and any("distribution" in file for file in self.kept[m][str(label)])
        ]
        if not whole and self.surest.get(label) in able:
            return self.surest[label]
        return max(whole or able, key=lambda m: self._success(m, label), default=None)

    def _success(self, method: str, label: int) -> float:
        rate = self.classes[method][label]["asr"]
        return -1.0 if rate is None else float(rate[1])


def load_inverted(
    run: Path | str, classes: Sequence[str], *, targets: Sequence[str] = (), method: str | None = None
) -> InvertedTriggers:
    """Read the triggers of the classes that an inversion run found to be targets, or of those that are named.

    A class that several rounds of the run point to gets the triggers of all of them.

    Args:
        run: folder that ``doorward invert`` wrote.
        classes: the classifier's class names.
        targets: names or numbers of classes, instead of those of the run's verdict.
        method: the inversion whose triggers to take; by default a distribution of all triggers where one was found
            that works, else those of the method that is surest (or, of a named class, most successful).

    Raises:
        DoorwardError: no target found and none named, a class that is not there, or one without triggers.
    """
    run = Path(run)
    results = Run.read(run, "invert")["results"]
    try:
        looks = _looks(run, results)
        labels = [class_number(name, classes, "--target") for name in targets] or [
            int(t["label"]) for t in results["targets"]
        ]
        count = len(results["classes"])
        if count != len(classes):
            raise DoorwardError(f"{run}: inverted a model of {count} classes; this one has {len(classes)}")
        if not labels:
            raise DoorwardError(f"{run}: found no target class; expected one to be named with --target CLASS")
        if method is not None and method not in looks[0].kept:
            raise DoorwardError(f"{run}: has no triggers of {method!r}; expected one of {', '.join(looks[0].kept)}")
        found = InvertedTriggers({}, {})
        for label in dict.fromkeys(labels):
            _collect(found, looks, label, method)
            if not found.stamps[label]:
                told = "expected an inversion that makes triggers for it"
                raise DoorwardError(f"{run}: keeps no trigger for class {classes[label]}; {told}")
        return found
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise DoorwardError(f"{run / 'run.json'}: {error!r}; expected a run of this version of doorward") from None


def _looks(run: Path, results: dict[str, Any]) -> list[_Look]:
    """The rounds of a run; most have one."""
    rounds = results.get("rounds") or [results]
    looks = [_Look.read(run, results["methods"], rounds[0]["targets"])]
    for later in rounds[1:]:
        looks.append(_Look.read(run / Path(str(later["folder"])).name, later["methods"], later["targets"]))
    return looks


def _collect(found: InvertedTriggers, looks: Sequence[_Look], label: int, method: str | None) -> None:
    """The triggers of one class: of the rounds that found it a target, else of the first one."""
    found.stamps[label], names = [], []
    for look in [one for one in looks if label in one.surest] or looks[:1]:
        chosen = look.choose(label, method)
        if chosen is not None:
            found.stamps[label] += load_stamps(look.folder, chosen, label)
            names.append(chosen)
    found.methods[label] = tuple(dict.fromkeys(names))


def load_patches(
    run: Path, classes: Sequence[str], *, targets: Sequence[str] = (), method: str | None = None
) -> dict[int, Trigger]:
    """The best single trigger of every target class of an inversion run: what a screen looks for.

    Args: as `load_inverted`.

    Raises:
        DoorwardError: as `load_inverted`, or a class for which the run keeps a distribution and no single trigger.
    """
    patches = {}
    for label, stamps in load_inverted(run, classes, targets=targets, method=method).stamps.items():
        single = [stamp for stamp in stamps if isinstance(stamp, Trigger)]
        if not single:
            told = "expected an inversion that makes single triggers, such as mask"
            raise DoorwardError(f"{run}: keeps a distribution alone for class {classes[label]}; {told}")
        patches[label] = single[0]
    return patches
