r"""The digest of a model: the one implementation, used by the init container and by the CLI.

- A file: ``sha256:`` and the sha256 of its bytes as they are stored. An archive is a file: what
  is hashed is the archive, before unpacking.
- A folder or prefix: ``sha256:`` and the sha256 over one record per file, in the order of the
  paths' UTF-8 bytes. A record is ``<path> NUL <size> NUL <sha256> LF``, with the path relative
  and separated by ``/``, the size in decimal, the file's sha256 in lower-case hex.

No path holds a NUL, so no two folders share a record stream. Permissions, times and empty
folders do not count: object stores have none. With GNU tools the digest of a folder is

    find . -type f -printf '%P\n' | LC_ALL=C sort | while read -r f; do
      printf '%s\0%s\0%s\n' "$f" "$(stat -c %s "$f")" "$(sha256sum <"$f" | cut -c-64)"
    done | sha256sum
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from mooring_fetcher.failure import PermanentFailure
from mooring_fetcher.limits import Limits

CHUNK = 1 << 20
"""Bytes read and hashed at a time."""

_DIGEST = re.compile(r"^sha256:[0-9a-f]{64}$")


@dataclass(frozen=True)
class FileDigest:
    """One file of a model: relative path, bytes, sha256 in lower-case hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class ModelDigest:
    """A model's digest with what it covers."""

    digest: str
    size: int
    files: int


def file_digest(file: FileDigest) -> ModelDigest:
    """The digest of a model that is one file (its name does not count)."""
    return ModelDigest(f"sha256:{file.sha256}", file.size, 1)


def tree_digest(files: Iterable[FileDigest]) -> ModelDigest:
    """The digest of a folder or prefix, in whatever order its files are given."""
    ordered = sorted(files, key=lambda file: file.path.encode())
    total = hashlib.sha256()
    for file in ordered:
        total.update(f"{file.path}\0{file.size}\0{file.sha256}\n".encode())
    return ModelDigest(
        f"sha256:{total.hexdigest()}", sum(file.size for file in ordered), len(ordered)
    )


def parse_digest(text: str, where: str) -> str | None:
    """A declared digest, or None where `text` is blank.

    Raises PermanentFailure for anything but ``sha256:`` and 64 lower-case hex digits.
    """
    text = text.strip()
    if not text:
        return None
    if not _DIGEST.match(text):
        raise PermanentFailure(
            f"{where} holds {text[:100]!a}, which is not a digest: write sha256: and 64 "
            "lower-case hex digits, as `mooring digest` prints them."
        )
    return text


def digest_path(
    path: Path,
    *,
    limits: Limits | None = None,
    inside_only: bool = False,
    on_bytes: Callable[[int], None] = lambda count: None,
) -> ModelDigest:
    """The digest of a local file or folder, following links to files.

    With `inside_only` a link that leads out of the folder is refused: on a mounted claim it would
    name a file of whoever mounts it. Raises PermanentFailure for that, for what is missing,
    unreadable, neither file nor folder, empty, or beyond the limits.
    """
    limits = limits or Limits()
    try:
        if path.is_file():
            file = _hash_local(path, path.name, on_bytes)
            limits.check_bytes(file.size, str(path))
            return file_digest(file)
        if not path.is_dir():
            raise PermanentFailure(f"{path} does not exist or is neither a file nor a folder.")
        return tree_digest(_walk(path, limits, inside_only, on_bytes))
    except OSError as error:
        raise PermanentFailure(
            f"{error.filename or path} cannot be read: {error.strerror or error}; check that it "
            "exists and that its permissions let this user (or group) read it."
        ) from None


def _walk(
    root: Path, limits: Limits, inside_only: bool, on_bytes: Callable[[int], None]
) -> list[FileDigest]:
    files: list[FileDigest] = []
    total = 0
    real_root = os.path.realpath(root)
    for folder, folders, names in os.walk(root, onerror=_raise):
        # The file system's own folder on a fresh ext4 volume: unreadable, and no model.
        if folder == str(root) and "lost+found" in folders:
            folders.remove("lost+found")
        for name in folders:
            if Path(folder, name).is_symlink():
                raise PermanentFailure(
                    f"{Path(folder, name)} is a link to a folder, which has no digest: "
                    "replace it by the folder itself."
                )
        for name in names:
            full = Path(folder, name)
            relative = full.relative_to(root).as_posix()
            _check_local(full, relative, real_root if inside_only else None)
            files.append(_hash_local(full, relative, on_bytes))
            total += files[-1].size
            limits.check_files(len(files), str(root))
            limits.check_bytes(total, str(root))
    if not files:
        raise PermanentFailure(f"{root} holds no file, so there is no model in it: check the path.")
    return files


def _check_local(full: Path, relative: str, real_root: str | None) -> None:
    try:
        relative.encode()
    except UnicodeEncodeError:
        raise PermanentFailure(
            f"{full.parent} holds the file {full.name!a}, whose name is not UTF-8: rename it."
        ) from None
    if not full.exists():
        raise PermanentFailure(f"{full} is a link to nothing: remove it or restore its target.")
    if not full.is_file():
        raise PermanentFailure(f"{full} is a device, pipe or socket, not a file: remove it.")
    real = os.path.realpath(full)
    if real_root is not None and os.path.commonpath([real_root, real]) != real_root:
        raise PermanentFailure(
            f"{full} is a link that leads out of the model's folder: replace it by the file."
        )


def _hash_local(path: Path, relative: str, on_bytes: Callable[[int], None]) -> FileDigest:
    state = hashlib.sha256()
    size = 0
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            state.update(chunk)
            size += len(chunk)
            on_bytes(len(chunk))
    return FileDigest(relative, size, state.hexdigest())


def _raise(error: OSError) -> None:
    raise error
