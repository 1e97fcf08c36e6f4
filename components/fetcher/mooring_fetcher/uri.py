"""Model URIs: what they look like and which are understood.

Parsing is strict and never decodes more than a scheme demands: an S3 key is taken literally (it
may contain ``%``, ``?`` and ``#``), an https path is decoded only to find the file's name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote, urlsplit

from mooring_fetcher.failure import PermanentFailure, redact

Scheme = Literal["s3", "gs", "az", "hf", "oci", "https", "http", "pvc", "mlflow"]

MLFLOW_ARTIFACTS = "api/2.0/mlflow-artifacts/artifacts"

MAX_URI = 2048
"""Characters: more than any store takes, and a bound for messages."""

_KNOWN = "s3, gs, az, hf, oci, https or pvc"
_BUCKET = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$")
_CONTAINER = re.compile(r"^(\$root|\$web|[a-z0-9]([a-z0-9-]{1,61}[a-z0-9]))$")
_ACCOUNT = re.compile(r"^[a-z0-9]{3,24}$")
_ACCOUNT_HOST = re.compile(
    r"^([a-z0-9]{3,24})\.(?:blob|dfs)"
    r"\.(core\.windows\.net|core\.chinacloudapi\.cn|core\.usgovcloudapi\.net)$"
)
_OCI = re.compile(
    r"^(?P<host>[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?)"
    r"/(?P<name>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)"
    r"(?P<reference>:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}(@sha256:[0-9a-f]{64})?|@sha256:[0-9a-f]{64})$"
)
_HF_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")
_HF_REVISION = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,255}$")
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
    """A parsed URI. ``host`` is a bucket, a container, a repository on the Hub (``org/repo``), a
    host with port (https; oci's registry), the address of an MLflow server, or a claim; ``path``
    (oci's repository) never starts with a slash and keeps a closing one, which makes a prefix
    explicit. ``qualifier`` is the storage account's host or name (az), the
    revision (hf), or the tag, the digest after an ``@``, or both (oci); empty where the URI names
    none.
    """

    text: str
    scheme: Scheme
    host: str
    path: str
    qualifier: str = ""

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
            f"The model URI {shown!r} has no scheme: write s3://bucket/path, gs://bucket/path, "
            "az://container@account/path, hf://org/repo, oci://registry/repository:tag, "
            "https://host/path or pvc://claim/path."
        )
    if parser := _PARSERS.get(scheme):
        return parser(text, rest)
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
    if scheme == "mlflow":
        raise PermanentFailure(
            f"The model URI {shown} is a name, which the operator follows by way of the registry: "
            f"here, write where that version's files are, by {_KNOWN}."
        )
    raise PermanentFailure(
        f"The model URI {shown} uses the unknown scheme {scheme[:40]!r}: use {_KNOWN}."
    )


def _parse_s3(text: str, rest: str) -> ModelUri:
    bucket, _, key = rest.partition("/")
    if not _BUCKET.match(bucket):
        raise PermanentFailure(
            f"The model URI {redact(text)!r} does not name a bucket: write s3://bucket/path, with "
            "a host and credentials in the Secret (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, …)."
        )
    return ModelUri(text, "s3", bucket, key)


def _parse_gs(text: str, rest: str) -> ModelUri:
    bucket, _, name = rest.partition("/")
    if not _BUCKET.match(bucket):
        raise PermanentFailure(
            f"The model URI {redact(text)!r} does not name a bucket: write gs://bucket/path."
        )
    return ModelUri(text, "gs", bucket, name)


def _parse_az(text: str, rest: str) -> ModelUri:
    place, _, name = rest.partition("/")
    container, mark, account = place.partition("@")
    if not _CONTAINER.match(container):
        raise PermanentFailure(
            f"The model URI {redact(text)!r} does not name a container (3 to 63 lower-case "
            "letters, digits and '-'): write az://container@account/path."
        )
    if mark and not _ACCOUNT.match(account) and not _ACCOUNT_HOST.match(account):
        raise PermanentFailure(
            f"The model URI {redact(text)!r} does not name a storage account: write "
            "az://container@account/path, with an endpoint of one's own in the Secret "
            "(AZURE_STORAGE_BLOB_ENDPOINT)."
        )
    return ModelUri(text, "az", container, name, account)


def _parse_hf(text: str, rest: str) -> ModelUri:
    parts = rest.split("/", 2)
    repository, mark, revision = parts[1].partition("@") if len(parts) > 1 else ("", "", "")
    if not _HF_NAME.match(parts[0]) or not _HF_NAME.match(repository):
        raise PermanentFailure(
            f"The model URI {redact(text)!r} does not name a repository: write "
            "hf://organisation/repository, with @revision and /path if need be."
        )
    revision = revision.replace("%2F", "/").replace("%2f", "/")
    if mark and (not _HF_REVISION.match(revision) or ".." in revision):
        raise PermanentFailure(
            f"The model URI {redact(text)!r} does not name a revision after '@': write a branch, a "
            "tag or a commit (a '/' in its name as %2F)."
        )
    path = parts[2] if len(parts) > 2 else ""
    if any(part in (".", "..") for part in path.split("/")):
        raise PermanentFailure(
            f"The model URI {text!r} has '.' or '..' in its path: write the plain path."
        )
    return ModelUri(text, "hf", f"{parts[0]}/{repository}", path, revision)


def _parse_oci(text: str, rest: str) -> ModelUri:
    match = _OCI.match(rest)
    if match is None:
        raise PermanentFailure(
            f"The model URI {redact(text)!r} does not name an image or artifact: write "
            "oci://registry/repository:tag, or @sha256:… in place of the tag or after it."
        )
    return ModelUri(text, "oci", match["host"], match["name"], match["reference"].removeprefix(":"))


def account_of(qualifier: str) -> tuple[str, str]:
    """The storage account that an az URI names, and its cloud's domain (empty where not said)."""
    match = _ACCOUNT_HOST.match(qualifier)
    return (match[1], match[2]) if match else (qualifier, "")


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


def _parse_mlflow(text: str, url: str) -> ModelUri:
    """What the operator writes for ``mlflow-artifacts:/path``: the server's address with it."""
    server, mark, path = url.partition(f"/{MLFLOW_ARTIFACTS}/")
    try:
        parts = urlsplit(server)
        fits = bool(parts.hostname) and parts.username is None and parts.port != 0
    except ValueError:
        fits = False
    if not mark or not fits or not path or any(p in (".", "..") for p in path.split("/")):
        raise PermanentFailure(
            f"The model URI {redact(text)!r} is none of an MLflow server's artifacts: write "
            f"mlflow-artifacts+https://host/{MLFLOW_ARTIFACTS}/path."
        )
    return ModelUri(text, "mlflow", server, path)


_PARSERS: Mapping[str, Callable[[str, str], ModelUri]] = {
    "s3": _parse_s3,
    "gs": _parse_gs,
    "az": _parse_az,
    "abfs": _parse_az,
    "abfss": _parse_az,
    "hf": _parse_hf,
    "oci": _parse_oci,
    "pvc": _parse_pvc,
    "mlflow-artifacts+https": lambda text, rest: _parse_mlflow(text, f"https://{rest}"),
    "mlflow-artifacts+http": lambda text, rest: _parse_mlflow(text, f"http://{rest}"),
}


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
