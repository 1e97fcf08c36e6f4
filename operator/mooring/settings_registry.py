"""The administrator's settings of the model registry."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, model_validator

from mooring.adapters.mlflow import RegistryAccess
from mooring.settings_fields import BasicAuth, Duration, MountedFile, Part, at_least_a_second


def _server(value: str) -> str:
    """http(s)://host[:port][/path] of an MLflow server."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an address such as https://mlflow.example.com")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold credentials: mount them, see bearerTokenFile")
    if parts.query or parts.fragment or "/api/" in f"{parts.path}/":
        raise ValueError("must end with the host or the path before /api, which is added by itself")
    try:
        _ = parts.port
    except ValueError as error:
        raise ValueError("the port must be a number up to 65535") from error
    return value.rstrip("/")


def _seldom(value: timedelta) -> timedelta:
    if not timedelta(seconds=5) <= value <= timedelta(hours=1):
        raise ValueError("must be between 5s and 1h")
    return value


class Registry(Part):
    """The MLflow server whose model registry ``mlflow://`` stands for. Users choose no other."""

    url: Annotated[str, AfterValidator(_server)] | None = None
    """Its address, up to and without /api. None: mlflow:// is refused."""
    bearer_token_file: MountedFile | None = None
    """A mounted file; read again for every question."""
    basic_auth: Annotated[BasicAuth | None, BeforeValidator(lambda given: given or None)] = None
    ca_file: MountedFile | None = None
    """The authority that signed its certificate; None: the public ones."""
    allow_http: bool = False
    """Send the token without TLS, in a mesh for instance."""
    interval: Annotated[Duration, AfterValidator(_seldom)] = timedelta(seconds=30)
    """How often all names together are asked for: how late a moved alias is seen."""
    timeout: Annotated[Duration, AfterValidator(at_least_a_second)] = timedelta(seconds=5)
    """For one question."""

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if self.bearer_token_file is not None and self.basic_auth is not None:
            raise ValueError("give bearerTokenFile or basicAuth, not both")
        named = self.bearer_token_file is not None or self.basic_auth is not None
        if named and not self.allow_http and (self.url or "").startswith("http://"):
            raise ValueError("url: must begin with https:// to be sent a token, see allowHttp")
        return self

    def access(self) -> RegistryAccess | None:
        """What the client needs; None without an address."""
        if self.url is None:
            return None
        return RegistryAccess(
            url=self.url,
            bearer_token_file=self.bearer_token_file,
            username=self.basic_auth.username if self.basic_auth else None,
            password_file=self.basic_auth.password_file if self.basic_auth else None,
            ca_file=self.ca_file,
            timeout=self.timeout.total_seconds(),
        )
