"""Puts verified files under their final names: laid out for a server, at once, again if need be.

Everything happens inside ``<target>/.partial`` until the last step, which renames the top-level
entries into place. A marker file remembers which entries are the fetcher's own, so that a start
over (after a kill at any point) replaces exactly those, and nobody else's files are ever touched.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from mooring_fetcher.digest import FileDigest, digest_path, tree_digest
from mooring_fetcher.failure import PermanentFailure, TransientFailure
from mooring_fetcher.layouts import archive_layout, saved_model_layout
from mooring_fetcher.names import MARKER, PARTIAL
from mooring_fetcher.transfer import disk_failure

Layout = Literal["flat", "triton", "tfserving", "torchserve"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

_TRITON_FILES = {
    ".onnx": "model.onnx",
    ".pt": "model.pt",
    ".plan": "model.plan",
    ".graphdef": "model.graphdef",
}


def laid_out(
    paths: Iterable[str],
    layout: Layout,
    model_name: str,
    *,
    version: str = "1",
    where: str = "The model",
) -> dict[str, str]:
    """Where each file of a model goes, relative to the target.

    ``where`` is the model in messages. ``tfserving`` and ``torchserve`` raise PermanentFailure for
    what they cannot serve (:mod:`mooring_fetcher.layouts`). ``triton`` makes a model repository:
    what is one already stays as it is, a model's folder (with config.pbtxt or numbered versions)
    goes below the model's name, and anything else becomes version 1, a lone model file under the
    name that Triton looks for.
    """
    ordered = sorted(paths)
    if layout == "flat":
        return {path: path for path in ordered}
    if layout == "tfserving":
        return saved_model_layout(ordered, version, where)
    if layout == "torchserve":
        return archive_layout(ordered, model_name, where)
    tops = {path.split("/", 1)[0] for path in ordered if "/" in path}
    roots = {path for path in ordered if "/" not in path}
    if (
        model_name in tops
        and not roots
        and len(tops) == 1
        and _is_model_folder([path.split("/", 1)[1] for path in ordered])
    ):
        return {path: path for path in ordered}
    if _is_model_folder(ordered):
        return {path: f"{model_name}/{path}" for path in ordered}
    if "saved_model.pb" in roots:
        return {path: f"{model_name}/1/model.savedmodel/{path}" for path in ordered}
    placed = {path: f"{model_name}/1/{path}" for path in ordered}
    for suffix, wanted in _TRITON_FILES.items():
        models = [path for path in roots if path.lower().endswith(suffix)]
        if len(models) == 1 and wanted not in roots:
            placed[models[0]] = f"{model_name}/1/{wanted}"
    return placed


def _is_model_folder(paths: list[str]) -> bool:
    return "config.pbtxt" in paths or any(
        "/" in path and path.split("/", 1)[0].isdecimal() for path in paths
    )


@dataclass(frozen=True)
class Marker:
    """What an earlier start put in place. ``tree`` is the digest of the placed files, which for
    an archive is not the model's digest; empty while placing is not finished.
    """

    uri: str
    layout: str
    digest: str
    bytes: int
    files: int
    entries: tuple[str, ...]
    tree: str = ""


def read_marker(target: Path) -> Marker | None:
    """The marker of an earlier start; None when there is none that makes sense."""
    try:
        held = json.loads((target / MARKER).read_text())
        marker = Marker(**{**held, "entries": tuple(held["entries"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return marker if all(_is_entry(entry) for entry in marker.entries) else None


def _is_entry(name: object) -> bool:
    """A plain top-level name: what a marker says is deleted, so it must not lead elsewhere."""
    if not isinstance(name, str) or not name:
        return False
    return "/" not in name and name not in (".", "..", PARTIAL, MARKER)


def still_in_place(target: Path, marker: Marker) -> bool:
    """Whether what the marker tells of is there, byte for byte."""
    if not marker.tree or not marker.entries:
        return False
    files: list[FileDigest] = []
    try:
        for entry in marker.entries:
            root = target / entry
            paths = [root] if root.is_file() else [p for p in root.rglob("*") if p.is_file()]
            for path in paths:
                one = digest_path(path)
                sha256 = one.digest.removeprefix("sha256:")
                files.append(FileDigest(path.relative_to(target).as_posix(), one.size, sha256))
    except (OSError, PermanentFailure):
        return False
    return tree_digest(files).digest == marker.tree


def place(
    target: Path,
    files: Mapping[str, tuple[FileDigest, Path]],
    marker: Marker,
) -> None:
    """Moves flat files under their final paths and makes them visible.

    `files` maps a final relative path to its digest and to where its bytes lie now. Raises
    PermanentFailure when somebody else's file is in the way.
    """
    ready = target / PARTIAL / "ready"
    shutil.rmtree(ready, ignore_errors=True)
    entries = tuple(sorted({path.split("/", 1)[0] for path in files}))
    earlier = read_marker(target)
    ours = set(earlier.entries) if earlier else set()
    foreign = [entry for entry in entries if entry not in ours and os.path.lexists(target / entry)]
    if foreign:
        raise PermanentFailure(
            f"{target} already holds {foreign[0]!a}, which the fetcher did not put there: "
            "give it an empty target."
        )
    try:
        _assemble(ready, files)
        _write_marker(target, marker, tuple(sorted(ours.union(entries))), "")
        for entry in ours:
            _remove(target / entry)
        for entry in entries:
            (ready / entry).rename(target / entry)
        tree = tree_digest(
            FileDigest(path, file.size, file.sha256) for path, (file, _) in files.items()
        )
        _write_marker(target, marker, entries, tree.digest)
        shutil.rmtree(target / PARTIAL, ignore_errors=True)
    except OSError as error:
        raise disk_failure(error, target / PARTIAL) from None


def _assemble(ready: Path, files: Mapping[str, tuple[FileDigest, Path]]) -> None:
    """Builds the tree with plain permissions: readable to all, writable to its owner, never
    executable or set-uid.
    """
    ready.mkdir(parents=True)
    moved: dict[Path, Path] = {}
    for path, (_, source) in sorted(files.items()):
        final = ready / path
        final.parent.mkdir(parents=True, exist_ok=True)
        if source in moved:
            os.link(moved[source], final)
            continue
        source.rename(final)
        moved[source] = final
        final.chmod(0o644)
    for folder, _, _ in os.walk(ready):
        Path(folder).chmod(0o755)


def _write_marker(target: Path, marker: Marker, entries: tuple[str, ...], tree: str) -> None:
    draft = target / PARTIAL / "marker"
    draft.write_text(json.dumps({**asdict(marker), "entries": entries, "tree": tree}) + "\n")
    draft.chmod(0o644)
    draft.replace(target / MARKER)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def open_partial(target: Path) -> Path:
    """The folder for unfinished work, made if need be.

    Raises PermanentFailure when the target is no writable folder.
    """
    folder = target / PARTIAL
    try:
        target.mkdir(parents=True, exist_ok=True)
        if folder.is_symlink():
            folder.unlink()
        folder.mkdir(mode=0o755, exist_ok=True)
        probe = folder / "probe"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        failure = disk_failure(error, folder)
        if isinstance(failure, TransientFailure):
            raise failure from None
        raise PermanentFailure(
            f"The model volume at {target} cannot be written ({error.strerror or error}): mount "
            "it writable for the fetcher's user (fsGroup)."
        ) from None
    return folder


def keep_only(folder: Path, names: Iterable[str]) -> None:
    """Drops what earlier starts left in the unfinished work, but for the `names`."""
    wanted = set(names)
    for entry in folder.iterdir():
        if entry.name not in wanted:
            _remove(entry)
