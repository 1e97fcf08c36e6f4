"""Reads zip archives; the standard library inflates, the checks in front are ours.

``zipfile`` loads the whole central directory before it says how large it is, and older patch
levels accept entries that share their compressed bytes (the "better zip bomb"), so both are
checked first.
"""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from mooring_fetcher.archive import Unpacker
from mooring_fetcher.failure import PermanentFailure
from mooring_fetcher.names import safe_path

MAX_DIRECTORY = 64 << 20
"""Bytes of a central directory: what a hundred thousand entries with long names need."""

_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_LOCAL = struct.Struct("<4s5H3L2H")
_MAX_COMMENT = 0xFFFF
_ENCRYPTED = 0x1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def unzip(archive: Path, unpacker: Unpacker) -> None:
    """Feeds the archive's entries to the unpacker. Raises PermanentFailure."""
    try:
        with archive.open("rb") as raw:
            _check_directory_size(raw, unpacker)
            with zipfile.ZipFile(raw) as zipped:
                infos = zipped.infolist()
                unpacker.limits.check_files(len(infos), unpacker.where)
                _check_overlaps(raw, infos, zipped.start_dir, unpacker)
                for info in infos:
                    _entry(zipped, info, unpacker)
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError) as error:
        raise unpacker.damaged(str(error) or type(error).__name__) from None
    except (ValueError, OverflowError, RuntimeError, IndexError) as error:
        # zipfile lets these through for fields that make no sense.
        raise unpacker.damaged(f"a field makes no sense: {type(error).__name__}") from None


def _entry(zipped: zipfile.ZipFile, info: zipfile.ZipInfo, unpacker: Unpacker) -> None:
    unpacker.entry()
    # orig_filename is the name as stored; filename has been cut at a NUL by zipfile.
    name = info.orig_filename
    kind = stat.S_IFMT(info.external_attr >> 16)
    if name.endswith("/") and info.file_size == 0 and kind in (0, stat.S_IFDIR):
        if name.strip("./"):
            safe_path(name.rstrip("/"), unpacker.where)
        return
    if kind not in (0, stat.S_IFREG):
        what = "a link" if kind == stat.S_IFLNK else "neither a file nor a folder"
        raise unpacker.refuse(name, what)
    if info.flag_bits & _ENCRYPTED:
        raise unpacker.refuse(name, "an encrypted file")
    if info.compress_type not in _METHODS:
        raise unpacker.refuse(name, "packed by a method other than store and deflate")
    path = safe_path(name, unpacker.where)
    unpacker.limits.check_bytes(info.file_size, unpacker.where)
    with zipped.open(info) as stream:
        unpacker.file(path, stream)


def _check_directory_size(raw: BinaryIO, unpacker: Unpacker) -> None:
    """Finds the end record as zipfile does and bounds what zipfile is about to read."""
    size = raw.seek(0, 2)
    tail_at = max(0, size - _END.size - _MAX_COMMENT)
    raw.seek(tail_at)
    tail = raw.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < _END.size:
        raise unpacker.damaged("it has no directory")
    directory = _END.unpack_from(tail, at)[5]
    locator_at = tail_at + at - _LOCATOR.size
    if locator_at >= 0:
        raw.seek(locator_at)
        locator = _LOCATOR.unpack(raw.read(_LOCATOR.size))
        if locator[0] == b"PK\6\7":
            directory = max(directory, *_directory_64(raw, locator_at, locator[2]))
    if directory != 0xFFFFFFFF and directory > size:
        raise unpacker.damaged("its directory is larger than itself")
    if min(directory, size) > MAX_DIRECTORY:
        raise PermanentFailure(
            f"{unpacker.where} has a directory of more than {MAX_DIRECTORY >> 20} MiB, as a bomb "
            "does: it is refused; publish fewer files."
        )
    raw.seek(0)


def _directory_64(raw: BinaryIO, locator_at: int, stated: int) -> list[int]:
    """The directory size of the zip64 end record, wherever a reader may look for it."""
    sizes = [0]
    for at in (locator_at - _END_64.size, stated):
        if at >= 0:
            raw.seek(at)
            record = raw.read(_END_64.size)
            if len(record) == _END_64.size and record.startswith(b"PK\6\6"):
                sizes.append(_END_64.unpack(record)[8])
    return sizes


def _check_overlaps(
    raw: BinaryIO, infos: list[zipfile.ZipInfo], directory_at: int, unpacker: Unpacker
) -> None:
    """Each entry must own its bytes: from its local header to the end of its packed data."""
    ordered = sorted(infos, key=lambda info: info.header_offset)
    ends = [info.header_offset for info in ordered[1:]] + [directory_at]
    for info, limit in zip(ordered, ends, strict=True):
        if info.header_offset < 0:
            raise unpacker.damaged("an entry begins before the archive")
        raw.seek(info.header_offset)
        header = _LOCAL.unpack(raw.read(_LOCAL.size))
        if header[0] != b"PK\3\4":
            raise unpacker.damaged("an entry does not begin where the directory says")
        end = info.header_offset + _LOCAL.size + header[9] + header[10] + info.compress_size
        if end > limit:
            raise unpacker.refuse(info.orig_filename, "which shares its bytes with another entry")
    raw.seek(0)
