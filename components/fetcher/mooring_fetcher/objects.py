"""What stores of objects have in common: a key is one object, or else a prefix of many."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mooring_fetcher.failure import PermanentFailure
from mooring_fetcher.store import Listing, RemoteFile


class NoObjectError(PermanentFailure):
    """Not found or denied: the key may still be a prefix."""


def one_or_all(
    key: str,
    one: Callable[[], RemoteFile],
    below: Callable[[str], Sequence[RemoteFile]],
) -> Listing:
    """The object called `key`, or where there is none, all objects below ``key/``.

    A key that ends in a slash, or is empty, is a prefix at once. `one` and `below` raise
    NoObjectError for what is not there or may not be seen; the object's own sentence is the one
    that is told, since it names what was written in the URI.
    """
    if not key or key.endswith("/"):
        return _tree(below(key))
    try:
        return Listing(True, (one(),))
    except NoObjectError as failure:
        try:
            found = _tree(below(f"{key}/"))
        except NoObjectError:
            raise PermanentFailure(str(failure)) from None
        if found.files:
            return found
        raise PermanentFailure(str(failure)) from None


def _tree(files: Sequence[RemoteFile]) -> Listing:
    """Consoles create empty objects to show a folder: named with a slash at the end, or like the
    folder itself. They are no files.
    """
    folders: set[str] = set()
    for file in files:
        parts = file.path.split("/")
        folders.update("/".join(parts[:end]) for end in range(1, len(parts)))
    real = [
        file
        for file in files
        if not (
            file.size == 0 and (file.path in folders or file.path.endswith("/") or not file.path)
        )
    ]
    return Listing(False, tuple(sorted(real, key=lambda file: file.path)))
