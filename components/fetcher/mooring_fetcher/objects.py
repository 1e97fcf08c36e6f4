"""What stores of objects have in common: a key is one object, or else a prefix of many, which are
listed page by page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mooring_fetcher.failure import PermanentFailure
from mooring_fetcher.store import Listing, RemoteFile

_MAX_PAGES = 10_000
"""Far more than :class:`mooring_fetcher.limits.Limits` allow files for, even at ten a page."""


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


def pages(
    first: Callable[[str], tuple[Sequence[RemoteFile], str]], max_files: int
) -> Sequence[RemoteFile]:
    """All files of a listing in pages; may stop one page above `max_files`.

    `first` gives the files of a page and the mark of the next, empty at the end; it is called with
    the mark of the page, empty for the first. Raises PermanentFailure for a listing without end.
    """
    found: list[RemoteFile] = []
    mark = ""
    for _ in range(_MAX_PAGES):
        files, following = first(mark)
        found += files
        if not following or len(found) > max_files:
            return found
        if following == mark:
            break
        mark = following
    raise PermanentFailure(
        "The store's listing does not end: it names the same next page over and over, so it does "
        "not speak the protocol that the URI's scheme stands for; check the endpoint."
    )


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
