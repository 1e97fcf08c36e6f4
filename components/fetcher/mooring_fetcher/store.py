"""What the fetcher asks of a place that holds models.

A new kind of store is one class with these three methods and one line in
:mod:`mooring_fetcher.stores`. A store speaks its protocol and names what went wrong; it never
retries, waits, hashes, writes files or counts against limits: that is done once, for all.

A store raises
- PermanentFailure for what no retry mends (denied, not found, wrong credentials),
- Interruption for what a retry may mend (reset, timeout, 5xx),
- Changed when the bytes are no longer those of the listing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True)
class RemoteFile:
    """One file of a listing.

    ``path`` is relative to the model (for a single file its name); ``key`` is the store's own
    name. ``version`` identifies the bytes and allows to go on after a break (a strong ETag);
    without it a broken transfer starts over. ``sha256`` is what the store says that the bytes hash
    to, where it says so; they are held against it. ``unpack`` marks a layer: not a file of the
    model, but a folder of them, to be laid over those of the layers before.
    """

    path: str
    key: str
    size: int | None
    version: str | None
    sha256: str | None = None
    unpack: Literal["tar", "tar.gz"] | None = None


@dataclass(frozen=True)
class Listing:
    """What stands behind a URI: one file, or a tree that may be empty.

    ``digest`` is the model's where the store has one of its own that covers all of it, each file by
    its sha256; else it is computed from the files.
    """

    single: bool
    files: tuple[RemoteFile, ...]
    digest: str | None = None


def size_of(value: object) -> int:
    """A size as a server tells it: a number, or digits. Raises ValueError for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise ValueError("not a size")
    return value


class Body(Protocol):
    """The bytes of a file from some offset on. ``start`` is where they truly begin: 0 when the
    store cannot go on in the middle. ``end`` is where they must end, if that is known.
    """

    start: int
    end: int | None

    def read(self) -> bytes:
        """The next at most 1 MiB; empty at the end. Raises Interruption."""

    def close(self) -> None: ...


class Store(Protocol):
    """A place that holds models."""

    def list(self, max_files: int) -> Listing:
        """The files, sorted by path (layers: in their order); may stop one above `max_files`."""

    def open(self, file: RemoteFile, offset: int) -> Body:
        """The file's bytes from `offset` on (0 unless it has a version)."""

    def close(self) -> None: ...
