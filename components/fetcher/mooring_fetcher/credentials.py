"""What a Secret, mounted as a folder with one file per key, says about reaching a store.

The Secret is mounted as optional, so that its absence is told by a sentence here and not by a
pod that hangs in ContainerCreating. Key names are those that KServe's users have in their
Secrets already.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from mooring_fetcher.failure import PermanentFailure

MAX_KEY_BYTES = 1 << 20
"""The size limit of a whole Secret in Kubernetes."""

_PEM = "-----BEGIN "
_SENSITIVE = (
    "AWS_ACCESS_KEY_ID",
    "awsAccessKeyID",
    "AWS_SECRET_ACCESS_KEY",
    "awsSecretAccessKey",
    "AWS_SESSION_TOKEN",
    "gcloud-application-credentials.json",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_CLIENT_SECRET",
    "HF_TOKEN",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
    ".dockerconfigjson",
    "token",
    "password",
    "MOORING_CACHE_KEY",
)


@dataclass(frozen=True)
class S3Credentials:
    """Without an access key, botocore's own chain is asked, and then nobody (public buckets)."""

    access_key: str | None = None
    secret_key: str | None = None
    session_token: str | None = None
    endpoint: str | None = None
    region: str | None = None
    verify: bool | str = True
    virtual_hosts: bool = False


@dataclass(frozen=True)
class HttpsCredentials:
    """``authorization`` is the header's whole value."""

    authorization: str | None = None
    ca_file: str | None = None


@dataclass(frozen=True)
class Credentials:
    """The keys of one Secret; empty where none was given."""

    name: str = ""
    values: tuple[tuple[str, str], ...] = ()
    folder: Path | None = None

    def get(self, *keys: str) -> str | None:
        """The first of the keys that has a value."""
        held = dict(self.values)
        return next((held[key] for key in keys if held.get(key)), None)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every value that must never be printed."""
        held = [value for key, value in self.values if key in _SENSITIVE]
        basic = self.https_authorization()
        return tuple(held) + ((basic.split(" ", 1)[1],) if basic else ())

    def s3(self) -> S3Credentials:
        """Raises PermanentFailure when half of a key pair is missing."""
        access = self.get("AWS_ACCESS_KEY_ID", "awsAccessKeyID")
        secret = self.get("AWS_SECRET_ACCESS_KEY", "awsSecretAccessKey")
        if bool(access) != bool(secret):
            missing = "AWS_SECRET_ACCESS_KEY" if access else "AWS_ACCESS_KEY_ID"
            raise PermanentFailure(
                f"{self.shown} has no key {missing}: S3 needs both AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY."
            )
        endpoint = self.get("AWS_ENDPOINT_URL")
        if endpoint and not endpoint.lower().startswith(("http://", "https://")):
            raise PermanentFailure(
                f"{self.shown} has an AWS_ENDPOINT_URL that is not a URL: write "
                "https://host[:port]."
            )
        verify: bool | str = not _is_false(self.get("S3_VERIFY_SSL"))
        return S3Credentials(
            access_key=access,
            secret_key=secret,
            session_token=self.get("AWS_SESSION_TOKEN"),
            endpoint=endpoint,
            region=self.get("AWS_DEFAULT_REGION", "AWS_REGION"),
            verify=(self.ca_file() or True) if verify else False,
            virtual_hosts=_is_true(self.get("S3_USE_VIRTUAL_BUCKET")),
        )

    def https(self) -> HttpsCredentials:
        """Raises PermanentFailure when a password has no user or the other way round."""
        user, password = self.get("username"), self.get("password")
        if bool(user) != bool(password) and not self.get("token"):
            missing = "password" if user else "username"
            raise PermanentFailure(
                f"{self.shown} has no key {missing}: https needs username and password, or token."
            )
        return HttpsCredentials(self.https_authorization(), self.ca_file())

    def https_authorization(self) -> str | None:
        """The Authorization header that the Secret's keys amount to."""
        if token := self.get("token"):
            return f"Bearer {token}"
        user, password = self.get("username"), self.get("password")
        if user and password:
            return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        return None

    def endpoint(self, *keys: str) -> str | None:
        """The URL that one of the keys holds, without a closing slash.

        Raises PermanentFailure for what is no URL.
        """
        url = self.get(*keys)
        if url and not url.lower().startswith(("http://", "https://")):
            raise PermanentFailure(
                f"{self.shown} has a key {keys[0]} that is not a URL: write https://host[:port]."
            )
        return url.rstrip("/") if url else None

    @property
    def shown(self) -> str:
        """What messages call the Secret."""
        if self.name:
            return f"Secret {self.name}"
        return "The credentials folder" if self.folder else "No Secret"

    def ca_file(self) -> str | None:
        """Further authorities to trust, as a path.

        A key may hold the certificates themselves or name a file that is mounted elsewhere. Raises
        PermanentFailure when it does neither.
        """
        for key in ("AWS_CA_BUNDLE", "ca.crt"):
            value = self.get(key)
            if value is None or self.folder is None:
                continue
            if value.startswith(_PEM):
                return str(self.folder / key)
            if Path(value).is_file():
                return value
            raise PermanentFailure(
                f"{self.shown} has a key {key} that is neither PEM certificates nor a file in "
                "this container: put the certificates themselves into it."
            )
        return None


def read_credentials(folder: Path | None, name: str = "") -> Credentials:
    """The Secret mounted at `folder`.

    With a `name` there must be one. Raises PermanentFailure when it is missing, empty or not
    text.
    """
    values: dict[str, str] = {}
    if folder is not None and folder.is_dir():
        for file in sorted(folder.iterdir()):
            # Names with two dots in front are the kubelet's own links.
            if file.name.startswith("..") or not file.is_file():
                continue
            values[file.name] = _read_key(file, name)
    if name and not any(values.values()):
        raise PermanentFailure(
            f"Secret {name} was not found or is empty: create it in the namespace of the "
            "ModelDeployment (keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3; token, or "
            "username and password, for https; docs/stores.md has those of all stores), or correct "
            "spec.model.credentials.secretName."
        )
    return Credentials(name, tuple(values.items()), folder)


def _read_key(file: Path, name: str) -> str:
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_KEY_BYTES).decode().strip()
    except UnicodeDecodeError:
        raise PermanentFailure(
            f"Secret {name or file.parent} has a key {file.name} that is not text: store it again "
            "as plain text."
        ) from None
    except OSError as error:
        raise PermanentFailure(
            f"Secret {name or file.parent}: the key {file.name} cannot be read "
            f"({error.strerror}): the pod's fsGroup must allow it."
        ) from None


def _is_false(text: str | None) -> bool:
    return text is not None and text.lower() in ("0", "false", "no", "off")


def _is_true(text: str | None) -> bool:
    return text is not None and text.lower() in ("1", "true", "yes", "on")
