"""Commands in forked processes that are killed, or run out of disk, at a chosen operation of the file system.

Python tells an audit hook of every file that is opened, renamed, removed and so on, before it happens. `Warm` counts
what happens to files below one folder, and ends the process at operation number k. What libraries write themselves
(DuckDB, safetensors) lies under temporary names, and is seen at the next operation.
"""

from __future__ import annotations

import errno
import gc
import importlib
import json
import os
import pkgutil
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "fcntl.flock", "fsync"}
_NEEDS_ROOM = {"os.mkdir", "os.link", "fsync"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_TIMES = {"seconds", "images_per_second", "trials_per_second", "command", "threads", "took", "rate"}  # not the results'
_TIMES |= {"loss"}  # a training that goes on after its last epoch knows none
_CLOCK = rb"\d[\d.]* (?:s|ms|seconds?)\b|\d\d:\d\d(?::\d\d)?|\d[\d,]* images/s|>[\d.]+(?=</td)|doorward [^<]*"
KILLED = -signal.SIGKILL


@dataclass
class _Watch:
    """What this process counts; set in forked ones alone."""

    root: str = ""
    stop_at: int = 0
    full_from: int = 0
    seen: list[str] = field(default_factory=list)

    def __call__(self, event: str, told: tuple[Any, ...]) -> None:
        if not self.root or not self._counts(event, told):
            return
        self.seen.append(event)
        if len(self.seen) == self.stop_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.full_from and len(self.seen) >= self.full_from and (event == "open" or event in _NEEDS_ROOM):
            raise OSError(errno.ENOSPC, "No space left on device")

    def _counts(self, event: str, told: tuple[Any, ...]) -> bool:
        if event in ("fsync", "fcntl.flock"):
            return True
        if event == "open":
            if not isinstance(told[0], str | bytes | os.PathLike) or not (told[2] or 0) & _WRITES:
                return False
        elif event not in _EVENTS:
            return False
        if isinstance(told[0], int):
            return True
        path = os.fsdecode(told[0])
        return not path.startswith(os.sep) or path.startswith(self.root)


_watch = _Watch()


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code, or minus a signal; what it said on stderr; operations until then."""

    code: int
    said: str
    operations: tuple[str, ...]


def warm() -> None:
    """Import all that commands import, on one thread, and `install`."""
    import torch
    import typer.main

    import doorward
    from doorward.cli import app as cli

    torch.set_num_threads(1)
    for module in pkgutil.walk_packages(doorward.__path__, "doorward."):
        if not module.name.endswith("__main__"):
            with suppress(ImportError):
                importlib.import_module(module.name)
    cli.app = typer.main.get_command(cli.app)  # type: ignore[assignment]
    install()


def install() -> None:
    """Put the hook in place; once per process."""
    os.fsync = lambda fd: _watch("fsync", (fd,))  # nobody cuts the power here
    gc.freeze()
    sys.addaudithook(_watch)


def _command(*arguments: str) -> int:
    """``doorward ARGUMENTS``; its exit code."""
    from doorward.cli import common
    from doorward.cli.app import main

    common.out.file = common.err.file = None  # type: ignore[assignment]  # those of this process
    common.err.stderr = True
    sys.argv = ["doorward", *arguments]
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


OWN: dict[str, Callable[..., int]] = {}  # what is called in place of a command of that name


def start(arguments: Sequence[str], folder: Path, *, stop_at: int = 0, full_from: int = 0) -> int:
    """Begin ``doorward ARGUMENTS``, or a function of `OWN` with these arguments, in ``folder``; its process number."""
    said = folder.parent / f"{folder.name}.said"
    number = os.fork()
    if number:
        return number
    code = 70
    try:
        gc.disable()  # it would touch, and so copy, all memory
        os.chdir(folder)
        stream = os.open(f"{said}.{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        _watch.root, _watch.stop_at, _watch.full_from = str(folder), stop_at, full_from
        own = OWN.get(arguments[0])
        code = own(*arguments[1:]) if own else _command(*arguments)
        _watch.root = ""
        sys.stdout.flush()
        sys.stderr.flush()
        Path(f"{said}.{os.getpid()}.json").write_text(json.dumps([_watch.seen, sorted(sys.modules)]))
    finally:
        os._exit(code)


def end(number: int, folder: Path, patience: float = 60.0) -> Ended:
    """Wait for a process that `start` began."""
    until = time.monotonic() + patience
    while True:
        done, status = os.waitpid(number, os.WNOHANG)
        if done:
            break
        if time.monotonic() > until:
            os.kill(number, signal.SIGKILL)
            os.waitpid(number, 0)
            return Ended(-signal.SIGALRM, "too slow", ())
        time.sleep(0.002)
    said = folder.parent / f"{folder.name}.said.{number}"
    seen = Path(f"{said}.json")
    text = said.read_text(errors="replace") if said.exists() else ""
    operations, modules = json.loads(seen.read_text()) if seen.exists() else ((), ())
    for name in modules:  # the next process need not import it
        if name not in sys.modules:
            with suppress(Exception):
                importlib.import_module(name)
    for path in (said, seen):
        path.unlink(missing_ok=True)
    return Ended(os.waitstatus_to_exitcode(status), text, tuple(operations))


def call(arguments: Sequence[str], folder: Path, *, stop_at: int = 0, full_from: int = 0) -> Ended:
    """Run ``doorward ARGUMENTS`` in ``folder`` to its end."""
    return end(start(arguments, folder, stop_at=stop_at, full_from=full_from), folder)


def contents(path: Path) -> Any:
    """A file, or all files below a folder, without times; None where there is nothing."""
    if not path.exists():
        return None
    if path.is_dir():
        return {str(p.relative_to(path)): contents(p) for p in sorted(path.rglob("*")) if p.is_file()}
    data = path.read_bytes()
    if path.suffix == ".json":
        with suppress(ValueError):
            return _timeless(json.loads(data))
    if path.suffix == ".safetensors":  # its metadata come in any order
        end = 8 + int.from_bytes(data[:8], "little")
        return json.loads(data[8:end]), data[end:]
    if path.suffix == ".html":
        return re.sub(_CLOCK, b"", data)
    if path.suffix == ".sarif":
        return re.sub(rb'"commandLine": "[^\n]*|\d\d:\d\d:\d\d', b"", data)
    return data


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k not in _TIMES}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def strays(folder: Path, expected: set[str]) -> list[str]:
    """What lies there beside what is expected, and temporary files anywhere below."""
    found = [p.name for p in folder.iterdir() if p.name not in expected]
    ours = re.compile(r"\.tmp$|\.partial|\.lock$")
    return found + [str(p.relative_to(folder)) for p in folder.rglob("*") if ours.search(p.name)]


def fresh(folder: Path, given: Path | None = None) -> Path:
    """An empty folder, or a copy of a given one."""
    shutil.rmtree(folder, ignore_errors=True)
    if given is None:
        folder.mkdir(parents=True)
    else:
        shutil.copytree(given, folder)
    return folder
