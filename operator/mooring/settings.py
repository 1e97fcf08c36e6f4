"""The administrator's settings: one YAML file, checked at start, every field with its reason."""

from __future__ import annotations

import ipaddress
import os
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from mooring.api import parse_duration
from mooring.core.observed import RenderSettings, StoreEgress
from mooring.engine.lease import LeaseSettings


class SettingsError(ValueError):
    """The configuration file cannot be used; the message says which field and why."""


class _Part(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True
    )


def _duration(value: object) -> object:
    return value if isinstance(value, timedelta) else parse_duration(str(value))


def _at_least_a_second(value: timedelta) -> timedelta:
    if value < _SECOND:
        raise ValueError("must be at least 1s")
    return value


def _network(value: str) -> str:
    ipaddress.ip_network(value)
    return value


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Network = Annotated[str, AfterValidator(_network)]
Port = Annotated[int, Field(ge=1, le=65535)]
_SECOND = timedelta(seconds=1)


class Images(_Part):
    """Images that the operator puts into model pods."""

    fetcher: str = "mooring.dev/fetcher:dev"
    """The init container that fetches models. Only new revisions take a changed one."""
    pull_policy: str | None = None
    """imagePullPolicy of model pods; None leaves it to the API server's default."""


class ModelStore(_Part):
    """A network that model pods may fetch from."""

    cidr: Network
    excluded: tuple[Network, ...] = Field(default=(), alias="except")
    ports: tuple[Port, ...] = ()

    @model_validator(mode="after")
    def _inside(self) -> Self:
        whole = ipaddress.ip_network(self.cidr)
        for part in map(ipaddress.ip_network, self.excluded):
            if part.version != whole.version or not part.subnet_of(whole):  # type: ignore[arg-type]
                raise ValueError(f"except: {part} lies outside {whole}")
        return self


class Prometheus(_Part):
    """Which pods may scrape the metrics port of model pods."""

    namespace_labels: dict[str, str] = {"kubernetes.io/metadata.name": "monitoring"}
    pod_labels: dict[str, str] = {}


class Lease(_Part):
    """Leader election, as in client-go."""

    name: str = "mooring-operator"
    duration: Duration = timedelta(seconds=15)
    renew_deadline: Duration = timedelta(seconds=10)
    retry_period: Duration = timedelta(seconds=2)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        """What the client library asks for; it would say so only when the election starts."""
        if self.retry_period < _SECOND:
            raise ValueError("retryPeriod must be at least 1s")
        if self.renew_deadline <= 1.2 * self.retry_period:
            raise ValueError("renewDeadline must be more than 1.2 times retryPeriod")
        if self.duration <= self.renew_deadline:
            raise ValueError("duration must be greater than renewDeadline")
        if self.duration % _SECOND:
            raise ValueError("duration must be whole seconds: a Lease holds nothing else")
        return self


class Settings(_Part):
    """All of ``/etc/mooring/config.yaml``."""

    images: Images = Images()
    namespaces: tuple[str, ...] = ()
    """Namespaces to serve; empty: the whole cluster."""
    require_digest: bool = False
    """Refuse models without spec.model.digest."""
    model_stores: tuple[ModelStore, ...] | None = None
    """Egress of model pods that fetch over the network; None: anywhere but link-local."""
    prometheus: Prometheus = Prometheus()
    drain: Duration = timedelta(seconds=15)
    """How long pods of a replaced revision stay after traffic has left them."""
    pre_stop_seconds: int = Field(default=5, ge=0, le=600)
    """Pods sleep so long before they stop, so that endpoints are withdrawn first."""
    resync: Annotated[Duration, AfterValidator(_at_least_a_second)] = timedelta(minutes=5)
    """How often everything is compared with the API server."""
    workers: int = Field(default=8, ge=1, le=64)
    """Objects that are worked on at the same time."""
    lease: Lease = Lease()
    port: int = Field(default=8080, ge=0, le=65535)
    """Where /healthz, /readyz and /metrics are served."""

    def rendering(self) -> RenderSettings:
        """The part that decisions depend on."""
        stores = RenderSettings().model_stores
        if self.model_stores is not None:
            stores = tuple(StoreEgress(s.cidr, s.excluded, s.ports) for s in self.model_stores)
        return RenderSettings(
            fetcher_image=self.images.fetcher,
            pull_policy=self.images.pull_policy,
            require_digest=self.require_digest,
            model_stores=stores,
            prometheus_namespace_labels=self.prometheus.namespace_labels,
            prometheus_pod_labels=self.prometheus.pod_labels,
            drain=self.drain,
            pre_stop_seconds=self.pre_stop_seconds,
        )

    def election(self) -> LeaseSettings:
        """The lease in seconds."""
        return LeaseSettings(
            name=self.lease.name,
            duration=self.lease.duration.total_seconds(),
            renew_deadline=self.lease.renew_deadline.total_seconds(),
            retry_period=self.lease.retry_period.total_seconds(),
        )


def load(path: Path | None) -> Settings:
    """Reads the file; without one, the defaults. Raises SettingsError."""
    if path is None:
        return Settings()
    try:
        raw = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise SettingsError(f"{path}: {error}") from error
    if not isinstance(raw, dict):
        raise SettingsError(f"{path}: the file must hold a mapping of settings, such as port: 8080")
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        problems = "; ".join(map(_problem, error.errors()))
        raise SettingsError(f"{path}: {problems}") from error


def _problem(error: ErrorDetails) -> str:
    message = error["msg"].removeprefix("Value error, ")
    return f"{'.'.join(map(str, error['loc'])) or 'file'}: {message}"


def own_namespace() -> str:
    """Where the lease lives: from the downward API, else ``default``."""
    return os.environ.get("MOORING_NAMESPACE", "default")


def identity() -> str:
    """This process's name in the lease: the pod's, else one that no other process has."""
    return os.environ.get("POD_NAME") or f"{os.uname().nodename}-{os.getpid()}"
