"""Archives: unpacked once into the cache folder, where no entry can leave its place.

Every entry is written by us, as a new file below folders that we made; links and devices are refused.
"""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath
from typing import IO

from doorward.core.errors import DoorwardError, show
from doorward.core.opening import open_file
from doorward.data.cache import cache_root, file_state, fingerprint, need_space, new_folder, touch_and_prune
from doorward.data.checks import guarded
from doorward.data.limits import MAX_DEFLATE, MAX_ENTRIES, most_unpacked
from doorward.data.readers.tars import STEP, entry_name, expect_end, members, opened_tar

ENDINGS = (".tar", ".tar.gz", ".tgz", ".zip")
_MAX_NAME = 255  # bytes of one component, as file systems have it
_MAX_DEPTH = 64


def is_archive(path: Path) -> bool:
    """True for a name that ends as an archive's."""
    return path.name.lower().endswith(ENDINGS)


def without_ending(path: Path) -> str:
    """The name of an archive without ``.tar.gz`` and the like."""
    ending = max((e for e in ENDINGS if path.name.lower().endswith(e)), key=len)
    return path.name[: -len(ending)]


def unpacked(path: Path) -> tuple[Path, Path]:
    """Where the content of a ``.tar``, ``.tar.gz`` or ``.zip`` file lies, and the folder that its names are from.

    The same file is unpacked once; the first is past folders that hold nothing but one other folder.

    Raises:
        DoorwardError: an entry that leaves the folder, is a link or a device, or a broken archive.
    """
    entry = cache_root() / "archives" / fingerprint("archive", file_state([path.resolve()]))
    if not entry.is_dir():
        with new_folder(entry) as folder, guarded(path, "a whole .tar, .tar.gz or .zip archive"):
            (_unzip if path.name.lower().endswith(".zip") else untar)(path, folder)
    touch_and_prune(entry)
    return _inner(entry), entry


def _inner(folder: Path) -> Path:
    """Past folders that hold nothing but one other folder."""
    while True:
        entries = [e for e in folder.iterdir() if not e.name.startswith(".") and e.name != "__MACOSX"]
        below = [e for e in entries[0].iterdir() if e.is_dir()] if len(entries) == 1 and entries[0].is_dir() else []
        known = len(entries) == 1 and entries[0].is_dir() and any(e.is_file() for e in entries[0].iterdir())
        if len(entries) != 1 or not entries[0].is_dir() or not (below or known):
            return folder
        folder = entries[0]


def untar(path: Path, folder: Path, only: str = "") -> None:
    """Unpack the files and folders of a tar file; ``only`` picks entries below that folder of the archive.

    Nothing is left to `tarfile`: before Python 3.11.13 its ``data`` filter let links and over-long paths write outside
    (CVE-2025-4517). No link is ever made here, so no later entry can go through one.

    Raises:
        DoorwardError: an entry that is a link, a device or sparse, leaves the folder, or comes twice; a bomb.
    """
    with opened_tar(path) as archive:
        written, most = 0, most_unpacked(path.stat().st_size)
        for member in members(archive, path, MAX_ENTRIES):
            if not member.name.startswith(only):
                continue
            written += member.size
            where = entry_name(path, member.name)
            if written > most:
                raise DoorwardError(f"{where}: {written:,} bytes so far; expected at most {most:,} in all, a bomb")
            if written > 2**30:
                need_space(folder, member.size, path)
            if not (member.isdir() or member.isreg()) or member.issparse():
                raise DoorwardError(f"{where} is a link or a device; expected files and folders")
            _write(archive.extractfile(member), folder, _components(member.name, where), where)
        expect_end(archive, path)


def _components(name: str, where: str) -> tuple[str, ...]:
    """The parts of an entry's name, each one checked to be a plain name below the folder."""
    parts = PurePosixPath(name).parts
    bad = any(part == ".." or "\\" in part or "\0" in part or len(part.encode()) > _MAX_NAME for part in parts)
    if not name or name.startswith("/") or bad or (parts and ":" in parts[0]) or len(parts) > _MAX_DEPTH:
        raise DoorwardError(f"{where} leaves the archive's folder; expected names that stay inside")
    return parts


def _write(source: IO[bytes] | None, folder: Path, parts: tuple[str, ...], where: str) -> None:
    """Make one folder (no source) or one new file, below folders that are no links."""
    place = folder
    for part in parts if source is None else parts[:-1]:
        place = place / part
        place.mkdir(exist_ok=True)
        if not stat.S_ISDIR(place.lstat().st_mode):
            raise DoorwardError(f"{where} goes through something that is no folder; expected files and folders")
    if source is None:
        return
    try:
        made = os.open(place / parts[-1], os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
    except (FileExistsError, IndexError):
        raise DoorwardError(f"{where} is there already; expected every file once") from None
    with source, os.fdopen(made, "wb") as out:
        shutil.copyfileobj(source, out, STEP)


def _unzip(path: Path, folder: Path) -> None:
    with open_file(path) as raw, zipfile.ZipFile(raw) as archive:
        infos, most = archive.infolist(), most_unpacked(os.fstat(raw.fileno()).st_size)
        if len(infos) > MAX_ENTRIES:
            raise DoorwardError(f"{show(path)}: {len(infos)} entries; expected at most {MAX_ENTRIES}")
        for info in infos:
            _check_entry(path, info)
        room = sum(info.file_size for info in infos)
        if room > most:
            raise DoorwardError(f"{show(path)}: unpacks to {room:,} bytes; expected at most {most:,}, a bomb")
        need_space(folder, room, path)
        for info in infos:
            where = entry_name(path, info.orig_filename)
            source = None if info.is_dir() else archive.open(info)
            _write(source, folder, _components(info.orig_filename, where), where)


def _check_entry(path: Path, info: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    where = entry_name(path, info.orig_filename)
    _components(info.orig_filename, where)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise DoorwardError(f"{where} is a link or a device; expected files and folders")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DoorwardError(f"{where} is compressed by method {info.compress_type}; expected deflate")
    if info.file_size > MAX_DEFLATE * (info.compress_size + 1024):
        raise DoorwardError(f"{where}: {info.compress_size} bytes cannot unpack to {info.file_size}; a bomb")
