"""Fetching a model: list, download, verify, unpack, place. And digesting one without a disk.

The order is the point. Nothing is unpacked before its digest is verified, nothing is visible
under its final name before everything is there, and a tree is listed again at the end, so that
a digest never covers half an upload.
"""

from __future__ import annotations

import hashlib
import re
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from mooring_fetcher.cache_names import CacheNames
from mooring_fetcher.credentials import Credentials
from mooring_fetcher.digest import (
    FileDigest,
    ModelDigest,
    digest_path,
    file_digest,
    tree_digest,
)
from mooring_fetcher.expected import one_digest, verify
from mooring_fetcher.failure import Changed, PermanentFailure, TransientFailure
from mooring_fetcher.limits import Limits, size_text
from mooring_fetcher.names import PathSet, safe_path
from mooring_fetcher.node_cache import CachedStore
from mooring_fetcher.patience import Patience
from mooring_fetcher.placing import (
    Layout,
    Marker,
    keep_only,
    laid_out,
    open_partial,
    place,
    read_marker,
    still_in_place,
)
from mooring_fetcher.progress import Progress
from mooring_fetcher.saved_model import FILE, check_servable
from mooring_fetcher.store import Listing, RemoteFile, Store
from mooring_fetcher.stores import open_store
from mooring_fetcher.transfer import FileSink, NoSink, Sink, Transfer, check_space
from mooring_fetcher.unpacking import unpacked
from mooring_fetcher.uri import ModelUri, archive_kind, parse_uri

MAX_CHANGES = 3
"""How often the remote bytes may change under a run before it gives up."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MODEL_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
# TensorFlow Serving reads versions as signed 64-bit numbers.
_MODEL_VERSION = re.compile(r"^(0|[1-9][0-9]{0,17})$")


@dataclass(frozen=True)
class Request:
    """What to fetch. ``declared`` is the digest in the spec, ``pinned`` the one that the first
    pod of this revision found; both must match if given.
    """

    uri: str
    target: Path
    declared: str | None = None
    pinned: str | None = None
    layout: Layout = "flat"
    model_name: str = ""
    model_version: str = "1"
    """The folder of a SavedModel in layout tfserving."""
    allow_http: bool = False


@dataclass(frozen=True)
class Run:
    """What a fetch works with: bounds, patience, credentials, and a voice."""

    limits: Limits = field(default_factory=Limits)
    patience: Patience = field(default_factory=Patience)
    credentials: Credentials = field(default_factory=Credentials)
    say: Callable[[str], None] = lambda line: None
    parallel: int = 4
    """Files at a time: one S3 connection rarely fills a line."""
    cache: str = ""
    """The URL of the node's cache; empty where there is none."""


def fetch(request: Request, run: Run) -> ModelDigest:
    """Puts the model into the target, verified, and returns its digest.

    Raises PermanentFailure or TransientFailure with the sentence to tell; then nothing that was
    not there before is visible under its final name.
    """
    uri = parse_uri(request.uri, allow_http=request.allow_http)
    expected = one_digest(request.declared, request.pinned)
    _check_names(request)
    if uri.scheme == "pvc":
        return _verify_claim(uri, request, run)
    partial = open_partial(request.target)
    if expected and (found := _already_there(uri, request, expected)):
        run.say(f"the model is in place already, verified: {found.digest}")
        return found
    names = CacheNames.of(uri, run.credentials) if run.cache else None
    store = open_store(uri, run.credentials, expected=expected, cached=names is not None)
    try:
        fetched = _fetched(uri, store, names, run, partial, expected)
    finally:
        store.close()
    model = _digest_of(fetched.listing, fetched.files)
    try:
        verify(model.digest, request.declared, request.pinned, uri.shown)
    except PermanentFailure:
        keep_only(partial, ())
        raise
    _place(uri, request, run, partial, fetched, model)
    return model


