"""What a user did wrong, in one line."""

import errno
import textwrap
from pathlib import Path


class DoorwardError(Exception):
    """A mistake in what was given, told in one line that names the thing, its value and what was expected.

    The command line prints the line and ends with exit code 2, without a traceback.
    """


class NoSplitError(DoorwardError):
    """A source does not hold the split that was asked for."""


class OutputExistsError(DoorwardError):
    """The output folder exists already, and nothing said that it may be replaced."""


class CannotWriteError(DoorwardError):
    """A file could not be written: no such place, no right to it, or a full disk."""


def writing_failed(error: Exception, path: Path | str) -> OSError:
    """The error of a library that could not write ``path``, as Python's own writing would have raised it."""
    if "No space left" in str(error):
        return OSError(errno.ENOSPC, "No space left on device", str(path))
    return OSError(errno.EIO, str(error).splitlines()[0], str(path))


def brief(error: BaseException, most: int = 200) -> str:
    """The first line of an error of a library or of a user's own code, cut between words; its kind without a text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return _printable(textwrap.shorten(lines[0], most, placeholder=" ...")) if lines else type(error).__name__


def whole(error: BaseException) -> str:
    """All that the error of a user's own code says, on one line: who wrote the text knows what its end means."""
    return _printable(textwrap.shorten(str(error), 2000, placeholder=" ...")) or type(error).__name__


def show(value: object) -> str:
    """A file name or other foreign text as one printable line."""
    text = _printable(str(value))
    return text if len(text) <= 300 else f"{text[:200]}...{text[-90:]}"


def _printable(text: str) -> str:
    return text if text.isprintable() else ascii(text)
