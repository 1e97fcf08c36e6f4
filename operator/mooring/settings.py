"""The administrator's settings: one YAML file, checked at start, every field with its reason."""

from __future__ import annotations

import ipaddress
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from mooring.adapters.prometheus_access import Access
from mooring.adapters.sinks import Sink
from mooring.core.observed import NodeCache, RenderSettings, StoreEgress
from mooring.core.router_counters import ScrapeLabels
from mooring.engine.lease import LeaseSettings
from mooring.settings_fields import (
    SECOND,
    BasicAuth,
    Duration,
    MountedFile,
    Part,
    at_least_a_second,
)
from mooring.settings_registry import Registry


class SettingsError(ValueError):
    """The configuration file cannot be used; the message says which field and why."""


def _network(value: str) -> str:
    ipaddress.ip_network(value)
    return value


Network = Annotated[str, AfterValidator(_network)]
Port = Annotated[int, Field(ge=1, le=65535)]


class Images(Part):
    """Images that the operator puts into model pods."""

    fetcher: str = "mooring.dev/fetcher:dev"
    """The init container that fetches models. Only new revisions take a changed one."""
    router: str = "mooring.dev/router:dev"
    """The proxy that splits the traffic. Only new revisions take a changed one."""
    collector: str = "mooring.dev/collector:dev"
    """What counts the requests of monitored models. A changed one replaces running ones."""
    pull_policy: str | None = None
    """imagePullPolicy of model, router and collector pods; None leaves it to the API server."""


class ModelStore(Part):
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


