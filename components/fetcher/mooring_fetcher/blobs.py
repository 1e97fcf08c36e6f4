"""What the cache of a node keeps: blobs by name, filled by one and read by many at the same time.

A blob is being filled, half-filled and left, or whole. Whoever fills it stands in for everybody who
wants it: readers follow its growth. Where the filler leaves, the next may go on from there. Whole
blobs survive a restart; others do not. The least recently used are dropped for new ones, but none
that is being read or filled, so the bytes on disk never exceed the bound.

Names are secrets of those who know them (:mod:`mooring_fetcher.cache_names`), so none is shown.
What is kept is not trusted either: readers verify it.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

MIN_BLOB = 1 << 20
"""Bytes. What is smaller is fetched as fast from its store; it also bounds the number of blobs."""
MAX_FILLING = 64
"""Blobs filled at the same time: more fillers than that are told to keep their bytes."""
GROWTH_TIMEOUT = 20.0
"""Seconds that a reader waits for a filler to bring more."""


@dataclass(eq=False)
class Blob:
    """One blob on disk. All fields but the name and size change under the keeper's lock."""

    name: str
    size: int
    path: Path
    length: int = 0
    """Bytes that are there; the blob is whole when they are `size`."""
    charged: int = 0
    """Bytes that count against the bound: those that are there and those just being written."""
    filling: bool = False
    dropped: bool = False
    readers: int = 0

    @property
    def whole(self) -> bool:
        return self.length == self.size and not self.filling


@dataclass
class Counts:
    """What the metrics show, since the start."""

    hits: int = 0
    misses: int = 0
    fills: int = 0
    evictions: int = 0
    bytes_served: int = 0


@dataclass
class Keeper:
    """The blobs of one folder, which is this process's own. Safe to use from several threads."""

    folder: Path
    max_bytes: int
    counts: Counts = field(default_factory=Counts)
    _blobs: OrderedDict[str, Blob] = field(default_factory=OrderedDict)
    """The least recently used first."""
    _used: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        found: list[tuple[float, Blob]] = []
        for path in self.folder.iterdir():
            name, _, size = path.name.partition("-")
            stat = path.stat()
            if size.isdigit() and stat.st_size == int(size):
                found.append((stat.st_mtime, Blob(name, int(size), path, int(size), int(size))))
            else:
                # Half a blob, of whoever filled it when this process or its node stopped.
                path.unlink()
        for _, blob in sorted(found, key=lambda one: one[0]):
            self._blobs[blob.name] = blob
            self._used += blob.charged
        with self._changed:
            self._make_room(0)

    @property
    def held(self) -> tuple[int, int]:
        """Number of blobs, and bytes on disk."""
        with self._changed:
            return len(self._blobs), self._used

    def read(self, name: str, size: int, offset: int) -> Blob | None:
        """The blob, if it is whole or being filled; :meth:`done` must follow."""
        with self._changed:
            blob = self._blobs.get(name)
            there = blob is not None and blob.size == size and offset <= size
            if blob is None or not there or not (blob.filling or blob.whole):
                self.counts.misses += 1
                return None
            try:
                self._touch(blob)
            except OSError:
                # Its file is gone, by whose hand ever: then it is to be brought again.
                self._drop(blob)
                self.counts.misses += 1
                return None
            self.counts.hits += 1
            blob.readers += 1
            return blob

    def wait_beyond(self, blob: Blob, offset: int) -> int:
        """How far the blob reaches, once that is beyond `offset`; `offset` when no more will come,
        at least not soon.
        """
        with self._changed:
            self._changed.wait_for(lambda: blob.length > offset or not blob.filling, GROWTH_TIMEOUT)
            return offset if blob.dropped else max(blob.length, offset)

    def served(self, count: int) -> None:
        """Counts bytes that a reader was sent."""
        with self._changed:
            self.counts.bytes_served += count

    def done(self, blob: Blob) -> None:
        """A reader has left."""
        with self._changed:
            blob.readers -= 1

    def fill(self, name: str, size: int, offset: int) -> Blob | None:
        """The blob, to be filled from `offset` on by the caller alone; :meth:`left` must follow.

        None where somebody else fills it, where it is whole, where its beginning is missing, or
        where there is no place for it.
        """
        with self._changed:
            blob = self._blobs.get(name)
            if blob is None:
                if offset or not MIN_BLOB <= size <= self.max_bytes:
                    return None
                blob = Blob(name, size, self.folder / f"{name}.part")
            if blob.filling or blob.whole or blob.size != size or offset > blob.length:
                return None
            if sum(other.filling for other in self._blobs.values()) >= MAX_FILLING:
                return None
            blob.filling = True
            self._blobs[name] = blob
            self._touch(blob)
            return blob

    def add(self, blob: Blob, file: int, offset: int, chunk: bytes) -> bool:
        """Writes the blob's bytes from `offset` on, as far as they are new; False where there is no
        room, or the blob was dropped meanwhile.

        Raises OSError.
        """
        fresh = chunk[max(blob.length - offset, 0) :]
        with self._changed:
            if blob.dropped or not self._make_room(len(fresh)):
                return False
            blob.charged += len(fresh)
            self._used += len(fresh)
        # One filler at a time, so its length does not change under it.
        at = 0
        while at < len(fresh):
            at += os.pwrite(file, fresh[at:], blob.length + at)
        with self._changed:
            blob.length += len(fresh)
            self._changed.notify_all()
        return True

    def left(self, blob: Blob, file: int, *, keep: bool) -> bool:
        """The filler has left; whether the blob is whole. Without `keep` what it wrote is dropped.

        A whole blob gets its name when its bytes are on the disk.
        """
        whole = keep and blob.length == blob.size
        if whole:
            os.fsync(file)
        with self._changed:
            blob.filling = False
            if blob.dropped or not keep:
                self._drop(blob)
            elif whole:
                final = self.folder / f"{blob.name}-{blob.size}"
                blob.path.rename(final)
                blob.path = final
                self.counts.fills += 1
            self._changed.notify_all()
            return whole and not blob.dropped

    def forget(self, name: str) -> None:
        """Drops a blob that a reader found to be wrong."""
        with self._changed:
            if blob := self._blobs.get(name):
                self._drop(blob)
                self._changed.notify_all()

    def _touch(self, blob: Blob) -> None:
        self._blobs.move_to_end(blob.name)
        if blob.whole:
            os.utime(blob.path)

    def _make_room(self, needed: int) -> bool:
        limit = self.max_bytes - needed
        if self._used > limit:
            for blob in list(self._blobs.values()):
                if not blob.filling and not blob.readers:
                    self._drop(blob)
                    self.counts.evictions += 1
                if self._used <= limit:
                    break
        return self._used <= limit

    def _drop(self, blob: Blob) -> None:
        blob.dropped = True
        kept = self._blobs.get(blob.name)
        if kept is blob:
            del self._blobs[blob.name]
            self._used -= blob.charged
        # Whoever fills the name next writes to a file of the same name, which is not this one's.
        if kept is None or kept is blob or kept.path != blob.path:
            blob.path.unlink(missing_ok=True)
