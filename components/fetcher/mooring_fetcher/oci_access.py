"""Getting past a registry's door: nobody, Basic, or a bearer token bought at the place it names.

A registry says in the challenge of a 401 what it wants. Credentials come from a Secret of the type
kubernetes.io/dockerconfigjson, the same that imagePullSecrets take.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import threading
from dataclasses import dataclass, field
from fnmatch import fnmatch
from urllib.parse import urlencode, urlsplit

from mooring_fetcher.credentials import Credentials
from mooring_fetcher.failure import PermanentFailure
from mooring_fetcher.uri import ModelUri
from mooring_fetcher.web import Answer, Web, keeps_secrets, origin, refuse_plain, shown_origin

CONFIG = ".dockerconfigjson"
_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")
_PARAMETER = re.compile(r'(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


@dataclass(frozen=True)
class Login:
    """What one entry of a Docker configuration holds: a user, or a token of its own kind."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)


@dataclass
class RegistryAccess:
    """Requests to one repository of one registry; safe to use from several threads."""

    web: Web
    base: str
    """The repository's URL, ``https://host/v2/name``."""
    repository: str
    shown: str
    login: Login | None = field(repr=False)
    _authorization: str = field(default="", repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @staticmethod
    def of(uri: ModelUri, credentials: Credentials, web: Web) -> RegistryAccess:
        """The registry that a URI names.

        Raises PermanentFailure when the Secret cannot be understood.
        """
        host = "registry-1.docker.io" if uri.host in _HUB else uri.host
        plain = (credentials.get("OCI_PLAIN_HTTP") or "").lower() in ("1", "true", "yes", "on")
        plain = plain or keeps_secrets(f"http://{host}")
        base = f"{'http' if plain else 'https'}://{host}/v2/{uri.path}"
        login = _login(credentials, uri)
        if login is not None:
            refuse_plain(base, credentials.shown)
        token = login.registry_token if login else ""
        access = RegistryAccess(web, base, uri.path, credentials.shown, login)
        access._authorization = f"Bearer {token}" if token else ""
        return access

    @property
    def who(self) -> str:
        """Who asks, in messages."""
        return self.shown if self.login else "this pod (no credentials for it)"

    def get(self, path: str, headers: dict[str, str]) -> Answer:
        """The answer to a GET below the repository, after redirects and one challenge.

        Only the registry's own challenge is met. Where a blob is fetched by way of a redirect, the
        host that it leads to could name a realm of its own and be sent the registry's credentials.
        """
        used = self._authorization
        answer = self._once(path, headers, used)
        if answer.status != 401 or origin(answer.url) != origin(self.base):
            return answer
        challenge = answer.headers.get("WWW-Authenticate", "")
        try:
            met = self._renew(challenge, used)
        except BaseException:
            answer.close()
            raise
        if not met:
            return answer
        answer.close()
        return self._once(path, headers, self._authorization)

    def _once(self, path: str, headers: dict[str, str], authorization: str) -> Answer:
        private = {"Authorization": authorization} if authorization else {}
        return self.web.follow(self.base + path, headers | private, self.base)

    def _renew(self, challenge: str, used: str) -> bool:
        """Whether there is another Authorization to try than `used`."""
        with self._lock:
            # Another thread may have been challenged just before.
            if self._authorization == used:
                self._authorization = self._meet(challenge) or used
            return self._authorization != used

    def _meet(self, challenge: str) -> str:
        """The Authorization that a challenge asks for; empty where there is none to give."""
        scheme, _, rest = challenge.strip().partition(" ")
        if scheme.lower() == "basic":
            return _basic(self.login) if self.login and self.login.username else ""
        if scheme.lower() != "bearer":
            return ""
        wanted = {name: quoted or plain for name, quoted, plain in _PARAMETER.findall(rest)}
        return f"Bearer {self._bought(wanted)}"

    def _bought(self, wanted: dict[str, str]) -> str:
        """A token from the realm that the registry names."""
        realm = wanted.get("realm", "")
        if urlsplit(realm).scheme not in ("http", "https"):
            raise PermanentFailure(
                f"{shown_origin(self.base)} asks for a token without saying where: its "
                "configuration is incomplete."
            )
        query = {"scope": wanted.get("scope") or f"repository:{self.repository}:pull"}
        query |= {"service": wanted["service"]} if wanted.get("service") else {}
        login = self.login
        if login is not None:
            refuse_plain(realm, self.shown)
        if login is not None and login.identity_token:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": login.identity_token,
                "client_id": "mooring-fetcher",
                **query,
            }
            answer = self.web.post_form(realm, form)
        else:
            headers = {"Authorization": _basic(login)} if login and login.username else {}
            mark = "&" if urlsplit(realm).query else "?"
            answer = self.web.ask(f"{realm}{mark}{urlencode(query)}", headers)
        return self._token(answer)

    def _token(self, answer: Answer) -> str:
        answer.refuse_retried(shown_origin(answer.url))
        text = answer.read()
        if answer.status == 200:
            try:
                held = json.loads(text)
                if token := held.get("token") or held.get("access_token"):
                    return str(token)
            except (ValueError, AttributeError):
                pass
        raise PermanentFailure(
            f"{shown_origin(answer.url)}, to which {shown_origin(self.base)} sends for tokens, "
            f"gives {self.who} none for {self.repository} (HTTP {answer.status}): name a Secret "
            "with its credentials in spec.model.credentials.secretName, or correct them."
        )


def _basic(login: Login | None) -> str:
    if login is None:
        return ""
    return "Basic " + base64.b64encode(f"{login.username}:{login.password}".encode()).decode()


def _login(credentials: Credentials, uri: ModelUri) -> Login | None:
    """The entry of the Secret for this repository, the most specific one.

    Raises PermanentFailure for what is no Docker configuration.
    """
    text = credentials.get(CONFIG)
    if text is None:
        user, password = credentials.get("username"), credentials.get("password")
        return Login(user, password) if user and password else None
    try:
        entries = json.loads(text)["auths"]
        fitting = [
            (len(key), entry) for key, entry in entries.items() if _fits(key, uri.host, uri.path)
        ]
        return _entry(max(fitting, key=lambda one: one[0])[1]) if fitting else None
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        raise PermanentFailure(
            f"{credentials.shown} has a key {CONFIG} that is no Docker configuration (auths, each "
            "with auth or username and password): make it by kubectl create secret docker-registry."
        ) from None


def _fits(key: str, host: str, repository: str) -> bool:
    """Whether an entry is for this repository: by its host (with ``*`` for a part of it) and, if it
    has one, by the beginning of the path, as the kubelet reads such entries.
    """
    named, _, path = key.partition("://")[2 if "://" in key else 0].partition("/")
    path = path.strip("/")
    if path in ("v1", "v2"):
        path = ""
    if named in _HUB and host in _HUB:
        same = True
    else:
        same = named.count(".") == host.count(".") and fnmatch(host, named)
    return same and (not path or f"{repository}/".startswith(f"{path}/"))


def _entry(held: dict[str, str]) -> Login:
    user, password = held.get("username", ""), held.get("password", "")
    if held.get("auth"):
        decoded = base64.b64decode(held["auth"], validate=True).decode()
        user, _, password = decoded.partition(":")
    return Login(user, password, held.get("identitytoken", ""), held.get("registrytoken", ""))