class NodeCacheService(Part):
    """The Service of the cache that runs on each node, in the operator's own namespace."""

    service: str = Field(pattern=r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$")
    port: Port = 8085


def _address(value: str) -> str:
    """http(s)://host[:port][/path], and nothing else: an address is shown, a password is not."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an address such as http://prometheus.monitoring.svc:9090")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold credentials: mount them, see bearerTokenFile")
    if parts.query or parts.fragment:
        raise ValueError("must end with the path: queries are added by themselves")
    if parts.path.rstrip("/").endswith(("/api/v1", "/api/v1/query")):
        raise ValueError("must not hold /api/v1, which is added by itself")
    try:
        _ = parts.port
    except ValueError as error:
        raise ValueError("the port must be a number up to 65535") from error
    return value.rstrip("/")


def _text_fields(values: dict[str, str]) -> dict[str, str]:
    for name, value in values.items():
        if not re.fullmatch(r"[A-Za-z0-9_.\[\]-]+", name):
            raise ValueError(f"{name!r} is not a name")
        if not value.isascii() or not value.isprintable():
            raise ValueError(f"{name}: must be one line of plain text")
    return values


#: What the client sets itself, or what belongs into a mounted file.
_OWN_HEADERS = frozenset(
    {"authorization", "cookie", "host", "content-length", "content-type", "transfer-encoding",
     "connection", "accept-encoding"}
)  # fmt: skip
_OWN_PARAMETERS = frozenset({"query", "time", "timeout", "limit", "start", "end", "step"})


def _headers(values: dict[str, str]) -> dict[str, str]:
    for name in values:
        if name.lower() in _OWN_HEADERS:
            raise ValueError(f"{name} cannot be set here: credentials come from mounted files")
    return _text_fields(values)


def _parameters(values: dict[str, str]) -> dict[str, str]:
    for name in values:
        if name in _OWN_PARAMETERS:
            raise ValueError(f"{name} is set by the operator")
    return _text_fields(values)


LabelName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class PrometheusTls(Part):
    """TLS to Prometheus."""

    ca_file: MountedFile | None = None
    """The authority that signed its certificate; None: the public ones."""
    cert_file: MountedFile | None = None
    """The operator's own certificate, for a Prometheus that asks for one."""
    key_file: MountedFile | None = None
    insecure_skip_verify: bool = False
    """Believe any certificate. Whoever is on the way can then answer for Prometheus."""

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("certFile and keyFile go together")
        return self


class ScrapeLabelNames(Part):
    """How the scrape configuration calls what a target is."""

    namespace: LabelName = "namespace"
    pod: LabelName = "pod"


class Prometheus(Part):
    """Where evidence is read from (Prometheus, Thanos, Mimir, VictoriaMetrics), and who scrapes."""

    namespace_labels: dict[str, str] = Field(
        default_factory=lambda: {"kubernetes.io/metadata.name": "monitoring"}
    )
    """Namespace of the pods that may scrape the metrics port of model pods."""
    pod_labels: dict[str, str] = Field(default_factory=dict)
    """Those pods; empty: all of the namespace."""
    url: Annotated[str, AfterValidator(_address)] | None = None
    """Up to, and without, /api/v1. None: nothing is judged by metrics."""
    bearer_token_file: MountedFile | None = None
    """A mounted file; read again for every query."""
    basic_auth: Annotated[BasicAuth | None, BeforeValidator(lambda given: given or None)] = None
    tls: PrometheusTls = PrometheusTls()
    headers: Annotated[dict[str, str], AfterValidator(_headers)] = Field(default_factory=dict)
    """Sent with every query, such as X-Scope-OrgID for a tenant of Mimir."""
    parameters: Annotated[dict[str, str], AfterValidator(_parameters)] = Field(default_factory=dict)
    """Sent with every query, such as dedup for Thanos."""
    labels: ScrapeLabelNames = ScrapeLabelNames()
    interval: Annotated[Duration, AfterValidator(at_least_a_second)] = timedelta(seconds=10)
    """How often rollouts under judgement are looked at. A failing candidate is found no sooner
    than in two of these, or of the scrape interval where that is longer."""
    timeout: Annotated[Duration, AfterValidator(at_least_a_second)] = timedelta(seconds=10)
    """For a whole query, from asking to the last byte."""
    connect_timeout: Annotated[Duration, AfterValidator(at_least_a_second)] = timedelta(seconds=2)
    """For a connection."""
    max_response_mebibytes: int = Field(default=8, ge=1, le=256)
    """A larger answer is not read to its end."""
    concurrency: int = Field(default=4, ge=1, le=32)
    """Queries at the same time, each in a thread of its own."""

    @model_validator(mode="after")
    def _one_identity(self) -> Self:
        if self.bearer_token_file is not None and self.basic_auth is not None:
            raise ValueError("give bearerTokenFile or basicAuth, not both")
        if self.connect_timeout > self.timeout:
            raise ValueError("connectTimeout must not exceed timeout")
        return self

    def access(self) -> Access | None:
        """What the client needs; None without an address."""
        if self.url is None:
            return None
        tls = self.tls
        pair = (tls.cert_file, tls.key_file) if tls.cert_file and tls.key_file else None
        timeout = self.timeout.total_seconds()
        return Access(
            url=self.url,
            bearer_token_file=self.bearer_token_file,
            username=self.basic_auth.username if self.basic_auth else None,
            password_file=self.basic_auth.password_file if self.basic_auth else None,
            ca_file=tls.ca_file,
            client_certificate=pair,
            verify=not tls.insecure_skip_verify,
            headers=self.headers,
            parameters=self.parameters,
            deadline=timeout,
            connect=self.connect_timeout.total_seconds(),
            pause=timeout,
            body_limit=self.max_response_mebibytes * 1024 * 1024,
            concurrency=self.concurrency,
        )

    def scrape_labels(self) -> ScrapeLabels:
        """The names of labels for queries."""
        return ScrapeLabels(self.labels.namespace, self.labels.pod)


def _sink_address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an address such as https://pipelines.example.com/events")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise ValueError("must hold neither credentials nor a fragment")
    try:
        _ = parts.port
    except ValueError as error:
        raise ValueError("the port must be a number up to 65535") from error
    return value


class SinkSettings(Part):
    """A receiver of retraining requests. Users name it, and never an address."""

    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)
    url: Annotated[str, AfterValidator(_sink_address)]
    signing_key_file: MountedFile
    """The key of the HMAC: 16 bytes or more, or whsec_ and base64. Read for every event."""
    ca_file: MountedFile | None = None
    """The authority that signed its certificate; None: the public ones."""
    allow_http: bool = False
    """Take an address without TLS, in a mesh for instance."""
    namespaces: tuple[str, ...] = ()
    """Namespaces that may use it; empty: all."""
    timeout: Annotated[Duration, AfterValidator(at_least_a_second)] = timedelta(seconds=5)
    """For one attempt."""

    @model_validator(mode="after")
    def _encrypted(self) -> Self:
        if self.url.startswith("http://") and not self.allow_http:
            raise ValueError("url: must begin with https:// unless allowHttp is set")
        return self

    def sink(self) -> Sink:
        """What the client needs."""
        return Sink(
            name=self.name,
            url=self.url,
            signing_key_file=self.signing_key_file,
            ca_file=self.ca_file,
            namespaces=self.namespaces,
            timeout=self.timeout.total_seconds(),
        )


