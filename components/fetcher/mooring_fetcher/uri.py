"""Model URIs: what they look like and which are understood.

Parsing is strict and never decodes more than a scheme demands: an S3 key is taken literally (it
may contain ``%``, ``?`` and ``#``), an https path is decoded only to find the file's name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote, urlsplit

from mooring_fetcher.failure import PermanentFailure, redact

Scheme = Literal["s3", "https", "http", "pvc"]

MAX_URI = 2048
"""Characters: more than any store takes, and a bound for messages."""

_LATER = {"oci", "gs", "az", "abfs", "abfss", "hf", "mlflow"}
_BUCKET = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$")
_CLAIM = re.compile(r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_ARCHIVES: tuple[tuple[str, Literal["tar", "tar.gz", "zip"]], ...] = (
    (".tar.gz", "tar.gz"),
    (".tgz", "tar.gz"),
    (".tar", "tar"),
    (".zip", "zip"),
)


@dataclass(frozen=True)
class ModelUri:
    """A parsed URI. ``host`` is a bucket, a host with port, or a claim; ``path`` never starts
    with a slash and keeps a closing one, which makes an S3 prefix explicit.
    """

    text: str
    scheme: Scheme
    host: str
    path: str

    @property
    def shown(self) -> str:
        """For messages: without a query string, which may be a signature."""
        return redact(self.text)


def parse_uri(text: str, *, allow_http: bool = False) -> ModelUri:
    """Understands a model URI, or says in one sentence why not.

    Raises PermanentFailure.
    """
    shown = redact(text[:200])
    if len(text) > MAX_URI:
        raise PermanentFailure(f"The model URI has {len(text)} characters; at most {MAX_URI} go.")
    if _FORBIDDEN.search(text) or text != text.strip():
        raise PermanentFailure(
            f"The model URI {shown!r} contains control characters or outer spaces: remove them."
        )
    scheme, mark, rest = text.partition("://")
    scheme = scheme.lower()
    if not mark:
        raise PermanentFailure(
            f"The model URI {shown!r} has no scheme: write s3://bucket/path, https://host/path "
            "or pvc://claim/path."
        )
    if scheme == "s3":
        return _parse_s3(text, rest)
    if scheme == "pvc":
        return _parse_pvc(text, rest)
    if scheme in ("https", "http"):
        if scheme == "http" and not allow_http:
            raise PermanentFailure(
                f"The model URI {shown} uses plain http, which anyone on the way can change: "
                "use https."
            )
        return _parse_http(text, "https" if scheme == "https" else "http")
    if scheme == "file":
        raise PermanentFailure(
            f"The model URI {shown} names a file in the server's own image: nothing is fetched "
            "for it, so the fetcher must not be started."
        )
    if scheme in _LATER:
        raise PermanentFailure(
            f"The model URI {shown} uses {scheme}://, which this version cannot fetch: use s3, "
            "https or pvc."
        )
    raise PermanentFailure(
        f"The model URI {shown} uses the unknown scheme {scheme[:40]!r}: use s3, https or pvc."
    )


def _parse_s3(text: str, rest: str) -> ModelUri:
    bucket, _, key = rest.partition("/")
    if not _BUCKET.match(bucket):
        raise PermanentFailure(
            f"The model URI {redact(text)!r} does not name a bucket: write s3://bucket/path, with "
            "a host and credentials in the Secret (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, …)."
        )
    return ModelUri(text, "s3", bucket, key)


def _parse_pvc(text: str, rest: str) -> ModelUri:
    claim, _, path = rest.partition("/")
    if not _CLAIM.match(claim):
        raise PermanentFailure(
            f"The model URI {text!r} does not name a PersistentVolumeClaim: write pvc://claim/path."
        )
    if any(part in (".", "..") for part in path.split("/")):
        raise PermanentFailure(
            f"The model URI {text!r} has '.' or '..' in its path: write the plain path."
        )
    return ModelUri(text, "pvc", claim, path)


def _parse_http(text: str, scheme: Literal["https", "http"]) -> ModelUri:
    shown = redact(text)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise PermanentFailure(f"The model URI {shown!r} is not a URL: {error}.") from None
    if not host or " " in parts.netloc or port == 0:
        raise PermanentFailure(f"The model URI {shown!r} names no host: write https://host/path.")
    if parts.username is not None or parts.password is not None:
        raise PermanentFailure(
            f"The model URI {shown} carries a user or password: put them into a Secret (keys "
            "username and password, or token) and name it in spec.model.credentials.secretName."
        )
    if parts.fragment:
        raise PermanentFailure(f"The model URI {shown} has a fragment ('#…'): leave it out.")
    if not file_name(parts.path):
        raise PermanentFailure(
            f"The model URI {shown} ends in no file name: https fetches one file or archive, so "
            "name it."
        )
    return ModelUri(text, scheme, parts.netloc, parts.path.removeprefix("/"))


def file_name(url_path: str) -> str:
    """The decoded last segment of an https path; empty where there is no usable one."""
    name = unquote(url_path.rsplit("/", 1)[-1], errors="surrogateescape")
    if name in (".", "..") or "/" in name or "\\" in name or _FORBIDDEN.search(name):
        return ""
    return name


def archive_kind(name: str) -> Literal["tar", "tar.gz", "zip"] | None:
    """Which archive a file name announces. A ``.mar`` is a zip that TorchServe wants whole."""
    lowered = name.lower()
    return next((kind for suffix, kind in _ARCHIVES if lowered.endswith(suffix)), None)
