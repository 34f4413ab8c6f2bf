"""The pickle machine: it reads data as pickle does, and runs nothing."""

from __future__ import annotations

import os
import pickle
import pickletools
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from doorward.core.errors import DoorwardError
from doorward.data.safe_pickle import loads
from doorward.data.sources import load_images

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(value=PLAIN, protocol=st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_values_are_read_as_pickle_reads_them(value, protocol):
    try:
        found = loads(pickle.dumps(value, protocol), "x")
    except DoorwardError as error:
        # protocols below 3 spell bytes as calls; all but Latin-1 of text is refused, and integers have a length limit
        assert protocol < 3 or "exceeds the limit" in str(error)
        return
    assert found == value


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    value=hnp.arrays(
        st.sampled_from([np.uint8, np.int32, np.int64, np.bool_]),
        hnp.array_shapes(min_dims=1, max_dims=3, max_side=5),
    ),
    protocol=st.integers(2, pickle.HIGHEST_PROTOCOL),
    fortran=st.booleans(),
)
def test_integer_arrays_are_read_as_pickle_reads_them(value, protocol, fortran):
    value = np.asfortranarray(value) if fortran else value
    found = loads(pickle.dumps([value], protocol), "x")[0]
    assert found.dtype == value.dtype
    assert np.array_equal(found, value)


def touching(path: Path) -> list[bytes]:
    """Pickles that would create a file, in the ways that pickles have of calling something."""

    class Reduce:
        def __reduce__(self):
            return os.system, (f"touch {path}",)

    class Inside:
        def __reduce__(self):
            return eval, (f"open({str(path)!r}, 'w')",)

    text = str(path).encode()
    return [
        *(pickle.dumps({"data": Reduce(), "labels": []}, p) for p in range(pickle.HIGHEST_PROTOCOL + 1)),
        *(pickle.dumps([Inside()], p) for p in range(pickle.HIGHEST_PROTOCOL + 1)),
        b"cposix\nsystem\n(S'touch " + text + b"'\ntR.",
        b"(S'touch " + text + b"'\niposix\nsystem\n.",
        b"(cposix\nsystem\nS'touch " + text + b"'\no.",
        b"\x80\x02cposix\nsystem\nX" + struct.pack("<I", 6 + len(text)) + b"touch " + text + b"\x85R.",
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncposix\nsystem\nK\x00\x85U\x01b\x87R.",
        b"cbuiltins\nexec\n.",
        b"\x80\x02cnumpy\nndarray\n.",
        b"\x80\x02ccopyreg\n_reconstructor\ncposix\nsystem\nc__builtin__\nobject\nN\x87R.",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c" + bytes([6 + len(text)]) + b"touch " + text + b"\x85R.",
        b"\x80\x02c__builtin__\nobject\n)\x81}U\x01aK\x01sb.",
        b"Ppersistent\n.",
        b"\x82\x01.",
    ]


def test_pickles_that_call_something_call_nothing(tmp_path):
    trace = tmp_path / "executed"
    folder = tmp_path / "set"
    folder.mkdir()
    for raw in touching(trace):
        with pytest.raises(DoorwardError):
            loads(raw, "x")
        (folder / "data_batch_1").write_bytes(raw)
        with pytest.raises(DoorwardError):
            load_images(folder)
        assert not trace.exists()


def test_the_message_names_what_was_not_run():
    with pytest.raises(DoorwardError, match=r"refers to 'posix\.system', which is not data and was not run"):
        loads(b"cposix\nsystem\n(S'x'\ntR.", "x")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b".",
        b"0.",
        b"}s.",
        b"a.",
        b"t.",
        b"\x85.",
        b"\x86.",
        b"(1.",
        b"K\x01(K\x01u.",
        b"]K\x01K\x02s.",
        b"(]K\x01d.",
        b"h\x05.",
        b"r\xff\xff\xff\xff.",
        b"K\x01r\xff\xff\xff\xffK\x01",
        b"\x8e" + b"\xff" * 8,
        b"\x8a\x01\x01\x8a\x01\x01R.",
        b"\x80\x63.",
        b"G" + bytes(8) + b".",
    ],
)
def test_broken_pickles(raw):
    with pytest.raises(DoorwardError):
        loads(raw, "x")


def test_a_list_inside_itself_and_deep_nesting_end():
    loads(b"]q\x00h\x00a.", "x")
    with pytest.raises(DoorwardError, match="nested deeper"):
        loads(b"]" * 50 + b"a" * 49 + b".", "x")


def test_a_small_pickle_cannot_fill_the_memory():
    """A text of 1 MB in the memo, turned into bytes ten thousand times."""
    text = b"X" + struct.pack("<I", 2**20) + b"a" * 2**20 + b"q\x00"
    encode = b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R"
    with pytest.raises(DoorwardError, match="far more than it holds"):
        loads(b"\x80\x02(" + text + encode * 10_000 + b"t.", "x")


def test_the_machine_knows_no_instruction_that_could_import():
    """Every instruction of the language with any argument: data or a refusal, never a name that was looked up."""
    for opcode in pickletools.opcodes:
        if opcode.name in ("INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID"):
            raw = b"K\x01K\x01" + opcode.code.encode("latin-1") + b"\x01\n\x01\n\x01\x01\x01."
            with pytest.raises(DoorwardError):
                loads(raw, "x")