class Lease(Part):
    """Leader election, as in client-go."""

    name: str = "mooring-operator"
    duration: Duration = timedelta(seconds=15)
    renew_deadline: Duration = timedelta(seconds=10)
    retry_period: Duration = timedelta(seconds=2)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        """What the client library asks for; it would say so only when the election starts."""
        if self.retry_period < SECOND:
            raise ValueError("retryPeriod must be at least 1s")
        if self.renew_deadline <= 1.2 * self.retry_period:
            raise ValueError("renewDeadline must be more than 1.2 times retryPeriod")
        if self.duration <= self.renew_deadline:
            raise ValueError("duration must be greater than renewDeadline")
        if self.duration % SECOND:
            raise ValueError("duration must be whole seconds: a Lease holds nothing else")
        return self


class Settings(Part):
    """All of ``/etc/mooring/config.yaml``."""

    images: Images = Images()
    namespaces: tuple[str, ...] = ()
    """Namespaces to serve; empty: the whole cluster."""
    require_digest: bool = False
    """Refuse models without spec.model.digest."""
    image_volumes: bool = False
    """Nodes mount images as volumes (the feature ImageVolume): oci:// models with a digest are then
    pulled by the node."""
    max_model_gibibytes: int = Field(default=128, ge=1, le=16384)
    """The most that one model may be; its pods' volume may grow to twice that."""
    model_stores: tuple[ModelStore, ...] | None = None
    """Egress of model pods that fetch over the network; None: anywhere but link-local."""
    node_cache: NodeCacheService | None = None
    """Pods of one node fetch a model once, by way of a cache; None: each fetches for itself."""
    prometheus: Prometheus = Prometheus()
    registry: Registry = Registry()
    sinks: tuple[SinkSettings, ...] = ()
    """Who may be told of retraining requests."""
    drain: Duration = timedelta(seconds=15)
    """How long pods of a replaced revision stay after traffic has left them."""
    pre_stop_seconds: int = Field(default=8, ge=0, le=600)
    """Pods sleep so long before they stop: longer than DNS caches, plus the second after which
    routers look again."""
    cluster_domain: str = Field(
        default="cluster.local", pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
    )
    """The cluster's DNS domain, in which routers look for model pods."""
    resync: Annotated[Duration, AfterValidator(at_least_a_second)] = timedelta(minutes=5)
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
        cache = None
        if self.node_cache is not None:
            host = f"{self.node_cache.service}.{own_namespace()}.svc.{self.cluster_domain}"
            cache = NodeCache(f"http://{host}:{self.node_cache.port}", self.node_cache.port)
        return RenderSettings(
            fetcher_image=self.images.fetcher,
            pull_policy=self.images.pull_policy,
            require_digest=self.require_digest,
            image_volumes=self.image_volumes,
            model_stores=stores,
            max_model_bytes=self.max_model_gibibytes << 30,
            node_cache=cache,
            prometheus_namespace_labels=self.prometheus.namespace_labels,
            prometheus_pod_labels=self.prometheus.pod_labels,
            drain=self.drain,
            pre_stop_seconds=self.pre_stop_seconds,
            router_image=self.images.router,
            router_pull_policy=self.images.pull_policy,
            collector_image=self.images.collector,
            operator_namespace=own_namespace(),
            cluster_domain=self.cluster_domain,
            prometheus=self.prometheus.url is not None,
            registry_url=self.registry.url or "",
            analysis_interval=self.prometheus.interval,
            scrape_namespace_label=self.prometheus.labels.namespace,
            scrape_pod_label=self.prometheus.labels.pod,
        )

    @model_validator(mode="after")
    def _names(self) -> Self:
        names = [sink.name for sink in self.sinks]
        twice = next((n for n in names if names.count(n) > 1), None)
        if twice is not None:
            raise ValueError(f"sinks: there are two called {twice!r}")
        return self

    def sink_table(self) -> dict[str, Sink]:
        """The sinks by name."""
        return {sink.name: sink.sink() for sink in self.sinks}

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
