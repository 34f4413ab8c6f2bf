"""Triggers that were found, as the input of a repair or a screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doorward.core.errors import DoorwardError
from doorward.core.images import class_number
from doorward.core.runs import Run
from doorward.core.text import listing
from doorward.core.triggers import Stamp, Trigger
from doorward.inversion.kept import KEEP, kept_triggers
from doorward.inversion.results import Inversion, InvertRecord, MethodRecord


@dataclass(frozen=True, eq=False)
class InvertedTriggers:
    """Stamps per target class, per target the inversions they are of, and the run's folder where there is one.

    Args:
        accused: those of the classes that the inversion's verdict names.
    """

    stamps: dict[int, list[Stamp]]
    methods: dict[int, tuple[str, ...]]
    run: str = ""
    accused: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class _Look:
    """One round of an inversion: its number, what each method kept, and the targets it found."""

    number: int
    methods: Mapping[str, MethodRecord]
    surest: dict[int, str]

    def every(self, label: int, method: str | None) -> list[str]:
        """All inversions whose triggers of a class work, the one that `choose` takes first."""
        first = self.choose(label, method)
        others = [m for m, found in self.methods.items() if found.triggers.get(label) and found.classes[label].works]
        return [] if first is None else [first, *(m for m in others if method is None and m != first)]

    def choose(self, label: int, method: str | None) -> str | None:
        """The inversion to take a class's triggers from: a distribution that works, the verdict's, the best."""
        able = [m for m, found in self.methods.items() if found.triggers.get(label) and method in (None, m)]
        whole = [
            m
            for m in able
            if self.methods[m].classes[label].works
            and any("distribution" in file for file in self.methods[m].triggers[label])
        ]
        if not whole and self.surest.get(label) in able:
            return self.surest[label]
        return max(whole or able, key=lambda m: self._success(m, label), default=None)

    def _success(self, method: str, label: int) -> float:
        rate = self.methods[method].classes[label].asr
        return -1.0 if rate is None or rate.value is None else rate.value


def load_inverted(
    found: Inversion | Path | str,
    classes: Sequence[str],
    *,
    targets: Sequence[str] = (),
    method: str | None = None,
    all_methods: bool = False,
    or_none: bool = False,
) -> InvertedTriggers:
    """The triggers of the classes that an inversion found to be targets, or of those that are named.

    A class that several rounds point to gets the triggers of all of them.

    Args:
        found: what `invert` gave, or a folder that ``doorward invert`` wrote; a folder of ``doorward cleanse`` or
            ``audit`` gives what it found in the images of the accused classes.
        classes: the classifier's class names.
        targets: names or numbers of classes, instead of those of the verdict.
        method: the inversion whose triggers to take; by default a distribution of all triggers where one was found
            that works, else those of the method that is surest (or, of a named class, most successful).
        all_methods: those of every inversion whose trigger of the class works, the default's first.
        or_none: no stamps, in place of an error, where the inversion came to a verdict that accuses no class.

    Raises:
        DoorwardError: no target found and none named, a class that is not there, or one without triggers.
    """
    if not isinstance(found, Inversion):
        manifest = Run.read(found)
        if manifest.get("verb") in KEEP:
            return _of_images(Path(found), manifest, classes, targets, method, or_none)
    told = "inversion" if isinstance(found, Inversion) else str(found)
    inversion = found if isinstance(found, Inversion) else Inversion.load(found)
    looks = _looks(inversion.record)
    labels = [class_number(name, classes, "--target") for name in targets] or list(inversion.target_labels)
    count = len(inversion.record.classes)
    if count != len(classes):
        raise DoorwardError(f"{told}: inverted a model of {count} classes; this one has {len(classes)}")
    if not labels and or_none and inversion.verdict == "nothing found":
        return InvertedTriggers({}, {}, "" if inversion is found else told)
    if not labels:
        raise DoorwardError(f"{told}: found no target class; expected one to be named with --target CLASS")
    if method is not None and method not in looks[0].methods:
        raise DoorwardError(f"{told}: has no triggers of {method!r}; expected one of {', '.join(looks[0].methods)}")
    accused = tuple(label for label in inversion.target_labels if label in labels)
    triggers = InvertedTriggers({}, {}, "" if inversion is found else told, accused)
    for label in dict.fromkeys(labels):
        _collect(triggers, inversion, looks, label, method, all_methods)
        if not triggers.stamps[label]:
            expected = "expected an inversion that makes triggers for it"
            raise DoorwardError(f"{told}: keeps no trigger for class {classes[label]}; {expected}")
    return triggers


def _of_images(
    run: Path,
    manifest: dict[str, Any],
    classes: Sequence[str],
    targets: Sequence[str],
    method: str | None,
    or_none: bool,
) -> InvertedTriggers:
    """What a cleansing or an audit found in the images of the classes that it accuses."""
    kept, accused = kept_triggers(run, manifest, classes)
    if method is not None:
        raise DoorwardError(f"{run}: a run of 'doorward {manifest['verb']}'; expected no trigger method with it")
    labels = [class_number(name, classes, "--target") for name in targets] or accused
    if not labels and or_none and manifest.get("verdict") == "nothing found":
        return InvertedTriggers({}, {}, str(run))
    if not labels:
        raise DoorwardError(f"{run}: accuses no class; expected one to be named with --target CLASS")
    without = [classes[label] for label in labels if label not in kept]
    if len(without) == len(labels) or (targets and without):
        expected = "expected a class with one, a run of 'doorward invert', or no --triggers (ibau needs none)"
        raise DoorwardError(f"{run}: keeps no trigger for class {listing(without, 5)}; {expected}")
    stamps: dict[int, list[Stamp]] = {label: [kept[label]] for label in labels if label in kept}
    ways: dict[int, tuple[str, ...]] = dict.fromkeys(stamps, (str(manifest["verb"]),))
    return InvertedTriggers(stamps, ways, str(run), tuple(label for label in accused if label in stamps))


def _looks(record: InvertRecord) -> list[_Look]:
    """The rounds of an inversion; most have one."""
    first = record.rounds[0].targets if record.rounds else record.targets
    looks = [_Look(1, record.methods, {t.label: t.method for t in first})]
    for number, later in enumerate(record.rounds[1:], 2):
        looks.append(_Look(number, later.methods, {t.label: t.method for t in later.targets}))
    return looks


def _collect(
    triggers: InvertedTriggers,
    inversion: Inversion,
    looks: Sequence[_Look],
    label: int,
    method: str | None,
    all_methods: bool,
) -> None:
    """The triggers of one class: of the rounds that found it a target, else of the first one."""
    triggers.stamps[label], names = [], []
    for look in [one for one in looks if label in one.surest] or looks[:1]:
        for chosen in look.every(label, method)[: None if all_methods else 1]:
            triggers.stamps[label] += inversion.stamps(chosen, label, look.number)
            names.append(chosen)
    triggers.methods[label] = tuple(dict.fromkeys(names))


def load_patches(
    found: Inversion | Path | str, classes: Sequence[str], *, targets: Sequence[str] = (), method: str | None = None
) -> dict[int, Trigger]:
    """The best single trigger of every target class of an inversion: what a screen looks for.

    Args: as `load_inverted`.

    Raises:
        DoorwardError: as `load_inverted`, or a class for which there is a distribution and no single trigger, or none
            that covers a place.
    """
    patches = {}
    for label, stamps in load_inverted(found, classes, targets=targets, method=method).stamps.items():
        single = [stamp for stamp in stamps if isinstance(stamp, Trigger)]
        placed = [stamp for stamp in single if stamp.blend == "alpha" and stamp.placement.kind == "fixed"]
        where = "inversion" if isinstance(found, Inversion) else found
        if not single:
            told = "expected an inversion that makes single triggers, such as mask"
            raise DoorwardError(f"{where}: keeps a distribution alone for class {classes[label]}; {told}")
        if not placed:
            told = "is added to the picture or moves, so that it covers no place; expected a patch at a fixed place"
            raise DoorwardError(
                f"{where}: the trigger into class {classes[label]} {told} (--target names other classes)"
            )
        patches[label] = placed[0]
    return patches
