"""Sizes as people write them, and a limit that holds for the process that asks for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from doorward.core.errors import DoorwardError
from doorward.core.memory import out_of_memory, parse_size

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux has the limit")


@pytest.mark.parametrize(
    ("text", "size"),
    [("4G", 2**32), ("512M", 2**29), ("1.5 GiB", 3 * 2**29), ("100000000", 10**8), ("70mb", 70 * 2**20)],
)
def test_sizes(text, size):
    assert parse_size(text, "--limit-memory") == size


@pytest.mark.parametrize("text", ["", "4", "63M", "-1G", "G", "1e9", "4X", "nan", "9" * 400])
def test_no_sizes(text):
    with pytest.raises(DoorwardError, match="--limit-memory .*; expected a size"):
        parse_size(text, "--limit-memory")


def test_what_says_that_memory_is_out():
    assert out_of_memory(MemoryError())
    assert out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 5 bytes."))
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def test_a_process_may_grow_by_so_much():
    code = (
        "from doorward.core.memory import limit_growth\n"
        "assert limit_growth(50 * 2**20) and bytearray(20 * 2**20)\n"
        "try: bytearray(60 * 2**20)\n"
        "except MemoryError: print('told')"
    )
    assert python(code).stdout == "told\n"


def test_the_command_ends_with_one_line_where_memory_is_out():
    code = (
        "import doorward.data.summary, doorward.cli.app\n"
        "doorward.data.summary.describe = lambda images: print(len(bytearray(400 * 2**20)))\n"
        "doorward.cli.app.main()"
    )
    done = python(code, "--limit-memory", "300M", "data", "describe", "mnist-5k")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("doorward: more memory was needed than") and done.stderr.count("\n") == 1
