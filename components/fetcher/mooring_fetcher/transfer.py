"""One remote file to a digest and, if wanted, onto disk: streamed, resumed, bounded.

Memory holds one chunk. After a break the transfer goes on at the byte where it stopped, as long
as the store vouches by the file's version that the rest belongs to the beginning.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from mooring_fetcher.digest import CHUNK, FileDigest
from mooring_fetcher.failure import Interruption, PermanentFailure, TransientFailure
from mooring_fetcher.limits import size_text
from mooring_fetcher.patience import Attempts, Patience
from mooring_fetcher.progress import Progress
from mooring_fetcher.store import Body, RemoteFile, Store


class Sink(Protocol):
    """Where the bytes go besides into the hash."""

    def resume(self, feed: Callable[[bytes], None]) -> None:
        """Feeds what is already there."""

    def write(self, chunk: bytes) -> None: ...

    def restart(self) -> None:
        """Drops everything written."""


class NoSink:
    """Hashes only, as ``digest`` does."""

    def resume(self, feed: Callable[[bytes], None]) -> None:
        return

    def write(self, chunk: bytes) -> None:
        return

    def restart(self) -> None:
        return


class FileSink:
    """Appends to a file that an earlier start may have begun."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file: BinaryIO = path.open("ab+")
        except OSError as error:
            raise disk_failure(error, path) from None

    def resume(self, feed: Callable[[bytes], None]) -> None:
        self._file.seek(0)
        while chunk := self._file.read(CHUNK):
            feed(chunk)

    def write(self, chunk: bytes) -> None:
        try:
            self._file.write(chunk)
        except OSError as error:
            raise disk_failure(error, self._path) from None

    def restart(self) -> None:
        self._file.truncate(0)

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            raise disk_failure(error, self._path) from None


def disk_failure(error: OSError, path: Path) -> TransientFailure | PermanentFailure:
    """The one sentence for a volume that does not take what is written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return TransientFailure(
            f"The model volume at {path.parent} is full: raise the sizeLimit of the volume or "
            "ephemeral-storage, use a node with more free disk, or publish a smaller model."
        )
    if error.errno == errno.EIO:
        return TransientFailure(f"The disk under {path.parent} failed (input/output error).")
    return PermanentFailure(
        f"{path} cannot be written: {error.strerror or error}; the fetcher's user needs a "
        "writable model volume."
    )


def check_space(needed: int, folder: Path) -> None:
    """Raises TransientFailure when the volume plainly cannot take `needed` more bytes."""
    free = os.statvfs(folder)
    available = free.f_bavail * free.f_frsize
    if needed > available:
        raise TransientFailure(
            f"The model needs {size_text(needed)} more, but the volume at {folder} has only "
            f"{size_text(available)} free: use a node or volume with more space."
        )


@dataclass
class _Position:
    """How far a transfer is. Only ever moved together with the sink."""

    offset: int
    sha256: hashlib._Hash

    def feed(self, chunk: bytes) -> None:
        self.offset += len(chunk)
        self.sha256.update(chunk)


@dataclass(frozen=True)
class Transfer:
    """Moves files of one store; shared by the transfers of one run."""

    store: Store
    patience: Patience
    progress: Progress
    count: Callable[[int], None]
    """Told of every byte before it is written; raises PermanentFailure above the limit. Negative
    when bytes were dropped."""

    def run(self, file: RemoteFile, sink: Sink) -> FileDigest:
        """All bytes of the file, hashed, in the sink.

        Raises PermanentFailure, TransientFailure, or Changed.
        """
        at = _Position(0, hashlib.sha256())
        if file.version is not None:
            sink.resume(at.feed)
            self.count(at.offset)
            self.progress.reuse(at.offset)
            if file.size is not None and at.offset > file.size:
                self._restart(sink, at)
        self._pull(file, sink, at)
        if file.sha256 not in (None, at.sha256.hexdigest()):
            # Half of it may be an earlier start's, or a proxy's: all of it anew, once.
            self._restart(sink, at)
            self._pull(file, sink, at)
        found = at.sha256.hexdigest()
        if file.sha256 not in (None, found):
            self._restart(sink, at)
            raise PermanentFailure(
                f"The store says that {file.path[:120]!a} has the sha256 {file.sha256}, but sent "
                f"bytes with {found}, twice: what it holds is damaged, or something on the way "
                "changes it; upload the model again."
            )
        return FileDigest(file.path, at.offset, found)

    def _pull(self, file: RemoteFile, sink: Sink, at: _Position) -> None:
        attempts = self.patience.attempts()
        while file.size is None or at.offset != file.size or file.size == 0:
            try:
                self._once(file, sink, at, attempts)
                break
            except Interruption as interruption:
                attempts.wait_after(interruption)
                if file.version is None:
                    self._restart(sink, at)

    def _once(self, file: RemoteFile, sink: Sink, at: _Position, attempts: Attempts) -> None:
        body = self.store.open(file, at.offset)
        try:
            if body.start != at.offset:
                self._restart(sink, at)
            self._pour(body, sink, at, attempts)
        except Interruption as interruption:
            raise _located(interruption, body, at, file) from None
        finally:
            body.close()
        if body.end is not None and at.offset != body.end:
            early = Interruption("The server ended the transfer early")
            raise _located(early, body, at, file)

    def _pour(self, body: Body, sink: Sink, at: _Position, attempts: Attempts) -> None:
        policy, clock = self.patience.policy, self.patience.clock
        window_began, window_bytes = clock.now(), 0
        while chunk := body.read():
            if self.patience.stop.is_set():
                raise TransientFailure("Stopped, because another file could not be fetched.")
            self.count(len(chunk))
            sink.write(chunk)
            at.feed(chunk)
            self.progress.add(len(chunk))
            window_bytes += len(chunk)
            if window_bytes >= policy.progress_bytes:
                attempts.progressed()
                window_began, window_bytes = clock.now(), 0
            elif clock.now() - window_began > policy.stall_window:
                raise Interruption(
                    f"The server sent only {window_bytes} bytes in {policy.stall_window:.0f} s"
                )
            if self.patience.elapsed() > policy.total:
                raise TransientFailure(
                    f"The model was not complete after {policy.total:.0f} s "
                    f"({size_text(at.offset)} of this file): the line is too slow or --timeout "
                    "too short."
                )

    def _restart(self, sink: Sink, at: _Position) -> None:
        self.count(-at.offset)
        self.progress.reuse(-at.offset)
        sink.restart()
        at.offset, at.sha256 = 0, hashlib.sha256()


def _located(
    interruption: Interruption, body: Body, at: _Position, file: RemoteFile
) -> Interruption:
    whole = f" of {size_text(body.end)}" if body.end is not None else ""
    where = f"at {size_text(at.offset)}{whole} of {file.path}"
    return Interruption(f"{interruption}, {where}", retry_after=interruption.retry_after)
