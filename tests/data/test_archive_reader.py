from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from doorward.core.errors import DoorwardError
from doorward.data.sources import load_images

FILES = ("a/0.png", "a/1.png", "b/0.png", "b/1.png")


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (3, 2), value).save(file, "PNG")
    return file.getvalue()


def tar(path: Path, entries: list[tuple[str, bytes]], extra: tarfile.TarInfo | None = None) -> Path:
    with tarfile.open(path, "w:gz" if path.name.lower().endswith("gz") else "w") as archive:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        if extra:
            archive.addfile(extra)
    return path


def zipped(path: Path, entries: list[tuple[str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return path


def entries(prefix: str = "") -> list[tuple[str, bytes]]:
    return [(prefix + name, png(value)) for value, name in enumerate(FILES)]


def refusal(source: Path) -> str:
    with pytest.raises(DoorwardError) as caught:
        load_images(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["my.set.tar", "my.set.tar.gz", "my.set.TGZ", "my.set.zip"])
@pytest.mark.parametrize("prefix", ["", "photos/", "x/photos/"])
def test_archives_of_class_folders(tmp_path, name, prefix, cache):
    path = (zipped if name.endswith("zip") else tar)(tmp_path / name, entries(prefix))
    found = load_images(path)
    assert found.pixels[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert found.name == "my.set"
    assert [p.name for p in tmp_path.iterdir()] == [name]
    (unpacked,) = (cache / "archives").iterdir()
    before = unpacked.stat().st_ino
    load_images(path)
    assert [p.stat().st_ino for p in (cache / "archives").iterdir()] == [before]  # unpacked once


def test_an_archive_that_changed_is_unpacked_again(tmp_path):
    path = tar(tmp_path / "set.tar", entries())
    assert load_images(path).pixels.max() == 3
    tar(path, [(name, png(9)) for name in FILES])
    assert load_images(path).pixels.min() == 9


@pytest.mark.parametrize("bad", ["../evil.png", "a/../../evil.png", "/evil.png"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_entries_that_leave_the_folder(tmp_path, cache, bad, kind):
    path = (tar if kind == "tar" else zipped)(tmp_path / f"set.{kind}", [*entries(), (bad, b"x")])
    assert "evil.png" in refusal(path)
    assert not list(tmp_path.parent.rglob("evil.png"))
    assert not list((cache / "archives").iterdir())


def test_links_and_devices_in_archives(tmp_path):
    for kind, target in ((tarfile.SYMTYPE, "/etc/passwd"), (tarfile.LNKTYPE, "../../x"), (tarfile.CHRTYPE, "")):
        info = tarfile.TarInfo("a/2.png")
        info.type, info.linkname = kind, target
        assert "a/2.png" in refusal(tar(tmp_path / "set.tar", entries(), info))
    link = zipfile.ZipInfo("a/2.png")
    link.external_attr = 0o120777 << 16
    path = zipped(tmp_path / "set.zip", entries())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    assert "link or a device" in refusal(path)


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", data: bytes = b"") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(data)
    return info, data


def test_a_link_whose_path_is_too_long_to_resolve_writes_nothing_outside(tmp_path, cache):
    """CVE-2025-4517: past PATH_MAX the standard library resolves a link no further and takes it to stay inside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    step, deep, members = "d" * 247, "", []
    for letter in "abcdefghijklmnop":  # real folders of 247 letters, each with a short link beside it
        members += [entry(deep + step, tarfile.DIRTYPE), entry(deep + letter, tarfile.SYMTYPE, step)]
        deep += step + "/"
    short = "/".join("abcdefghijklmnop")
    members += [
        entry(short + "/" + "l" * 254, tarfile.SYMTYPE, "../" * 16),
        entry("escape", tarfile.SYMTYPE, f"{short}/{'l' * 254}/../../../../{outside.name}"),
        entry("hard", tarfile.LNKTYPE, "escape/evil"),
        entry("escape/evil", data=b"overwritten"),
    ]
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w") as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    assert "is a link or a device" in refusal(path)
    assert not list(outside.iterdir()) and not list((cache / "archives").iterdir())


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE],
)
def test_even_links_that_stay_inside_and_special_entries_are_refused(tmp_path, cache, kind):
    extra, _ = entry("b/2.png", kind, "a/0.png")
    refusal(tar(tmp_path / "set.tar", entries(), extra))
    assert not list((cache / "archives").iterdir())


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_second_entry_never_replaces_or_enters_a_file(tmp_path, kind):
    make = tar if kind == "tar" else zipped
    assert "is there already" in refusal(make(tmp_path / f"one.{kind}", [*entries(), ("a/0.png", b"x")]))
    refusal(make(tmp_path / f"two.{kind}", [*entries(), ("a/0.png/under.png", b"x")]))
    assert "leaves" in refusal(make(tmp_path / f"three.{kind}", [*entries(), ("n" * 256 + "/x.png", b"x")]))


@pytest.mark.parametrize("name", ["set.tar", "set.tar.gz", "set.zip"])
def test_broken_archives_leave_nothing(tmp_path, cache, name):
    path = (zipped if name.endswith("zip") else tar)(tmp_path / name, entries())
    whole = path.read_bytes()
    for keep in (1024, 1500, 4096) if name == "set.tar" else (20, len(whole) // 2, len(whole) - 4):
        # 4,096 keeps all four entries of the plain file and loses only the mark of the end
        path.write_bytes(whole[:keep])
        refusal(path)
    path.write_bytes(b"no archive")
    refusal(path)
    assert not (cache / "archives").exists() or not list((cache / "archives").iterdir())


def test_a_zip_entry_that_promises_more_than_deflate_can_do(tmp_path):
    path = zipped(tmp_path / "set.zip", [("a/0.png", bytes(100))])
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + 24  # uncompressed size in the central directory
    data[at : at + 4] = np.uint32(2**31).tobytes()
    path.write_bytes(data)
    assert "a bomb" in refusal(path)
