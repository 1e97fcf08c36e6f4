"""Google's access tokens: from a service account's key by OAuth's JWT grant (RFC 7523).

The signature is RSA, and so cryptography's: one does not write that oneself. google-auth would do
the rest of these hundred lines, and asks the metadata server for the node's own identity where the
Secret holds none, which is not the tenant's to use.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from dataclasses import dataclass, field

from mooring_fetcher.credentials import Credentials
from mooring_fetcher.failure import PermanentFailure
from mooring_fetcher.oauth import EARLY, buy_token
from mooring_fetcher.web import Web, refuse_plain

KEY_FILE = "gcloud-application-credentials.json"
SCOPE = "https://www.googleapis.com/auth/devstorage.read_only"
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_LIFETIME = 3600
"""Seconds, the most that Google allows."""


@dataclass(frozen=True)
class ServiceAccount:
    """The parts of a service account's key file that are used."""

    email: str
    key_id: str
    private_key: str
    token_url: str


@dataclass
class TokenSource:
    """Hands out a valid token; safe to use from several threads."""

    web: Web
    shown: str
    account: ServiceAccount | None = None
    _token: str = ""
    _until: float = float("inf")
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @staticmethod
    def of(credentials: Credentials, web: Web) -> TokenSource | None:
        """What the Secret holds: a service account's key, or a ready token; None for neither.

        Raises PermanentFailure for a key file that is not one of a service account.
        """
        if text := credentials.get(KEY_FILE):
            account = _account(text, credentials.shown)
            refuse_plain(account.token_url, credentials.shown)
            return TokenSource(web, credentials.shown, account, "", 0.0)
        if token := credentials.get("token"):
            return TokenSource(web, credentials.shown, None, token)
        return None

    def token(self) -> str:
        """A token that is valid for at least two minutes more, if it is of our own making."""
        with self._lock:
            if self.account is not None and time.time() > self._until - EARLY:
                self._token, self._until = self._fresh(self.account)
            return self._token

    def _fresh(self, account: ServiceAccount) -> tuple[str, float]:
        signed = _assertion(account, int(time.time()), self.shown)
        form = {"grant_type": _GRANT, "assertion": signed}
        return buy_token(
            self.web,
            account.token_url,
            form,
            whom=f"the service account {account.email} of {self.shown}",
            check="that the account and its key exist and are enabled, and the node's clock",
        )


def _account(text: str, shown: str) -> ServiceAccount:
    try:
        held = json.loads(text)
        kind = held["type"]
        if kind == "service_account":
            return ServiceAccount(
                email=str(held["client_email"]),
                key_id=str(held.get("private_key_id", "")),
                private_key=str(held["private_key"]),
                token_url=str(held.get("token_uri", "https://oauth2.googleapis.com/token")),
            )
    except (ValueError, KeyError, TypeError):
        raise PermanentFailure(
            f"{shown} has a key {KEY_FILE} that is not the JSON key file of a service account: "
            "store that file as Google hands it out."
        ) from None
    raise PermanentFailure(
        f"{shown} has a key {KEY_FILE} of type {str(kind)[:40]!a}, and only service_account is "
        "understood: pods have no token of their own that could be exchanged; store a service "
        "account's key, or an access token as the key token."
    )


def _assertion(account: ServiceAccount, now: int, shown: str) -> str:
    """The signed statement that the account asks for a token."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    claims = {
        "iss": account.email,
        "scope": SCOPE,
        "aud": account.token_url,
        "iat": now,
        "exp": now + _LIFETIME,
    }
    header = {"alg": "RS256", "typ": "JWT", "kid": account.key_id}
    unsigned = f"{_encoded(json.dumps(header).encode())}.{_encoded(json.dumps(claims).encode())}"
    try:
        key = load_pem_private_key(account.private_key.encode(), None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise PermanentFailure(
            f"{shown} has a key {KEY_FILE} whose private_key is no RSA key in PEM: store the key "
            "file as Google hands it out."
        )
    signature = key.sign(unsigned.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{unsigned}.{_encoded(signature)}"


def _encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()