def digest_uri(text: str, run: Run, *, allow_http: bool = False) -> ModelDigest:
    """The digest of what stands behind a URI, streamed and forgotten.

    Raises PermanentFailure or TransientFailure.
    """
    uri = parse_uri(text, allow_http=allow_http)
    store = open_store(uri, run.credentials, expected=None)
    try:
        if uri.scheme == "oci" and (listing := _list(uri, store, run)).digest:
            return _digest_of(listing, ())
        fetched = _stable_snapshot(uri, store, run, None)
    finally:
        store.close()
    return _digest_of(fetched.listing, fetched.files)


@dataclass(frozen=True)
class _Fetched:
    listing: Listing
    files: tuple[FileDigest, ...]
    names: dict[str, str]
    """For each path, the name of its file in the partial folder."""


def _fetched(
    uri: ModelUri,
    store: Store,
    names: CacheNames | None,
    run: Run,
    partial: Path,
    expected: str | None,
) -> _Fetched:
    """The files, by way of the node's cache where there is one; its mistakes are the store's to
    mend.
    """
    if names is None:
        return _stable_snapshot(uri, store, run, partial)
    cached = CachedStore(store, run.cache, names, reads=expected is not None, say=run.say)
    fetched = _stable_snapshot(uri, cached, run, partial)
    if expected in (None, _digest_of(fetched.listing, fetched.files).digest):
        return fetched
    run.say("what was fetched does not have its digest: once more, without the node's cache")
    keep_only(partial, ())
    again = _stable_snapshot(uri, store, run, partial)
    if again.files != fetched.files:
        # Else the digest is wrong, and the cache right: others go on reading what it has.
        cached.forget()
    return again


def _stable_snapshot(uri: ModelUri, store: Store, run: Run, partial: Path | None) -> _Fetched:
    """All files of one listing that still holds when they are fetched."""
    for change in range(MAX_CHANGES + 1):
        listing = _list(uri, store, run)
        names = {file.path: _partial_name(uri, file) for file in listing.files}
        if partial is not None:
            keep_only(partial, names.values())
            _check_free(listing, names, partial)
        try:
            files = _download(store, listing, names, run, partial, uri)
        except Changed:
            run.say(f"{uri.shown} changed while it was read ({change + 1}); starting over")
            if partial is not None:
                _drop_unsized(listing, names, partial)
            continue
        if listing.single or _list(uri, store, run) == listing:
            return _Fetched(listing, files, names)
        run.say(f"the files below {uri.shown} changed while they were read; starting over")
    raise TransientFailure(
        f"{uri.shown} keeps changing while it is read ({MAX_CHANGES + 1} times): wait for the "
        "upload to end, and publish each version under a path of its own."
    )


def _list(uri: ModelUri, store: Store, run: Run) -> Listing:
    listing = run.patience.insist(lambda: store.list(run.limits.max_files))
    if not listing.files:
        raise PermanentFailure(
            f"There is nothing below {uri.shown}: correct the URI or upload the model."
        )
    run.limits.check_files(len(listing.files), uri.shown)
    paths = PathSet(uri.shown)
    for file in listing.files:
        paths.add(safe_path(file.path, uri.shown))
    run.limits.check_bytes(sum(file.size or 0 for file in listing.files), uri.shown)
    return listing


def _check_free(listing: Listing, names: dict[str, str], partial: Path) -> None:
    needed = sum(file.size or 0 for file in listing.files)
    held = sum((partial / name).stat().st_size for name in names.values() if _exists(partial, name))
    check_space(needed - held, partial)


def _drop_unsized(listing: Listing, names: dict[str, str], partial: Path) -> None:
    """Drops unfinished files whose sizes are unknown. One that was cut after its last byte is whole
    without anybody knowing, and would be asked for beyond its end again and again.
    """
    for file in listing.files:
        if file.size is None:
            (partial / names[file.path]).unlink(missing_ok=True)


def _exists(partial: Path, name: str) -> bool:
    return (partial / name).is_file()


