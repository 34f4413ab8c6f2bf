"""IDX and CIFAR files, and the pickle machine behind the latter."""

from __future__ import annotations

import gzip
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

from doorward.data import load_images
from doorward.data.cifar import CIFAR10
from doorward.data.safe_pickle import loads
from doorward.errors import DoorwardError

GREY = hnp.arrays(np.uint8, st.tuples(st.integers(4, 9), st.integers(1, 9), st.integers(1, 9)))


def refusal(source: Path, **options: str) -> str:
    with pytest.raises(DoorwardError) as caught:
        load_images(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write_idx(folder: Path, pixels: np.ndarray, labels: np.ndarray, split: str = "train", packed: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    opener, ending = (gzip.open, ".gz") if packed else (open, "")
    with opener(folder / f"{split}-images-idx3-ubyte{ending}", "wb") as file:
        file.write(struct.pack(">4I", 0x803, *pixels.shape) + pixels.tobytes())
    with opener(folder / f"{split}-labels-idx1-ubyte{ending}", "wb") as file:
        file.write(struct.pack(">2I", 0x801, len(labels)) + labels.astype(np.uint8).tobytes())


@settings(max_examples=15, deadline=None, derandomize=True)
@given(pixels=GREY, packed=st.booleans(), inside=st.sampled_from(["", "MNIST/raw"]))
def test_idx_round_trip(tmp_path_factory, pixels, packed, inside):
    folder = tmp_path_factory.mktemp("idx")
    labels = np.arange(len(pixels)) % 2
    write_idx(folder / inside, pixels, labels, packed=packed)
    write_idx(folder / inside, pixels[::-1], labels, "t10k", packed)
    found = load_images(folder)
    assert np.array_equal(found.pixels[..., 0], pixels)
    assert np.array_equal(found.labels, labels)
    assert np.array_equal(load_images(folder, split="test").pixels[..., 0], pixels[::-1])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: b"\0\0\x08\x01" + d[4:], "expected 00000803"),
        (lambda d: d[:-1], "expected"),
        (lambda d: d + b"x", "expected"),
        (lambda d: d[:7], "expected"),
        (lambda d: d[:4] + struct.pack(">I", 5) + d[8:] + bytes(9), "5 images, but"),
        (lambda d: d[:8] + struct.pack(">2I", 2**31, 2**31) + d[16:], "bytes for sizes"),
        (lambda d: d[:8] + struct.pack(">2I", 0, 3) + d[16:16], "images of size 3 x 0"),
    ],
)
def test_idx_files_that_are_refused(tmp_path, packed, change, words):
    write_idx(tmp_path, np.zeros((4, 3, 3), np.uint8), np.arange(4) % 2)
    plain = tmp_path / "train-images-idx3-ubyte"
    data = change(plain.read_bytes())
    plain.unlink()
    (tmp_path / f"{plain.name}.gz").write_bytes(gzip.compress(data)) if packed else plain.write_bytes(data)
    assert words in refusal(tmp_path)


def test_idx_split_that_is_not_there(tmp_path):
    write_idx(tmp_path, np.zeros((4, 3, 3), np.uint8), np.arange(4) % 2)
    assert "the test split" in refusal(tmp_path, split="test")


def planes(pixels: np.ndarray) -> np.ndarray:
    """Images [N, 32, 32, 3] as CIFAR rows: all red, then all green, then all blue."""
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).reshape(len(pixels), -1)


