"""Layers of an image, one over the other: later files cover earlier ones, whiteouts remove them.

Pure bookkeeping of paths; the bytes stay in the flat files that unpacking wrote.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mooring_fetcher.digest import FileDigest

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


class Overlay:
    """The files that are seen after all layers put so far."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[FileDigest, Path]] = {}
        self._folders: set[str] = set()

    @property
    def files(self) -> tuple[FileDigest, ...]:
        return tuple(file for file, _ in self._files.values())

    @property
    def sources(self) -> dict[str, Path]:
        return {path: source for path, (_, source) in self._files.items()}

    def put(self, file: FileDigest, source: Path) -> None:
        """A file, in place of what had its name, was above it or below it."""
        parts = file.path.split("/")
        for end in range(1, len(parts)):
            folder = "/".join(parts[:end])
            self._files.pop(folder, None)
            self._folders.add(folder)
        self._clear(file.path)
        self._files[file.path] = (file, source)

    def layer(self, files: Iterable[tuple[FileDigest, Path]]) -> None:
        """A layer of an image. Its whiteouts hide what lies below it, never its own files."""
        held = list(files)
        for file, _ in held:
            folder, slash, name = file.path.rpartition("/")
            if name == _OPAQUE:
                self._clear(folder)
            elif name.startswith(_WHITEOUT):
                hidden = folder + slash + name.removeprefix(_WHITEOUT)
                self._files.pop(hidden, None)
                self._clear(hidden)
        for file, source in held:
            if not file.path.rpartition("/")[2].startswith(_WHITEOUT):
                self.put(file, source)

    def _clear(self, folder: str) -> None:
        """Removes all below a folder; all there is for the root."""
        if folder and folder not in self._folders:
            return
        inside = f"{folder}/" if folder else ""
        for path in [path for path in self._files if path.startswith(inside)]:
            del self._files[path]
