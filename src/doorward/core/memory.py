"""How much memory a process may take, where the system can say so (Linux)."""

from __future__ import annotations

import re
from pathlib import Path

from doorward.core.errors import DoorwardError, show

_SIZE = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_LEAST = 64 * 2**20


def parse_size(text: str, what: str) -> int:
    """Bytes of ``4G``, ``512M`` or ``1.5 GiB``; units are powers of 1,024.

    Raises:
        DoorwardError: ``what``, the text and what was expected.
    """
    found = _SIZE.fullmatch(text.strip())
    size = int(float(found[1]) * _UNITS[found[2].upper()]) if found else 0
    if size < _LEAST:
        raise DoorwardError(f"{what} {show(text)!r}; expected a size of at least 64M, such as 4G or 512M")
    return size


def limit_memory(most: int) -> bool:
    """Let this process and those that it starts take ``most`` bytes each; beyond, Python raises MemoryError.

    What is limited is data (RLIMIT_DATA), not addresses: libraries reserve many more addresses than they ever use.

    Returns:
        False where the system has no such limit.
    """
    try:
        import resource
    except ImportError:
        return False
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bounds = [most, *(bound for bound in (soft, hard) if bound != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_DATA, (min(bounds), hard))
    return True


def limit_growth(more: int) -> bool:
    """`limit_memory` to what this process has now and ``more`` bytes."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return False
    held = re.search(r"^VmData:\s+(\d+) kB", status, re.MULTILINE)
    return held is not None and limit_memory(1024 * int(held[1]) + more)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was no memory: Python's own, and PyTorch's, which has no class of its own."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and "alloc" in str(error) and "memory" in str(error)
    )