def cifar(count: int = 20, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("inside", ["", "cifar-10-batches-bin"])
def test_cifar10_binary_round_trip(tmp_path, inside):
    pixels, labels = cifar(60), np.arange(60) % 10
    folder = tmp_path / inside
    folder.mkdir(exist_ok=True)
    records = np.concatenate([labels[:, None].astype(np.uint8), planes(pixels)], axis=1)
    for batch in range(2):
        (folder / f"data_batch_{batch + 1}.bin").write_bytes(records[20 * batch : 20 * batch + 20].tobytes())
    (folder / "test_batch.bin").write_bytes(records[40:].tobytes())
    found = load_images(tmp_path)
    assert np.array_equal(found.pixels, pixels[:40])
    assert np.array_equal(found.labels, labels[:40])
    assert found.classes == CIFAR10
    assert np.array_equal(load_images(tmp_path, split="test").pixels, pixels[40:])
    (folder / "batches.meta.txt").write_text("\n".join(f"k{k}" for k in range(10)) + "\n\n")
    assert load_images(tmp_path).classes[3] == "k3"


def test_cifar100_binary_takes_the_fine_label(tmp_path):
    pixels, fine = cifar(6), np.array([7, 7, 99, 99, 0, 0], np.uint8)
    coarse = np.full(6, 19, np.uint8)
    (tmp_path / "train.bin").write_bytes(np.concatenate([coarse[:, None], fine[:, None], planes(pixels)], 1).tobytes())
    found = load_images(tmp_path)
    assert found.labels.tolist() == fine.tolist()
    assert np.array_equal(found.pixels, pixels)


def test_cifar_binary_that_is_refused(tmp_path):
    record = np.zeros((4, 3073), np.uint8)
    record[2:, 0] = 200
    (tmp_path / "data_batch_1.bin").write_bytes(record.tobytes())
    assert "label 200" in refusal(tmp_path)
    (tmp_path / "data_batch_1.bin").write_bytes(record.tobytes()[:-1])
    assert "a multiple of 3073" in refusal(tmp_path)
    (tmp_path / "data_batch_1.bin").rename(tmp_path / "data_batch_2.bin")
    assert "data_batch_1.bin is missing" in refusal(tmp_path)


def python2_string(value: bytes) -> bytes:
    """An 8-bit string as Python 2's cPickle wrote it."""
    short = len(value) < 256
    return (b"U" + bytes([len(value)]) if short else b"T" + struct.pack("<i", len(value))) + value


def python2_batch(data: np.ndarray, labels: list[int]) -> bytes:
    """A batch instruction by instruction, as in the original CIFAR files (protocol 2, Python 2 strings)."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85"
        + python2_string(b"b")
        + b"\x87Rq\x03"
        b"(K\x01M" + struct.pack("<H", data.shape[0]) + b"M" + struct.pack("<H", data.shape[1]) + b"\x86"
        b"cnumpy\ndtype\nq\x04" + python2_string(b"u1") + b"K\x00K\x01\x87Rq\x05(K\x03" + python2_string(b"|") + b"NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89" + python2_string(data.tobytes()) + b"tb"
    )
    listed = b"](" + b"".join(b"K" + bytes([k]) for k in labels) + b"e"
    pairs = python2_string(b"data") + array + python2_string(b"labels") + listed
    return b"\x80\x02}q\x00(" + pairs + python2_string(b"batch_label") + python2_string(b"one") + b"u."


def test_python2_pickles_as_the_original_files_have_them(tmp_path):
    pixels, labels = cifar(), [k % 10 for k in range(20)]
    raw = python2_batch(planes(pixels), labels)
    assert pickle.loads(raw, encoding="bytes")[b"labels"] == labels  # Python's own reader agrees that it is one
    (tmp_path / "data_batch_1").write_bytes(raw)
    found = load_images(tmp_path)
    assert np.array_equal(found.pixels, pixels)
    assert found.labels.tolist() == labels


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("as_bytes", [False, True])
@pytest.mark.parametrize("hundred", [False, True])
def test_cifar_python_round_trip(tmp_path, protocol, as_bytes, hundred):
    pixels, labels = cifar(), [k % 10 for k in range(20)]
    names = [f"k{k}" for k in range(10)]

    def key(text: str) -> object:
        return text.encode() if as_bytes else text

    batch = {key("data"): planes(pixels), key("fine_labels" if hundred else "labels"): labels}
    batch |= {key("coarse_labels"): [0] * 20} if hundred else {}
    meta = {key("fine_label_names" if hundred else "label_names"): [key(n) for n in names]}
    (tmp_path / ("train" if hundred else "data_batch_1")).write_bytes(pickle.dumps(batch, protocol))
    (tmp_path / ("meta" if hundred else "batches.meta")).write_bytes(pickle.dumps(meta, protocol))
    found = load_images(tmp_path)
    assert np.array_equal(found.pixels, pixels)
    assert found.labels.tolist() == labels
    assert found.classes == tuple(names)


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
            return np.core.multiarray._reconstruct if False else eval, (f"open({str(path)!r}, 'w')",)

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
        refusal(folder)
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


def test_labels_of_one_batch_do_not_fill_up_another(tmp_path):
    for number, count in ((1, 3), (2, 5)):
        batch = {"data": np.zeros((4, 3072), np.uint8), "labels": [k % 2 for k in range(count)]}
        (tmp_path / f"data_batch_{number}").write_bytes(pickle.dumps(batch, 2))
    assert "3 labels for 4 images" in refusal(tmp_path)


@pytest.mark.parametrize(
    "batch",
    [
        [1, 2],
        {"data": 1, "labels": []},
        {"data": np.zeros((4, 3072), np.int64), "labels": [0, 0, 1, 1]},
        {"data": np.zeros((4, 3071), np.uint8), "labels": [0, 0, 1, 1]},
        {"data": np.zeros((4, 3072), np.uint8), "labels": [0, 0, 1]},
        {"data": np.zeros((4, 3072), np.uint8), "labels": [0, 0, 1, "1"]},
        {"data": np.zeros((4, 3072), np.uint8), "labels": [0, 0, 1, -1]},
        {"data": np.zeros((4, 3072), np.uint8), "labels": [0, 0, 1, 2**70]},
        {"data": np.zeros((4, 3072), np.uint8)},
        {"data": np.zeros((0, 3072), np.uint8), "labels": []},
    ],
)
def test_batches_that_are_refused(tmp_path, batch):
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(batch, 2))
    refusal(tmp_path)


def test_the_machine_knows_no_instruction_that_could_import():
    """Every instruction of the language with any argument: data or a refusal, never a name that was looked up."""
    for opcode in pickletools.opcodes:
        if opcode.name in ("INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID"):
            raw = b"K\x01K\x01" + opcode.code.encode("latin-1") + b"\x01\n\x01\n\x01\x01\x01."
            with pytest.raises(DoorwardError):
                loads(raw, "x")
