"""Who one is to Azure Storage: an account key, a SAS, a service principal, or nobody.

The scheme of signatures is Microsoft's "Authorize with Shared Key" for version 2021-12-02 of the
Blob service.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
import hmac
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Protocol
from urllib.parse import parse_qsl, quote, urlsplit

from mooring_fetcher.credentials import Credentials
from mooring_fetcher.failure import PermanentFailure
from mooring_fetcher.oauth import EARLY, buy_token
from mooring_fetcher.uri import ModelUri, account_of
from mooring_fetcher.web import Web, refuse_plain

API_VERSION = "2021-12-02"
AUTHORITY = "https://login.microsoftonline.com"
_SCOPE = "https://storage.azure.com/.default"
_SIGNED_HEADERS = (
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
)

Sent = tuple[dict[str, str], dict[str, str]]
"""Query and headers of a request."""


class _Proof(Protocol):
    """What is added to a request so that it is answered."""

    @property
    def kind(self) -> str: ...

    def add(
        self, method: str, url: str, query: dict[str, str], headers: dict[str, str]
    ) -> Sent: ...


@dataclass(frozen=True)
class Access:
    """Where the account is reached, and as whom. ``who`` and ``kind`` are words for messages."""

    endpoint: str
    who: str
    proof: _Proof

    @property
    def kind(self) -> str:
        return self.proof.kind

    def ended(self) -> str:
        """When the SAS ended, if it has; else nothing. Servers differ in how they tell."""
        stated = self.proof.parts.get("se", "") if isinstance(self.proof, _Sas) else ""
        try:
            until = dt.datetime.fromisoformat(stated)
        except ValueError:
            return ""
        if until.tzinfo is None:
            until = until.replace(tzinfo=dt.UTC)
        return stated if until < dt.datetime.now(dt.UTC) else ""

    def authorize(
        self, method: str, url: str, query: Mapping[str, str], headers: Mapping[str, str]
    ) -> Sent:
        """The query and headers with which the request is sent."""
        stamped = {
            **headers,
            "x-ms-version": API_VERSION,
            "x-ms-date": formatdate(usegmt=True),
        }
        return self.proof.add(method, url, dict(query), stamped)


def access_of(uri: ModelUri, credentials: Credentials, web: Web) -> Access:
    """What URI and Secret say of the account.

    Raises PermanentFailure when they name none, contradict each other, or hold no usable key.
    """
    given = _connection_string(credentials)
    named, domain = account_of(uri.qualifier)
    held = credentials.get("AZURE_STORAGE_ACCOUNT") or given.get("accountname", "")
    if named and held and named != held:
        raise PermanentFailure(
            f"{uri.shown} names the storage account {named}, but {credentials.shown} is for "
            f"{held}: make them agree."
        )
    account = named or held
    endpoint = credentials.endpoint("AZURE_STORAGE_BLOB_ENDPOINT") or given.get("blobendpoint")
    if not endpoint and not account:
        raise PermanentFailure(
            f"{uri.shown} names no storage account: write az://container@account/path, or set "
            "AZURE_STORAGE_ACCOUNT in the Secret."
        )
    domain = domain or given.get("endpointsuffix") or "core.windows.net"
    endpoint = (endpoint or f"https://{account}.blob.{domain}").rstrip("/")
    proof = _proof(credentials, given, account, web)
    if not isinstance(proof, (_Nobody, _SharedKey)):
        refuse_plain(endpoint, credentials.shown)
    who = "this pod (no Secret given)" if isinstance(proof, _Nobody) else credentials.shown
    return Access(endpoint, who, proof)


def _proof(credentials: Credentials, given: Mapping[str, str], account: str, web: Web) -> _Proof:
    key = credentials.get("AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCESS_KEY")
    if key := key or given.get("accountkey"):
        if not account:
            raise PermanentFailure(
                f"{credentials.shown} has an account key but no AZURE_STORAGE_ACCOUNT: name the "
                "account there or in the URI."
            )
        try:
            return _SharedKey(account, base64.b64decode(key, validate=True))
        except binascii.Error:
            raise PermanentFailure(
                f"{credentials.shown} has an AZURE_STORAGE_KEY that is not base64: store the key "
                "as Azure shows it."
            ) from None
    sas = credentials.get("AZURE_STORAGE_SAS_TOKEN") or given.get("sharedaccesssignature")
    if sas:
        # A plus that is not encoded is one of base64, never a blank.
        parts = dict(parse_qsl(sas.lstrip("?").replace("+", "%2B")))
        if "sig" not in parts:
            raise PermanentFailure(
                f"{credentials.shown} has an AZURE_STORAGE_SAS_TOKEN without a signature (sig=…): "
                "store the whole query string."
            )
        return _Sas(parts)
    principal = [
        credentials.get(f"AZURE_{part}", f"AZ_{part}")
        for part in ("TENANT_ID", "CLIENT_ID", "CLIENT_SECRET")
    ]
    if principal[2]:
        if not principal[0] or not principal[1]:
            raise PermanentFailure(
                f"{credentials.shown} has AZURE_CLIENT_SECRET, but not AZURE_TENANT_ID and "
                "AZURE_CLIENT_ID beside it: a service principal needs all three."
            )
        authority = credentials.endpoint("AZURE_AUTHORITY_HOST") or AUTHORITY
        refuse_plain(authority, credentials.shown)
        url = f"{authority}/{quote(principal[0], safe='')}/oauth2/v2.0/token"
        return _Principal(web, credentials.shown, url, principal[1], principal[2])
    return _Nobody()


def _connection_string(credentials: Credentials) -> dict[str, str]:
    """The parts of a connection string by their names in small letters."""
    text = credentials.get("AZURE_STORAGE_CONNECTION_STRING") or ""
    parts = (part.partition("=") for part in text.split(";") if part.strip())
    return {name.strip().lower(): value.strip() for name, _, value in parts}


@dataclass(frozen=True)
class _Nobody:
    kind: str = "anonymous request"

    def add(self, method: str, url: str, query: dict[str, str], headers: dict[str, str]) -> Sent:
        return query, headers


@dataclass(frozen=True)
class _Sas:
    parts: Mapping[str, str] = field(repr=False)
    kind: str = "SAS"

    def add(self, method: str, url: str, query: dict[str, str], headers: dict[str, str]) -> Sent:
        return query | dict(self.parts), headers


@dataclass(frozen=True)
class _SharedKey:
    account: str
    key: bytes = field(repr=False)
    kind: str = "account key"

    def add(self, method: str, url: str, query: dict[str, str], headers: dict[str, str]) -> Sent:
        by_name = {name.lower(): value for name, value in headers.items()}
        lines = [method, *(by_name.get(name, "") for name in _SIGNED_HEADERS)]
        lines += [f"{name}:{by_name[name]}" for name in sorted(by_name) if name.startswith("x-ms-")]
        lines.append(f"/{self.account}{urlsplit(url).path}")
        lines += [f"{name}:{query[name]}" for name in sorted(query)]
        signed = hmac.digest(self.key, "\n".join(lines).encode(), hashlib.sha256)
        proof = base64.b64encode(signed).decode()
        return query, {**headers, "Authorization": f"SharedKey {self.account}:{proof}"}


@dataclass
class _Principal:
    """A service principal: its secret buys a token by OAuth's client-credentials grant."""

    web: Web
    shown: str
    url: str
    client: str
    secret: str = field(repr=False)
    kind: str = "token"
    _token: str = field(default="", repr=False)
    _until: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, method: str, url: str, query: dict[str, str], headers: dict[str, str]) -> Sent:
        with self._lock:
            if time.time() > self._until - EARLY:
                self._renew()
            return query, {**headers, "Authorization": f"Bearer {self._token}"}

    def _renew(self) -> None:
        form = {
            "grant_type": "client_credentials",
            "client_id": self.client,
            "client_secret": self.secret,
            "scope": _SCOPE,
        }
        self._token, self._until = buy_token(
            self.web,
            self.url,
            form,
            whom=f"the service principal of {self.shown}",
            check="AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET",
        )
