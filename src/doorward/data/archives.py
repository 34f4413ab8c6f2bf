"""Archives: unpacked once into the cache folder, where no entry can leave its place."""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

from doorward.data.cache import cache_root, file_state, fingerprint, need_space, new_folder, touch_and_prune
from doorward.data.checks import MAX_DEFLATE, guarded, show
from doorward.errors import DoorwardError

ENDINGS = (".tar", ".tar.gz", ".tgz", ".zip")
_MAX_ENTRIES = 5_000_000
_MAX_PADDING = 16 * 2**20


def is_archive(path: Path) -> bool:
    """True for a name that ends as an archive's."""
    return path.name.lower().endswith(ENDINGS)


def without_ending(path: Path) -> str:
    """The name of an archive without ``.tar.gz`` and the like."""
    ending = max((e for e in ENDINGS if path.name.lower().endswith(e)), key=len)
    return path.name[: -len(ending)]


def unpacked(path: Path) -> Path:
    """The folder with the content of a ``.tar``, ``.tar.gz`` or ``.zip`` file; the same file is unpacked once.

    Raises:
        DoorwardError: an entry that leaves the folder, is a link to outside or a device, or a broken archive.
    """
    entry = cache_root() / "archives" / fingerprint("archive", file_state([path.resolve()]))
    if not entry.is_dir():
        with new_folder(entry) as folder, guarded(path, "a whole .tar, .tar.gz or .zip archive"):
            (_unzip if path.name.lower().endswith(".zip") else untar)(path, folder)
    touch_and_prune(entry)
    return _inner(entry)


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
    """Unpack a tar file with Python's ``data`` filter; ``only`` picks entries below that folder of the archive."""
    with tarfile.open(path, "r:*") as archive:
        written = 0
        for number, member in enumerate(archive):
            if number >= _MAX_ENTRIES:
                raise DoorwardError(f"{show(path)}: more than {_MAX_ENTRIES} entries; expected fewer")
            if not member.name.startswith(only):
                continue
            written += member.size
            if written > 2**30:
                need_space(folder, member.size, path)
            try:
                archive.extract(member, folder, filter="data")
            except tarfile.FilterError as error:
                raise DoorwardError(
                    f"{show(path)}: entry {ascii(member.name)[:200]}: {show(error).split(':')[0][:200]}; "
                    "expected files and folders that stay inside the archive's folder"
                ) from None
        _expect_end(archive, path)


def _expect_end(archive: tarfile.TarFile, path: Path) -> None:
    """A file cut between two entries lacks the block of zeros; reading on to the end checks gzip's own checksum."""
    if archive.fileobj is None:
        return
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise DoorwardError(f"{show(path)}: ends without an end mark; expected a whole archive")
    if len(archive.fileobj.read(_MAX_PADDING)) == _MAX_PADDING:
        raise DoorwardError(f"{show(path)}: goes on after its end mark; expected a whole archive")


def _unzip(path: Path, folder: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        if len(infos) > _MAX_ENTRIES:
            raise DoorwardError(f"{show(path)}: {len(infos)} entries; expected at most {_MAX_ENTRIES}")
        for info in infos:
            _check_entry(path, info)
        need_space(folder, sum(info.file_size for info in infos), path)
        for info in infos:
            target = folder / PurePosixPath(info.filename)
            if info.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as source, target.open("xb") as out:
                shutil.copyfileobj(source, out, 2**20)


def _check_entry(path: Path, info: zipfile.ZipInfo) -> None:
    name = info.orig_filename
    parts = PurePosixPath(name).parts
    kind = stat.S_IFMT(info.external_attr >> 16)
    where = f"{show(path)}: entry {ascii(name)[:200]}"
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or ":" in parts[0] or "\0" in name:
        raise DoorwardError(f"{where} leaves the archive's folder; expected names that stay inside")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise DoorwardError(f"{where} is a link or a device; expected files and folders")
    if info.file_size > MAX_DEFLATE * (info.compress_size + 1024):
        raise DoorwardError(f"{where}: {info.compress_size} bytes cannot unpack to {info.file_size}; a bomb")
