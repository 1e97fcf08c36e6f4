"""Unpacks an archive without ever letting it choose where on the disk anything lands.

Entries are written to numbered files in one flat folder; the names in the archive stay data
until every rule has been applied to all of them (:mod:`mooring_fetcher.names`), and only then
does :mod:`mooring_fetcher.placing` build the tree. So no entry can write through another, and a
link is nothing but a second name for a regular file of the same archive.

Refused: absolute and climbing paths, duplicate names, devices, pipes, links to anything but a
regular file inside, sparse files, encryption, overlapping zip entries, damaged or cut archives,
more bytes, files or growth than the limits allow. An archive inside the archive stays a file.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from mooring_fetcher.digest import CHUNK, FileDigest
from mooring_fetcher.failure import PermanentFailure
from mooring_fetcher.limits import Limits
from mooring_fetcher.names import PathSet
from mooring_fetcher.transfer import disk_failure


class Readable(Protocol):
    """Anything with bytes to read."""

    def read(self, n: int, /) -> bytes: ...


@dataclass(frozen=True)
class Unpacked:
    """The files of an archive: what each is, and the flat file that holds its bytes (shared by
    linked names).
    """

    files: tuple[FileDigest, ...]
    sources: dict[str, Path]


@dataclass
class Total:
    """What came out of all archives of one model: its limits hold for them together, since all of
    it lies on the disk, also what a later layer hides.
    """

    entries: int = 0
    bytes: int = 0


@dataclass
class Unpacker:
    """Takes entries one by one, counts them against the limits, and writes flat files."""

    where: str
    """The archive, as messages call it."""
    archive_bytes: int
    folder: Path
    limits: Limits
    total: Total = field(default_factory=Total)
    _paths: PathSet = field(init=False)
    _done: dict[str, FileDigest] = field(default_factory=dict)
    _sources: dict[str, Path] = field(default_factory=dict)
    _bytes: int = 0

    def __post_init__(self) -> None:
        self._paths = PathSet(self.where)

    def entry(self) -> None:
        """Counts an entry of any kind; a million folders are a bomb too."""
        self.total.entries += 1
        self.limits.check_files(self.total.entries, self.where)

    def file(self, path: str, stream: Readable) -> None:
        """Takes a regular file."""
        self._paths.add(path)
        target = self.folder / f"{len(self._sources):08d}"
        state, size = hashlib.sha256(), 0
        try:
            with target.open("xb") as out:
                while chunk := stream.read(CHUNK):
                    self.grown(len(chunk))
                    out.write(chunk)
                    state.update(chunk)
                    size += len(chunk)
        except OSError as error:
            # Readers raise their own kinds; a bare errno can only come from writing.
            if error.errno is None:
                raise
            raise disk_failure(error, target) from None
        self._done[path] = FileDigest(path, size, state.hexdigest())
        self._sources[path] = target

    def link(self, path: str, target: str) -> None:
        """Takes a second name for a regular file of this archive (all of which came before)."""
        if target not in self._done:
            raise PermanentFailure(
                f"{self.where} contains the link {path[:120]!a}, which does not lead to a "
                "regular file of the same archive: it is refused; pack the file itself (tar -h)."
            )
        self._paths.add(path)
        known = self._done[target]
        self._done[path] = FileDigest(path, known.size, known.sha256)
        self._sources[path] = self._sources[target]

    def grown(self, count: int) -> None:
        """Counts bytes that came out."""
        self._bytes += count
        self.total.bytes += count
        self.limits.check_bytes(self.total.bytes, self.where)
        self.limits.check_ratio(self._bytes, self.archive_bytes, self.where)

    def finish(self, *, may_be_empty: bool = False) -> Unpacked:
        """Everything taken. Raises PermanentFailure when there was nothing."""
        if not self._done and not may_be_empty:
            raise PermanentFailure(f"{self.where} holds no file, so there is no model in it.")
        return Unpacked(tuple(self._done.values()), dict(self._sources))

    def refuse(self, name: str, what: str) -> PermanentFailure:
        """The failure for an entry of a kind that no model needs."""
        return PermanentFailure(
            f"{self.where} contains {name[:120]!a}, {what}: it is refused; pack plain files "
            "and folders only."
        )

    def damaged(self, reason: str) -> PermanentFailure:
        """The failure for bytes that are no sound archive."""
        return PermanentFailure(
            f"{self.where} is damaged or not the archive that its name says ({reason}): build and "
            "upload it again."
        )


def unpack(
    archive: Path,
    kind: Literal["tar", "tar.gz", "zip"],
    where: str,
    folder: Path,
    limits: Limits,
    *,
    may_be_empty: bool = False,
    total: Total | None = None,
) -> Unpacked:
    """Unpacks `archive` into flat files in `folder` (which must be empty).

    `may_be_empty`: folders alone will do, as in a layer of an image. `total` counts this archive
    together with others of the same model.

    Raises PermanentFailure for anything suspicious, TransientFailure for a full disk.
    """
    unpacker = Unpacker(where, archive.stat().st_size, folder, limits, total or Total())
    if kind == "zip":
        from mooring_fetcher.unzip import unzip

        unzip(archive, unpacker)
    else:
        from mooring_fetcher.untar import untar

        untar(archive, kind == "tar.gz", unpacker)
    return unpacker.finish(may_be_empty=may_be_empty)
