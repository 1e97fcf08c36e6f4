"""The S3 store: one object, or all below a prefix, at AWS or any server that speaks S3.

botocore does the protocol (signing, addressing, regions, credential chain). Its retries are
switched off: one policy with one bound on the whole time covers all stores and also the bodies,
which botocore does not retry (:mod:`mooring_fetcher.patience`). Of boto3 nothing would be used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import botocore.session
from botocore import exceptions as aws
from botocore.config import Config

from mooring_fetcher.body import HttpBody, broken
from mooring_fetcher.credentials import Credentials, S3Credentials
from mooring_fetcher.failure import (
    Changed,
    Interruption,
    PermanentFailure,
    TransientFailure,
    redact,
)
from mooring_fetcher.objects import pages
from mooring_fetcher.store import Listing, RemoteFile
from mooring_fetcher.uri import ModelUri

CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 30.0
CONNECTIONS = 16

_NOT_FOUND = {"NoSuchKey", "404", "NotFound"}
_DENIED = {"AccessDenied", "403", "Forbidden", "AllAccessDisabled", "AccountProblem"}
_CHANGED = {"PreconditionFailed", "412", "InvalidRange", "416"}
_RETRIED = {
    "SlowDown",
    "RequestTimeout",
    "RequestTimeTooSkewed",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "RequestLimitExceeded",
    "OperationAborted",
}
_UNKNOWN_KEY = {
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidToken",
    "XAdminUserNotFound",  # versitygw
}
_REGION = {
    "PermanentRedirect",
    "301",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
}


@dataclass(frozen=True)
class _Place:
    """The words that messages use."""

    uri: str
    bucket: str
    endpoint: str
    secret: str


class S3Store:
    """Implements :class:`mooring_fetcher.store.Store`."""

    def __init__(self, uri: ModelUri, credentials: Credentials, *, ahead: bool = True) -> None:
        """`ahead`: a listing of one object asks for its bytes, which saves a request."""
        held = credentials.s3()
        self._bucket = uri.host
        self._key = uri.path
        self._place = _Place(
            uri=uri.shown,
            bucket=uri.host,
            endpoint=redact(held.endpoint or os.environ.get("AWS_ENDPOINT_URL", "") or "AWS"),
            secret=credentials.shown if credentials.values else "",
        )
        self._client = self._ask(lambda: _client(held))
        self._ahead = ahead
        self._listed: HttpBody | None = None
        """The answer of `list` to a single object, kept for the first `open`."""

    def list(self, max_files: int) -> Listing:
        self._drop_listed()
        prefix = self._key if not self._key or self._key.endswith("/") else f"{self._key}/"
        if prefix == self._key:
            return self._list_prefix(prefix, max_files)
        try:
            return self._list_object()
        except PermanentFailure as failure:
            # Without the right to list, S3 answers "denied" for what does not exist; and a key
            # that is a prefix need not be readable itself.
            if not isinstance(failure, _NoObject):
                raise
            try:
                tree = self._list_prefix(prefix, max_files)
            except _NoObject:
                raise PermanentFailure(str(failure)) from None
            if tree.files:
                return tree
            raise PermanentFailure(str(failure)) from None

    def open(self, file: RemoteFile, offset: int) -> HttpBody:
        listed, self._listed = self._listed, None
        if listed is not None:
            if offset == 0:
                return listed
            listed.close()
        wanted: dict[str, str] = {"IfMatch": file.version} if file.version else {}
        if offset:
            wanted["Range"] = f"bytes={offset}-"
        answer = self._ask(
            lambda: self._client.get_object(Bucket=self._bucket, Key=file.key, **wanted)
        )
        body = self._body(answer, offset)
        if body.end != file.size or file.version not in (None, answer.get("ETag")):
            body.close()
            raise Changed
        return body

    def close(self) -> None:
        self._drop_listed()
        self._client.close()

    def _list_object(self) -> Listing:
        answer = None if self._ahead else self._head()
        if answer is None:
            answer = self._ask(lambda: self._client.get_object(Bucket=self._bucket, Key=self._key))
            self._listed = self._body(answer, 0)
        name = self._key.rsplit("/", 1)[-1]
        file = RemoteFile(name, self._key, int(answer["ContentLength"]), _version(answer))
        return Listing(True, (file,))

    def _head(self) -> Any:
        """What is said of the object; None for a refusal, of which only a GET tells the reason."""
        try:
            return self._ask(lambda: self._client.head_object(Bucket=self._bucket, Key=self._key))
        except PermanentFailure:
            return None

    def _list_prefix(self, prefix: str, max_files: int) -> Listing:
        files = pages(lambda mark: self._page(prefix, mark), max_files)
        return Listing(False, tuple(sorted(files, key=lambda file: file.path)))

    def _page(self, prefix: str, mark: str) -> tuple[Sequence[RemoteFile], str]:
        """The files of one page of a listing, and the mark of the next; empty at the end."""
        more = {"ContinuationToken": mark} if mark else {}
        page = partial(self._client.list_objects_v2, Bucket=self._bucket, Prefix=prefix, **more)
        answer = self._ask(page)
        files: list[RemoteFile] = []
        for entry in answer.get("Contents", ()):
            key, size = entry["Key"], int(entry["Size"])
            # Consoles create empty objects whose names end in a slash to show a folder.
            if not (key.endswith("/") and size == 0):
                files.append(RemoteFile(key[len(prefix) :], key, size, _version(entry)))
        following = answer.get("NextContinuationToken", "") if answer.get("IsTruncated") else ""
        return files, following

    def _body(self, answer: Any, offset: int) -> HttpBody:
        length = int(answer["ContentLength"])
        status = answer["ResponseMetadata"]["HTTPStatusCode"]
        start = offset if status == 206 else 0
        # botocore's wrapper can only block until a whole chunk is there; the urllib3 response
        # inside gives what has arrived.
        raw = answer["Body"]._raw_stream  # noqa: SLF001
        return HttpBody(raw, start, start + length, self._place.endpoint)

    def _ask(self, request: Callable[[], Any]) -> Any:
        try:
            return request()
        except aws.ClientError as error:
            raise _explain(error, self._place) from None
        except (aws.BotoCoreError, ValueError, OSError) as error:
            raise _explain_local(error, self._place) from None

    def _drop_listed(self) -> None:
        if self._listed is not None:
            self._listed.close()
            self._listed = None


class _NoObject(PermanentFailure):
    """Not found or denied: the key may still be a prefix."""


def _client(held: S3Credentials) -> Any:
    # The node's own role is not the tenant's to use; what a webhook puts into this container
    # (IAM roles for service accounts, pod identity) is.
    os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
    session = botocore.session.Session()
    anonymous = held.access_key is None and session.get_credentials() is None
    own_endpoint = held.endpoint or os.environ.get("AWS_ENDPOINT_URL")
    virtual = held.virtual_hosts or not own_endpoint
    config: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT,
        "read_timeout": READ_TIMEOUT,
        "max_pool_connections": CONNECTIONS,
        "retries": {"total_max_attempts": 1, "mode": "standard"},
        "s3": {"addressing_style": "auto" if virtual else "path"},
        # Bodies are resumed and verified by our own digest; many servers know no checksums.
        "response_checksum_validation": "when_required",
        "request_checksum_calculation": "when_required",
    }
    if anonymous:
        config["signature_version"] = botocore.UNSIGNED
    return session.create_client(
        "s3",
        region_name=held.region or session.get_config_variable("region") or "us-east-1",
        endpoint_url=held.endpoint,
        aws_access_key_id=held.access_key,
        aws_secret_access_key=held.secret_key,
        aws_session_token=held.session_token,
        verify=None if held.verify is True else held.verify,
        config=Config(**config),
    )


def _version(answer: Any) -> str | None:
    """The ETag, unless it is empty: some servers list objects that they have not hashed."""
    etag = answer.get("ETag") or ""
    return etag if etag.strip('"') else None


def _explain(error: Any, place: _Place) -> Exception:
    """The exception for an error that the server answered with."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    at = f"{place.endpoint} answered {code or status}"
    if code in _CHANGED:
        return Changed()
    if code == "NoSuchBucket":
        return PermanentFailure(
            f"The bucket {place.bucket} does not exist ({at}): correct the URI {place.uri}, or the "
            "endpoint (AWS_ENDPOINT_URL in the Secret)."
        )
    if code in _NOT_FOUND:
        return _NoObject(
            f"There is no object at {place.uri} and none below it ({at}): correct the URI or "
            "upload the model."
        )
    if code in _DENIED:
        return _NoObject(
            f"Access to {place.uri} is denied to {_who(place)} ({at}): allow s3:GetObject, and "
            "s3:ListBucket for a prefix, or check that the path exists, since S3 tells the two "
            "apart only to those who may list."
        )
    if code in ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"):
        return PermanentFailure(
            f"The credentials of {_who(place)} for {place.uri} have expired ({at}): renew "
            "AWS_SESSION_TOKEN and its keys, or use keys that do not expire."
        )
    if code in _UNKNOWN_KEY:
        return PermanentFailure(
            f"{place.endpoint} does not know the access key of {_who(place)} ({code}): correct "
            "AWS_ACCESS_KEY_ID (and AWS_SESSION_TOKEN), or the endpoint."
        )
    if code == "SignatureDoesNotMatch":
        return PermanentFailure(
            f"{place.endpoint} does not accept the signature of {_who(place)} ({code}): "
            "AWS_SECRET_ACCESS_KEY does not belong to the access key, or the region is wrong."
        )
    if code == "InvalidObjectState":
        return PermanentFailure(
            f"{place.uri} lies in archive storage ({at}): restore the objects to a storage class "
            "that can be read."
        )
    if code in _REGION:
        return PermanentFailure(
            f"The bucket {place.bucket} is in another region ({at}): set AWS_DEFAULT_REGION in "
            "the Secret to the bucket's region."
        )
    if code in _RETRIED or status >= 500 or status == 429:
        return Interruption(f"{at} for {place.uri}")
    return PermanentFailure(
        f"{at} (HTTP {status}) for {place.uri}: check the URI, the endpoint and the Secret."
    )


def _explain_local(error: Any, place: _Place) -> Exception:
    """The exception for a request that got no answer."""
    if isinstance(error, (aws.NoCredentialsError, aws.PartialCredentialsError)):
        return PermanentFailure(
            f"There are no credentials for {place.uri}: name a Secret in "
            "spec.model.credentials.secretName."
        )
    if isinstance(error, (aws.ParamValidationError, aws.InvalidRegionError, ValueError)):
        return PermanentFailure(
            f"{place.uri} or its endpoint {place.endpoint} is not usable: check bucket, "
            "AWS_ENDPOINT_URL and AWS_DEFAULT_REGION."
        )
    if isinstance(error, (aws.HTTPClientError, aws.ConnectionError, OSError)):
        return broken(error, place.endpoint)
    return TransientFailure(
        f"S3 credentials or configuration for {place.uri} could not be obtained "
        f"({type(error).__name__}): check the service account's role or the Secret."
    )


def _who(place: _Place) -> str:
    return place.secret or "this pod (no Secret given)"