def _download(
    store: Store,
    listing: Listing,
    names: dict[str, str],
    run: Run,
    partial: Path | None,
    uri: ModelUri,
) -> tuple[FileDigest, ...]:
    sizes = [file.size for file in listing.files]
    known = sum(size for size in sizes if size is not None) if None not in sizes else None
    count = f"{len(sizes)} {'file' if len(sizes) == 1 else 'files'}"
    run.say(f"fetching {uri.shown}: {count}, {size_text(known) if known is not None else '? B'}")
    progress = Progress(run.say, run.patience.clock)
    progress.expect(known)
    transfer = Transfer(store, run.patience, progress, _counter(run.limits, uri.shown))
    run.patience.stop.clear()

    def one(file: RemoteFile) -> FileDigest:
        if partial is None:
            return transfer.run(file, NoSink())
        sink = FileSink(partial / names[file.path])
        try:
            return transfer.run(file, _as_sink(sink))
        finally:
            sink.close()

    if len(listing.files) == 1:
        return (one(listing.files[0]),)
    with ThreadPoolExecutor(max_workers=run.parallel) as pool:
        running = [pool.submit(one, file) for file in listing.files]
        done, _ = wait(running, return_when=FIRST_EXCEPTION)
        failed = [future for future in done if future.exception() is not None]
        if failed:
            # The others see the flag at their next chunk; what they have stays for a restart.
            run.patience.stop.set()
            pool.shutdown(cancel_futures=True)
            failed[0].result()
        return tuple(future.result() for future in running)


def _as_sink(sink: FileSink) -> Sink:
    return sink


def _counter(limits: Limits, where: str) -> Callable[[int], None]:
    """A thread-safe count of all bytes of the run, held against the limit."""
    lock = threading.Lock()
    total = 0

    def count(more: int) -> None:
        nonlocal total
        with lock:
            total += more
            now = total
        limits.check_bytes(now, where)

    return count


def _digest_of(listing: Listing, files: tuple[FileDigest, ...]) -> ModelDigest:
    if listing.digest is not None:
        total = sum(file.size or 0 for file in listing.files)
        return ModelDigest(listing.digest, total, len(listing.files))
    return file_digest(files[0]) if listing.single else tree_digest(files)


def _place(
    uri: ModelUri,
    request: Request,
    run: Run,
    partial: Path,
    fetched: _Fetched,
    model: ModelDigest,
) -> None:
    """Unpacks what is an archive, lays out, and makes the model visible."""
    sources = {path: partial / name for path, name in fetched.names.items()}
    try:
        seen = unpacked(uri.shown, fetched.listing, fetched.files, sources, partial, run)
    except PermanentFailure:
        keep_only(partial, ())
        raise
    files, sources = seen.files, seen.sources
    places = _places((file.path for file in files), uri, request)
    _check_servable(places, sources, uri, request)
    final = {places[file.path]: (file, sources[file.path]) for file in files}
    marker = Marker(_marked(uri), request.layout, model.digest, model.size, model.files, ())
    place(request.target, final, marker)


def _marked(uri: ModelUri) -> str:
    """The URI as the marker keeps it: a signature must not lie in the model's folder."""
    return "sha256:" + hashlib.sha256(uri.text.encode()).hexdigest()


def _already_there(uri: ModelUri, request: Request, expected: str) -> ModelDigest | None:
    """What an earlier start of this pod placed and verified, if it is what is asked for.

    A node that reboots runs its init containers again; then no store is needed.
    """
    marker = read_marker(request.target)
    if marker is None or marker.digest != expected or marker.layout != request.layout:
        return None
    if marker.uri != _marked(uri) or not still_in_place(request.target, marker):
        return None
    keep_only(request.target / ".partial", ())
    (request.target / ".partial").rmdir()
    return ModelDigest(marker.digest, marker.bytes, marker.files)


