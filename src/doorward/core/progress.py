"""Progress: one kind of callback, and one display of it on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Protocol

from doorward.core.text import duration

_PATIENCE = 2.0  # seconds in which nothing is shown
_EVERY = 5.0  # seconds between lines where stderr is no terminal
_UNSURE = 3.0  # seconds from which the pace says how long the rest takes
_STILL = 30.0  # seconds after which a step that goes on is said again


class Progress(Protocol):
    """Whoever wants to know how far a verb is."""

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """``done`` of ``total`` of a stage; a total of 0 where nobody knows it. The note is for people."""
        ...


def describe(stage: str, done: int, total: int, note: str = "") -> str:
    """``features 12,000 of 50,000, 900 images/s``."""
    counted = f"{stage} {done:,} of {total:,}" if total else stage
    return printable(f"{counted}, {note}" if note else counted)


def telling(tell: Callable[[str], None], prefix: str = "") -> Progress:
    """A callback that describes every step in words."""

    def progress(stage: str, done: int, total: int, note: str = "") -> None:
        tell(prefix + describe(stage, done, total, note))

    return progress


def in_words(progress: Progress | None) -> Callable[[str], None]:
    """The other way round: whoever tells in words what it does tells it to a callback."""

    def tell(text: str) -> None:
        if progress:
            progress(text, 0, 0)

    return tell


def printable(text: str) -> str:
    """Without control characters: names come from files and must not steer the terminal."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def time_left(done: int, to_do: int, seconds: float) -> str:
    """``about 3 minutes left``, from what was done in so many seconds; nothing where it is less than one, or unsure."""
    if done <= 0 or seconds < _UNSURE:
        return ""
    left = seconds * to_do / done
    return f"{duration(left)} left" if left > 60 else ""


class _Display:
    """Shows the latest step from a thread of its own, so that a long step is seen although nothing is called."""

    def __init__(self, name: str) -> None:
        self._prefix = f"{name}: " if name else ""
        self._latest = ("", 0, 0, "")
        self._begun = (0.0, 0)  # when the stage was first told of, and how far it was then
        self._over = Event()
        show = self._as_bar if sys.stderr.isatty() else self._as_lines
        self._thread = Thread(target=show, daemon=True)
        self._thread.start()

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        if stage != self._latest[0] or done < self._latest[1]:
            self._begun = (time.monotonic(), done)
        left = time_left(done - self._begun[1], total - done, time.monotonic() - self._begun[0]) if total else ""
        self._latest = (stage, done, total, ", ".join(filter(None, (note, left))))

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    def _as_lines(self) -> None:
        wait, shown, since, said = _PATIENCE, ("", 0, 0, ""), time.monotonic(), time.monotonic()
        while not self._over.wait(wait):
            latest, wait, now = self._latest, _EVERY, time.monotonic()
            told = ""
            if latest != shown:
                told, shown, since = describe(*latest), latest, now
            elif now - said >= _STILL:
                told = f"{describe(*latest) or 'at work'}, for {now - since:.0f} s now"
            if told:
                print(self._prefix + told, file=sys.stderr, flush=True)
                said = now

    def _as_bar(self) -> None:
        started = time.monotonic()
        if self._over.wait(_PATIENCE):
            return
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        words = (TextColumn(f"{{task.fields[{name}]}}", markup=False) for name in ("stage", "note"))
        columns = (next(words), BarColumn(30), next(words), TimeElapsedColumn())
        with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=None, stage="", note="")
            bar.tasks[0].start_time = bar.get_time() - (time.monotonic() - started)
            while True:
                stage, done, total, note = self._latest
                counted = f"{done:,} of {total:,}" if total else ""
                told = printable("  ".join(filter(None, (counted, note))))
                bar.update(
                    task,
                    completed=done,
                    total=total or None,
                    stage=printable((self._prefix + stage).removesuffix(": ")),
                    note=told,
                )
                if self._over.wait(0.1):
                    return


_shown: list[_Display] = []  # the display that is on, if any: one within it writes to the same


@contextmanager
def display(name: str = "") -> Iterator[Progress]:
    """Show progress on stderr: a bar on a terminal, elsewhere a line every five seconds while something changes,
    every thirty while a step goes on; nothing for two seconds.

    Args:
        name: of the command, before every stage.
    """
    if _shown:
        yield _shown[0]
        return
    showing = _Display(name)
    _shown.append(showing)
    try:
        yield showing
    finally:
        _shown.clear()
        showing.end()
