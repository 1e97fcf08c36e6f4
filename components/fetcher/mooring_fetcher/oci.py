"""The oci store: images and artifacts in a registry, by the OCI distribution API.

Every byte is held against a digest, from the manifest down, so what is fetched is what the manifest
names, whoever runs the registry. The model's digest is that of what the URI names (a manifest, or
an index), as ``crane digest`` and ``image@sha256:…`` have it.

Layers with a title are files, as ORAS pushes them; layers without one are unpacked one over the
other, as an image's are.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from dataclasses import dataclass
from typing import Any, Literal

from mooring_fetcher.body import HttpBody
from mooring_fetcher.credentials import Credentials
from mooring_fetcher.failure import PermanentFailure
from mooring_fetcher.oci_access import RegistryAccess
from mooring_fetcher.store import Listing, RemoteFile
from mooring_fetcher.uri import ModelUri
from mooring_fetcher.web import Answer, Web, rest_of, shown_origin

_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_TITLE = "org.opencontainers.image.title"
_ANNOTATIONS = "annotations"
_UNPACK = "io.deis.oras.content.unpack"
_EMPTY = "application/vnd.oci.empty.v1+json"
_LAYER = re.compile(
    r"^application/vnd\.(?:oci\.image\.layer\.v1\.tar|docker\.image\.rootfs\.diff\.tar)"
    r"(?P<how>[+.]\w+)?$"
)
_DIGEST = re.compile(r"^sha256:[0-9a-f]{64}$")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le", "s390x": "s390x"}


@dataclass(frozen=True)
class _Manifest:
    digest: str
    kind: str
    held: dict[str, Any]


class OciStore:
    """Implements :class:`mooring_fetcher.store.Store`."""

    def __init__(
        self, uri: ModelUri, credentials: Credentials, *, expected: str | None = None
    ) -> None:
        """`expected` is the digest that is declared or pinned: then that is what is asked for, and
        where the tag has moved since does not matter.
        """
        tag, _, digest = uri.qualifier.partition("@")
        if digest and expected and digest != expected:
            raise PermanentFailure(
                f"{uri.shown} names another digest than {expected}, which is declared or pinned: "
                "make them agree."
            )
        self._uri = uri
        self._reference = expected or digest or tag
        self._web = Web(ca_file=credentials.ca_file(), shown=credentials.shown)
        self._access = RegistryAccess.of(uri, credentials, self._web)

    def list(self, max_files: int) -> Listing:
        top = self._manifest(self._reference)
        image = top
        if top.kind in _INDEXES:
            image = self._manifest(self._for_this_machine(top))
        if image.kind not in _MANIFESTS:
            raise PermanentFailure(
                f"{self._uri.shown} is of the kind {image.kind[:100]!a}, which is neither an image "
                "nor an artifact: push it as one."
            )
        layers = [layer for layer in _list_of(image.held, "layers") if _is_content(layer)]
        # One that is there twice counts where it stands last, since it covers what is in between.
        last = {str(layer.get("digest")): index for index, layer in enumerate(layers)}
        files = tuple(
            self._file(layer, index)
            for index, layer in enumerate(layers)
            if _part(layer, _ANNOTATIONS).get(_TITLE) or last[str(layer.get("digest"))] == index
        )
        single = len(files) == 1 and files[0].unpack is None
        return Listing(single, files, top.digest)

    def open(self, file: RemoteFile, offset: int) -> HttpBody:
        # The digest fixes the bytes, so no condition is needed for the rest of them.
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        answer = self._ok(self._access.get(f"/blobs/{file.key}", headers), file.key)
        if answer.status == 200 and answer.length not in (None, file.size):
            answer.close()
            raise self._damaged(file, answer.length)
        if answer.status in (412, 416):
            answer.close()
            raise self._damaged(file, None)
        return rest_of(answer, file, offset, self._uri.shown)

    def close(self) -> None:
        self._web.close()

    def _manifest(self, reference: str) -> _Manifest:
        """A manifest or index, verified if it is asked for by its digest."""
        accepted = {"Accept": ", ".join(_MANIFESTS + _INDEXES)}
        answer = self._ok(self._access.get(f"/manifests/{reference}", accepted), reference)
        text = answer.read()
        found = f"sha256:{hashlib.sha256(text).hexdigest()}"
        if _DIGEST.match(reference) and found != reference:
            raise PermanentFailure(
                f"{self._uri.host} was asked for {reference} and sent a manifest with the digest "
                f"{found}: what it holds is damaged, or something on the way changes it; push the "
                "model again."
            )
        try:
            held = json.loads(text)
            kind = str(held.get("mediaType") or answer.headers.get("Content-Type", ""))
        except (ValueError, AttributeError, RecursionError):
            raise PermanentFailure(
                f"{self._uri.host} did not answer with a manifest, so it is no registry: check the "
                "host in the URI."
            ) from None
        return _Manifest(found, kind.partition(";")[0].strip(), held)

    def _for_this_machine(self, index: _Manifest) -> str:
        """The digest of the entry for this platform; a lone entry is for all of them."""
        entries = [
            entry
            for entry in _list_of(index.held, "manifests")
            # Attestations and signatures are entries, too.
            if _part(entry, "platform").get("os") != "unknown"
        ]
        machine = _ARCHITECTURES.get(platform.machine(), platform.machine())
        fitting = [
            entry
            for entry in entries
            if _part(entry, "platform").get("os") == "linux"
            and _part(entry, "platform").get("architecture") == machine
        ]
        chosen = fitting or (entries if len(entries) == 1 else [])
        digest = str(chosen[0].get("digest", "")) if chosen else ""
        if not _DIGEST.match(digest):
            raise PermanentFailure(
                f"{self._uri.shown} is an index of {len(entries)} manifests, and none of them is "
                f"for linux/{machine}: push the model for that platform, or for none."
            )
        return digest

    def _file(self, layer: dict[str, Any], index: int) -> RemoteFile:
        digest, size = str(layer.get("digest", "")), layer.get("size")
        if not _DIGEST.match(digest) or not isinstance(size, int) or size < 0:
            raise PermanentFailure(
                f"{self._uri.shown} has a layer {digest[:100]!a} without a sha256 digest or a "
                "size: push it again with a current tool."
            )
        annotations = _part(layer, _ANNOTATIONS)
        title = str(annotations.get(_TITLE, ""))
        kind: Literal["tar", "tar.gz"] | None = None
        if not title or str(annotations.get(_UNPACK, "")).lower() == "true":
            kind = self._packing(str(layer.get("mediaType", "")))
            title = f"layer-{index:03d}"
        return RemoteFile(title, digest, size, digest, digest.partition(":")[2], kind)

    def _packing(self, media_type: str) -> Literal["tar", "tar.gz"]:
        match = _LAYER.match(media_type)
        how = (match["how"] or "")[1:] if match else ""
        if match and how in ("", "gzip"):
            return "tar.gz" if how else "tar"
        raise PermanentFailure(
            f"{self._uri.shown} has a layer of the kind {media_type[:100]!a} and without a title: "
            "only tar and tar+gzip are unpacked; push files by `oras push`, or an image with gzip."
        )

    def _damaged(self, file: RemoteFile, length: int | None) -> PermanentFailure:
        holds = f"{length} bytes" if length is not None else "fewer bytes"
        return PermanentFailure(
            f"{self._uri.host} holds {holds} of the layer {file.key}, which has {file.size}: its "
            "upload was cut short; push the model again."
        )

    def _ok(self, answer: Answer, reference: str) -> Answer:
        """The answer, if it is one that can be used; else raises what its status means."""
        return answer.usable(
            f"{self._uri.shown}: {self._uri.host}",
            lambda refused: self._meaning(refused, reference),
        )

    def _meaning(self, answer: Answer, reference: str) -> PermanentFailure:
        code = _code(answer.words())
        # Blobs may lie elsewhere: of a redirect, the host that answered is the news.
        at = f"{shown_origin(answer.url)} answered {answer.status}{' ' + code if code else ''}"
        repository, who = self._uri.path, self._access.who
        if answer.status == 401:
            return PermanentFailure(
                f"{self._uri.host} does not let {who} pull {repository} ({at}): name a Secret with "
                "its credentials (a .dockerconfigjson) in spec.model.credentials.secretName, or "
                "correct them."
            )
        if answer.status == 403:
            return PermanentFailure(
                f"Access to {repository} is denied to {who} ({at}): allow it to pull, or check "
                "that the repository exists, since many registries do not tell the two apart."
            )
        if answer.status == 404 and "/blobs/" in answer.url:
            return PermanentFailure(
                f"{self._uri.shown} names the layer {reference}, which {self._uri.host} does not "
                f"hold ({at}): push the model again."
            )
        if answer.status == 404:
            return PermanentFailure(
                f"{self._uri.host} has no {reference} in the repository {repository} ({at}): "
                "correct the URI or the digest, or push the model."
            )
        return PermanentFailure(f"{at} for {self._uri.shown}: check the URI and the Secret.")


def _list_of(held: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = held.get(key)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _part(held: dict[str, Any], key: str) -> dict[str, Any]:
    found = held.get(key)
    return found if isinstance(found, dict) else {}


def _is_content(layer: dict[str, Any]) -> bool:
    return layer.get("mediaType") != _EMPTY


def _code(text: str) -> str:
    """The first error code of a registry's answer, such as MANIFEST_UNKNOWN."""
    try:
        code = json.loads(text)["errors"][0]["code"]
    except (ValueError, KeyError, TypeError, IndexError):
        return ""
    return str(code)[:60]