def _verify_claim(uri: ModelUri, request: Request, run: Run) -> ModelDigest:
    """Looks at a claim that the kubelet has mounted, and verifies it in place."""
    if not request.target.exists():
        raise PermanentFailure(
            f"{uri.shown} is not mounted at {request.target}, or the path is not on the claim: "
            "check the path."
        )
    last = uri.path.rstrip("/").rsplit("/", 1)[-1]
    if request.target.is_file() and archive_kind(last) is not None:
        raise PermanentFailure(
            f"{uri.shown} is an archive on a read-only claim, where it cannot be unpacked: unpack "
            "it on the claim and name the folder."
        )
    _check_claim_layout(uri, request)
    progress = Progress(run.say, run.patience.clock)
    model = digest_path(request.target, limits=run.limits, inside_only=True, on_bytes=progress.add)
    verify(model.digest, request.declared, request.pinned, uri.shown)
    return model


def _check_claim_layout(uri: ModelUri, request: Request) -> None:
    """A claim is mounted read-only, so that nothing can be laid out on it.

    A SavedModel's folder and a model archive are mounted where their server looks for them.
    """
    if request.layout == "flat" or request.target.is_file():
        return
    files = {
        path.relative_to(request.target).as_posix(): path
        for path in request.target.rglob("*")
        if path.is_file()
    }
    places = _places(files, uri, request)
    if request.layout == "tfserving":
        if any(place != f"{request.model_version}/{path}" for path, place in places.items()):
            raise PermanentFailure(
                f"{uri.shown} is not the folder of a SavedModel (which holds {FILE}): name that "
                "folder."
            )
        _check_servable(places, files, uri, request)
    elif any(path != place for path, place in places.items()):
        raise PermanentFailure(
            f"{uri.shown} is not a Triton model repository for {request.model_name}, and on a "
            f"read-only claim none can be made: put the model at {request.model_name}/1/ below "
            "that path."
            if request.layout == "triton"
            else f"{uri.shown} holds a model archive of another name than {request.model_name}.mar,"
            " and on a read-only claim it cannot be renamed: name the archive itself in the URI."
        )


def _check_names(request: Request) -> None:
    """Names become folders and files of the target, so they must be plain."""
    if request.layout in ("triton", "torchserve") and not _MODEL_NAME.match(request.model_name):
        raise PermanentFailure(
            f"The layout {request.layout} needs a --model-name of letters, digits, '.', '_' and "
            f"'-', not {request.model_name[:120]!a}."
        )
    if request.layout == "tfserving" and not _MODEL_VERSION.match(request.model_version):
        raise PermanentFailure(
            "The layout tfserving needs a --model-version that is a number, not "
            f"{request.model_version[:120]!a}."
        )


def _places(paths: Iterable[str], uri: ModelUri, request: Request) -> dict[str, str]:
    return laid_out(
        paths, request.layout, request.model_name, version=request.model_version, where=uri.shown
    )


def _check_servable(
    places: Mapping[str, str], files: Mapping[str, Path], uri: ModelUri, request: Request
) -> None:
    """A SavedModel without a signature is refused before a server claims to serve it."""
    if request.layout == "tfserving":
        wanted = f"{request.model_version}/{FILE}"
        for path, place in places.items():
            if place == wanted:
                check_servable(files[path], uri.shown)


def _partial_name(uri: ModelUri, file: RemoteFile) -> str:
    """The file of unfinished bytes: named by what they are, so that nothing else is continued.

    Without a version nothing vouches for the rest, and after a reboot nothing vouches for what
    the disk kept: then the name is new, and the old bytes are dropped.
    """
    try:
        boot = _BOOT_ID.read_text().strip()
    except OSError:
        boot = uuid.uuid4().hex
    version = file.version or uuid.uuid4().hex
    identity = "\0".join((boot, uri.text, file.key, version, str(file.size)))
    return hashlib.sha256(identity.encode()).hexdigest()
