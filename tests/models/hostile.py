"""Files of weights that mean harm, made by hand: a few hundred bytes that would take all time or memory."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile

import torch

Content = dict[str, bytes]
_STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu\x8a\x06%b"


def archive(pickled: bytes, *, compressed: bool = False, twice: bool = False, behind: bytes = b"") -> bytes:
    """A PyTorch file of this pickle, with one storage of four bytes."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as file:
        entries = {"data.pkl": pickled, "data/0": bytes(4), "version": b"3\n", "byteorder": b"little"}
        for name, content in entries.items():
            file.writestr(f"archive/{name}", content)
        if twice:
            file.writestr("other/data.pkl", pickled)
    return made.getvalue() + behind


def legacy(pickled: bytes) -> bytes:
    """The same as PyTorch wrote it before version 1.6."""
    before = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    parts = [*(pickle.dumps(value, 2) for value in before), pickled, pickle.dumps(["0"], 2)]
    return b"".join(parts) + struct.pack("<q", 1) + bytes(4)


def tensor(numbers: int, *, size: bytes = b"K\x01\x85", old: bool = False, hooks: bytes = b")R") -> bytes:
    """A dictionary with one tensor ``[1]`` in a storage of so many numbers."""
    storage = _STORAGE % numbers.to_bytes(6, "little") + (b"N" if old else b"") + b"tQ"
    rebuilt = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00" + size + b"K\x01\x85\x89"
    return b"\x80\x02}X\x01\x00\x00\x00a" + rebuilt + b"ccollections\nOrderedDict\n" + hooks + b"tRs."


def in_each_other(levels: int, *, key: bool) -> bytes:
    """A dictionary whose key or value is a pair of the same pair of the same pair ..."""
    pairs = b"K\x01q\x01" + b"h\x01\x86q\x01" * levels
    return b"\x80\x02}" + (pairs + b"K\x01s." if key else b"X\x01\x00\x00\x00a" + pairs + b"s.")


def colliding(count: int) -> bytes:
    """A dictionary of numbers that all have one hash: each is compared with all before it."""
    steps = b"".join(b"\x8a\x0c" + (k * (2**61 - 1)).to_bytes(12, "little") + b"N" for k in range(1, count + 1))
    return b"\x80\x02}(" + steps + b"u."


def pickles() -> Content:
    """Pickles that torch's own reader takes, or spends its time or memory on."""
    return {
        "pairs as a key": in_each_other(60, key=True),
        "pairs as a value": in_each_other(60, key=False),
        "numbers of one hash": colliding(2000),
        "a large storage": tensor(2**40),
        "a tensor beside its storage": tensor(1, size=b"J\x00\x00\x00\x7f\x85"),
        "hooks": tensor(1, hooks=b")R(X\x01\x00\x00\x00aK\x01u"),
        "many bytes": b"\x80\x02c__builtin__\nbytearray\n\x8a\x06\x00\x00\x00\x00\x00\x7f\x85R.",
        "a function": b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.",
        "a quantised tensor": b"\x80\x02ctorch._utils\n_rebuild_qtensor\n.",
        "methods of a dictionary": b"\x80\x02ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00itemsK\x01sb.",
        "a list in itself": b"\x80\x02}X\x01\x00\x00\x00a]q\x01h\x01as.",
        "nothing on the stack": b"\x80\x02\x85.",
        "no end": b"\x80\x02}",
        "an encoding": b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x08\x00\x00\x00punycode\x86R.",
        "a loop in the memo": b"\x80\x02h\x07.",
    }


def tensors() -> dict[str, torch.Tensor]:
    """Tensors that stand for no plain floats."""
    return {
        "sparse": torch.eye(2).to_sparse(),
        "meta": torch.ones(4, device="meta"),
        "float8": torch.ones(4).to(torch.float8_e4m3fn),
        "seen 10^12 times": torch.ones(1).expand(10**12),
        "complex": torch.ones(4, dtype=torch.complex64),
        "whole numbers": torch.ones(4, dtype=torch.int32),
        "scalar": torch.tensor(1.0),
        "infinite as float32": torch.full((4,), 1e300, dtype=torch.float64),
    }
