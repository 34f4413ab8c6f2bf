"""Many images to pixels, in order, in processes where that pays."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import current_process
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doorward.core.errors import DoorwardError, show
from doorward.core.memory import limit_growth
from doorward.core.progress import display
from doorward.data.readers.decode import (
    Alone,
    BadPictureError,
    Data,
    Plan,
    Slice,
    UnlikeError,
    decode,
    strict_pillow,
)

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_TASK_BYTES = 4 * 2**20  # of pixels; small enough that progress is seen
_MOST_PER_TASK = 512
_MOST_PROCESSES = 8  # of some 80 MB each
_WORTH_PROCESSES = 500  # pictures
_SECONDS = 2.0  # of work, before processes are started, which takes half a second
_ROOM = 3 * 2**30  # bytes that a process may take to decode; a WebP of 64 megapixels takes half
_IN_FLIGHT = 2**30  # bytes of encoded pictures that are handed over ahead
_PATIENCE, _PATIENCE_PER_PICTURE = 60, 20  # seconds; the largest picture takes a few, and may wait for others
_PER_PICTURE, _PER_BYTE = 1e-4, 2e-8  # seconds, roughly: to open one, and to decode

Pixels = NDArray[np.uint8]
Take = Callable[[int, Pixels], None]


@dataclass
class Outcome:
    """What decoding met: rows that cannot be read with the reason, and how many pictures were converted, by kind."""

    bad: dict[int, str] = field(default_factory=dict)
    converted: Counter[str] = field(default_factory=Counter)
    unlike: UnlikeError | None = None


def rows_per_task(plan: Plan) -> int:
    """Images that are decoded together."""
    return max(1, min(_MOST_PER_TASK, _TASK_BYTES // (plan.height * plan.width * plan.channels)))


def processes_for(count: int, size: int) -> int:
    """Processes that pay for so many pictures of so many bytes."""
    if count < _WORTH_PROCESSES or count * _PER_PICTURE + size * _PER_BYTE < _SECONDS or current_process().daemon:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(_MOST_PROCESSES, cores))


def decode_chunk(items: Sequence[Data], first: int, plan: Plan, alone: Alone = nullcontext) -> tuple[Pixels, Outcome]:
    """Decode some images; rows that cannot be read are black and told. Stops at the first that the plan does not fit.

    Args:
        items: what to decode.
        first: row of the first one.
        plan: what they become.
        alone: entered around every large picture.
    """
    pixels, outcome = np.zeros((len(items), *plan.shape), np.uint8), Outcome()
    with strict_pillow():
        for row, data in enumerate(items):
            try:
                pixels[row], converted = decode(data, plan, alone)
                outcome.converted.update(converted)
            except BadPictureError as error:
                outcome.bad[first + row] = str(error)
            except UnlikeError as error:
                outcome.unlike = error
                break
    return pixels, outcome


def _chunk_to_file(path: str, offset: int, items: Sequence[Data], first: int, plan: Plan) -> Outcome:
    """Decode some images straight into their place in a file, so that no pixels travel between processes."""
    pixels, outcome = decode_chunk(items, first, plan, partial(_alone, path))
    with open(path, "r+b") as file:  # noqa: PTH123
        file.seek(offset)
        file.write(pixels.data)
    return outcome


@contextmanager
def _alone(path: str) -> Iterator[None]:
    """One large picture at a time among the processes that write to this file: eight at once would fill a memory."""
    with open(path, "r+b") as file:  # noqa: PTH123
        if fcntl is not None:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)  # let go of when the file is closed, or the process dies
        yield


def _limited() -> None:
    limit_growth(_ROOM)


def decode_all(
    chunks: Iterator[Sequence[Data]], count: int, plan: Plan, target: Pixels | Path, processes: int = 1
) -> Outcome:
    """Decode images, in order, into an array ``[N, H, W, C]`` or the pixels of an ``.npy`` file of that shape.

    Raises:
        UnlikeError: of the first image that the plan does not fit.
        DoorwardError: another number of images than ``count``, a process was killed, or some took too long.
    """
    tasks = _tasks(chunks, count, plan, target)
    outcome, done = Outcome(), 0
    with display() as progress:
        for rows, part in _in_processes(tasks, processes) if processes > 1 else _here(tasks):
            if part.unlike:
                raise part.unlike
            outcome.bad.update(part.bad)
            outcome.converted.update(part.converted)
            done += rows
            progress("decoding", done, count)
    if done != count:
        raise DoorwardError(f"{done} pictures where {count} were; expected a source that stays as it is")
    return outcome


Task = tuple[int, Callable[..., Outcome], tuple[Any, ...]]


def _held(waiting: Iterable[tuple[Task, Any]]) -> int:
    """Bytes of the encoded pictures that were handed over and are not decoded yet, where they are no files."""
    items = (item for task, _ in waiting for item in task[2][-3] if not isinstance(item, str | Slice))
    return sum(item.nbytes if isinstance(item, np.ndarray) else len(item) for item in items)


def _pictures(first: Task, last: Task) -> str:
    """The pictures from one task to another, as a person finds them."""
    begin, end = first[2], last[2]
    if isinstance(begin[-3][0], str):
        return f"the pictures from {show(begin[-3][0])} to {show(end[-3][-1])}"
    return f"the pictures {begin[-2]:,} to {end[-2] + len(end[-3]) - 1:,}, counted from 0"


def _tasks(chunks: Iterator[Sequence[Data]], count: int, plan: Plan, target: Pixels | Path) -> Iterator[Task]:
    """Rows, a function and its arguments, for every chunk."""
    row_bytes, first, header = plan.height * plan.width * plan.channels, 0, 0
    if isinstance(target, Path):
        header = target.stat().st_size - count * row_bytes

    def into_array(items: Sequence[Data], first: int) -> Outcome:
        assert isinstance(target, np.ndarray)
        target[first : first + len(items)], outcome = decode_chunk(items, first, plan)
        return outcome

    for items in chunks:
        if first + len(items) > count:
            raise DoorwardError(f"more than the {count} pictures there were; expected a source that stays as it is")
        if isinstance(target, Path):
            yield len(items), _chunk_to_file, (str(target), header + first * row_bytes, items, first, plan)
        else:
            yield len(items), into_array, (items, first)
        first += len(items)


def _here(tasks: Iterator[Task]) -> Iterator[tuple[int, Outcome]]:
    for rows, function, arguments in tasks:
        yield rows, function(*arguments)


def _in_processes(tasks: Iterator[Task], processes: int) -> Iterator[tuple[int, Outcome]]:
    """In order, a few tasks ahead; after a failure or Ctrl-C the processes are gone before anything else happens."""
    from joblib.externals.loky import ProcessPoolExecutor
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    pool = ProcessPoolExecutor(processes, initializer=_limited)
    waiting: deque[tuple[Task, Any]] = deque()
    whole = False

    def first() -> tuple[int, Outcome]:
        (rows, *_), future = waiting[0]
        found = future.result(timeout=_PATIENCE + _PATIENCE_PER_PICTURE * rows)
        waiting.popleft()
        return rows, found

    try:
        for task in tasks:
            waiting.append((task, pool.submit(task[1], *task[2])))
            while len(waiting) > 3 * processes or (len(waiting) > 1 and _held(waiting) > _IN_FLIGHT):
                yield first()
        while waiting:
            yield first()
        whole = True
    except TerminatedWorkerError:
        begun = [task for task, _ in list(waiting)[: 2 * processes + 1]]
        raise DoorwardError(
            "a process that decodes pictures was killed (out of memory, or a file that crashes its decoder), at one of "
            f"{_pictures(begun[0], begun[-1])}; expected it to live"
        ) from None
    except TimeoutError:
        task = waiting[0][0]
        seconds = _PATIENCE + _PATIENCE_PER_PICTURE * task[0]
        raise DoorwardError(
            f"{_pictures(task, task)} take more than {seconds:,} seconds to decode; expected pictures, not files that "
            "keep a decoder busy"
        ) from None
    finally:
        pool.shutdown(wait=True, kill_workers=not whole)
