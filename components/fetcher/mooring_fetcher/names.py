"""Which file names from a stranger are allowed into a volume.

Used for every name that was not written by the user: entries of archives and keys below an S3
prefix. Nothing is repaired: a repaired name is not the one that was reviewed. Only ``./`` in
front is dropped, since ``tar -C dir .`` writes it on every entry.
"""

from __future__ import annotations

import unicodedata

from mooring_fetcher.failure import PermanentFailure

MAX_NAME = 255
"""Bytes in one path component, as Linux file systems have it."""
MAX_PATH = 1024
"""Bytes in a relative path, well below PATH_MAX with a mount path in front."""

PARTIAL = ".partial"
MARKER = ".mooring-fetch.json"
_RESERVED = {PARTIAL, MARKER}


def safe_path(name: str, where: str) -> str:
    """The name as a relative POSIX path.

    Raises PermanentFailure for absolute paths, ``..``, backslashes, control characters, names
    that are not UTF-8, and names that are too long or the fetcher's own.
    """
    shown = ascii(name[:120])
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    parts = name.split("/")
    if name.startswith("/"):
        problem = "an absolute path"
    elif ".." in parts:
        problem = "a path that climbs out with '..'"
    elif "" in parts or "." in parts:
        problem = "an empty path component"
    elif "\\" in name:
        problem = "a backslash, which some systems take for a path separator"
    elif any(unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") for char in name):
        problem = "control or invisible characters, or bytes that are not UTF-8"
    elif len(name.encode()) > MAX_PATH or any(len(part.encode()) > MAX_NAME for part in parts):
        problem = "a path that is too long"
    elif parts[0] in _RESERVED:
        problem = "a name that the fetcher keeps for itself"
    else:
        return name
    raise PermanentFailure(
        f"{where} contains {shown}, {problem}: it is refused; publish the model with plain "
        "relative file names."
    )


class PathSet:
    """The paths of one model, refusing any two that could stand for the same file.

    Two names that differ only in letter case or Unicode form are one file on some volumes and
    two on others, so what was reviewed might not be what is served. A path that is both a file
    and a folder is the classic way to write through a link.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._files: dict[str, str] = {}
        self._folders: dict[str, str] = {}

    def add(self, path: str) -> None:
        """Takes a safe path, or raises PermanentFailure if it collides with an earlier one."""
        key = _folded(path)
        if key in self._files:
            self._refuse(path, self._files[key])
        if key in self._folders:
            self._refuse(path, f"{self._folders[key]}/")
        parts = path.split("/")
        for end in range(1, len(parts)):
            folder = "/".join(parts[:end])
            folded = _folded(folder)
            if folded in self._files:
                self._refuse(path, self._files[folded])
            if self._folders.setdefault(folded, folder) != folder:
                self._refuse(folder, self._folders[folded])
        self._files[key] = path

    def _refuse(self, path: str, other: str) -> None:
        what = (
            f"{path!a} twice"
            if path == other
            else f"{path!a} and {other!a}, which are or may become the same file"
        )
        raise PermanentFailure(
            f"{self._where} contains {what}: it is refused; publish each file once, under a name "
            "that differs by more than letter case."
        )


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
