"""Reads tar archives, plain or gzipped, as a stream of bounded memory.

The standard library parses the headers; extraction is ours (:mod:`mooring_fetcher.archive`),
so that it does not depend on which Python patch level has which fix of ``tarfile``'s filters.
Two habits of ``tarfile`` are guarded against here: it reads a header extension of any length into
memory at once, and it takes a damaged header in the middle for the end of the archive.
"""

from __future__ import annotations

import gzip
import posixpath
import tarfile
import zlib
from pathlib import Path

from mooring_fetcher.archive import Readable, Unpacker
from mooring_fetcher.digest import CHUNK
from mooring_fetcher.failure import PermanentFailure
from mooring_fetcher.names import safe_path

MAX_HEADER = 1 << 20
"""Bytes of one header extension (long names, extended attributes)."""

_BLOCK = tarfile.BLOCKSIZE
_HEADERS_PER_FILE = 4 * _BLOCK
"""Bytes that headers and padding may add to a model that is just within the limits."""


class _HeaderTooLong(Exception):
    """tarfile asked for more at once than any honest header needs."""


class _Forward:
    """A stream that tarfile can use as a file: reads count against the limits, seeking is
    forward, or back within the last block (tarfile steps one byte back after empty files).
    """

    def __init__(self, raw: Readable, unpacker: Unpacker) -> None:
        self._raw = raw
        self._unpacker = unpacker
        self._at = 0
        self._tail = b""
        self._back = 0

    def tell(self) -> int:
        return self._at - self._back

    def read(self, size: int) -> bytes:
        if size > max(MAX_HEADER, CHUNK) + _BLOCK:
            raise _HeaderTooLong
        again = self._tail[len(self._tail) - self._back :][:size] if self._back else b""
        self._back -= len(again)
        fresh = self._pull(size - len(again)) if size > len(again) else b""
        return again + fresh

    def seek(self, position: int) -> int:
        behind = self._at - position
        if behind >= 0:
            if behind > len(self._tail):
                raise tarfile.ReadError("seek too far back")
            self._back = behind
            return position
        self._back = 0
        while self._at < position and self._pull(min(CHUNK, position - self._at)):
            pass
        return self._at

    def drain(self) -> None:
        """Reads to the end, so that gzip checks its checksum and trailing bombs are counted."""
        self._back = 0
        while self._pull(CHUNK):
            pass

    def _pull(self, size: int) -> bytes:
        data = self._raw.read(size)
        self._at += len(data)
        self._tail = (self._tail + data)[-_BLOCK:]
        # What tarfile skips and what headers weigh is output as well, though no file's.
        unpacker = self._unpacker
        unpacker.limits.check_ratio(self._at, unpacker.archive_bytes, unpacker.where)
        headers = _HEADERS_PER_FILE * unpacker.limits.max_files
        unpacker.limits.check_bytes(max(self._at - headers, 0), unpacker.where)
        return data


def untar(archive: Path, gzipped: bool, unpacker: Unpacker) -> None:
    """Feeds the archive's entries to the unpacker. Raises PermanentFailure."""
    try:
        with archive.open("rb") as raw:
            if not gzipped:
                _entries(_Forward(raw, unpacker), unpacker)
                return
            with gzip.GzipFile(fileobj=raw) as plain:
                _entries(_Forward(plain, unpacker), unpacker)
    except _HeaderTooLong:
        raise PermanentFailure(
            f"{unpacker.where} has a header of more than {MAX_HEADER} bytes, as a bomb does: it "
            "is refused; pack it anew with plain tar."
        ) from None
    except (tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError) as error:
        raise unpacker.damaged(str(error) or type(error).__name__) from None
    except (ValueError, OverflowError, RecursionError, IndexError, KeyError) as error:
        # tarfile's parsers let these through for headers that make no sense.
        raise unpacker.damaged(f"a header makes no sense: {type(error).__name__}") from None


def _entries(stream: _Forward, unpacker: Unpacker) -> None:
    links: list[tuple[str, str]] = []
    # The protocol that tarfile needs is read, seek and tell; typeshed asks for all of IO.
    with tarfile.open(fileobj=stream, mode="r:") as tar:  # type: ignore[call-overload]
        while (member := tar.next()) is not None:
            tar.members.clear()  # or a long archive is held in memory
            unpacker.entry()
            if member.isdir():
                if member.name.strip("./"):
                    safe_path(member.name.rstrip("/"), unpacker.where)
                continue
            path = safe_path(member.name, unpacker.where)
            if member.issym() or member.islnk():
                links.append((path, _link_target(member, path)))
            elif member.sparse is not None or not member.isreg():
                raise unpacker.refuse(member.name, _kind(member))
            else:
                _take(tar, member, path, unpacker)
        _check_end(stream, tar.offset, unpacker)
    for path, target in links:
        unpacker.link(path, target)


def _take(tar: tarfile.TarFile, member: tarfile.TarInfo, path: str, unpacker: Unpacker) -> None:
    unpacker.limits.check_bytes(member.size, unpacker.where)
    payload = tar.extractfile(member)
    if payload is None:
        raise unpacker.refuse(member.name, "an entry without bytes")
    with payload:
        unpacker.file(path, payload)


def _link_target(member: tarfile.TarInfo, path: str) -> str:
    """The path inside the archive that a link names, by text alone; not there if it leads out.

    Links to links and to folders are never found among the files, which makes chains that only
    together lead out impossible.
    """
    if member.islnk():
        target = member.linkname
    else:
        if member.linkname.startswith("/"):
            return ""
        target = posixpath.join(posixpath.dirname(path), member.linkname)
    return posixpath.normpath(target) if target else ""


def _check_end(stream: _Forward, offset: int, unpacker: Unpacker) -> None:
    """tarfile stops at the first header that it cannot read; a sound archive stops at zeros."""
    stream.seek(offset)
    block = stream.read(_BLOCK)
    if len(block) < _BLOCK or block.strip(b"\0"):
        raise unpacker.damaged("it ends in the middle")
    stream.drain()


def _kind(member: tarfile.TarInfo) -> str:
    if member.isdev():
        return "a pipe" if member.isfifo() else "a device"
    return "a sparse file" if member.sparse is not None else "an entry of unknown type"
