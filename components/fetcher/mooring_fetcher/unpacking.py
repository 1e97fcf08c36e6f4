"""From what was fetched to the model's files: those of an archive, of layers, or as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from mooring_fetcher.archive import Total, unpack
from mooring_fetcher.digest import FileDigest
from mooring_fetcher.failure import PermanentFailure
from mooring_fetcher.limits import Limits, size_text
from mooring_fetcher.names import PathSet
from mooring_fetcher.overlay import Overlay
from mooring_fetcher.store import Listing
from mooring_fetcher.uri import archive_kind


class _Run(Protocol):
    @property
    def limits(self) -> Limits: ...

    @property
    def say(self) -> Callable[[str], None]: ...


def unpacked(
    where: str,
    listing: Listing,
    files: Sequence[FileDigest],
    sources: Mapping[str, Path],
    folder: Path,
    run: _Run,
) -> Overlay:
    """The files of the model and where their bytes lie; what was unpacked is deleted.

    `files` are those of the listing, in its order; `folder` takes what comes out. Raises
    PermanentFailure for anything that archives may not do, and for more than the limits allow.
    """
    seen, total = Overlay(), Total()
    for index, (remote, file) in enumerate(zip(listing.files, files, strict=True)):
        source = sources[remote.path]
        kind = remote.unpack or (archive_kind(remote.path) if listing.single else None)
        if kind is None:
            seen.put(file, source)
            continue
        flat = folder / f"unpacked-{index}"
        flat.mkdir()
        run.say(f"unpacking {size_text(file.size)}")
        layer = remote.unpack is not None
        inside = unpack(source, kind, where, flat, run.limits, may_be_empty=layer, total=total)
        source.unlink()
        held = [(one, inside.sources[one.path]) for one in inside.files]
        if layer:
            seen.layer(held)
        else:
            for one, at in held:
                seen.put(one, at)
        run.limits.check_files(len(seen.files), where)
        run.limits.check_bytes(sum(one.size for one in seen.files), where)
    if not seen.files:
        raise PermanentFailure(f"{where} holds no file, so there is no model in it.")
    paths = PathSet(where)
    for one in seen.files:
        paths.add(one.path)
    return seen
