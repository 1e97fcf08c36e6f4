"""How requests reach the pods of a model: the router, and what it does on the way."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mooring.api.pod_fields import Resources
from mooring.api.schema_types import (
    ATOMIC,
    ApiModel,
    PositiveDuration,
    Rule,
    StrictInt,
    matcher,
    pattern_rule,
)

_HEADER_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
HeaderName = Annotated[
    str,
    Field(min_length=1, max_length=128),
    pattern_rule(
        _HEADER_PATTERN,
        "must consist of letters, digits, '-', '_' and '.', without a colon",
    ),
]


class CookieAffinity(ApiModel):
    """A cookie that the router sets, so that a client stays with its revision and pod."""

    name: HeaderName
    """Name of the cookie. Example: mooring-session."""
    ttl: PositiveDuration | None = None
    """How long the cookie lives; unset means as long as the client's session."""


class SessionAffinity(ApiModel):
    """Keeps the requests of one client with one pod of a revision: exactly one of header and
    cookie.
    """

    header: HeaderName | None = None
    """Requests with the same value of this header go to the same pod. Example: x-user."""
    cookie: CookieAffinity | None = None
    """Requests with the same cookie go to the same pod."""

    rules = (
        Rule(
            cel="has(self.header) != has(self.cookie)",
            message="set exactly one of header and cookie",
            check=lambda a: (a.header is None) != (a.cookie is None),
        ),
    )


class OutlierDetection(ApiModel):
    """Takes a pod out of rotation while it fails request after request."""

    consecutive_errors: Annotated[StrictInt, Field(ge=0, le=1000)] = 5
    """Errors in a row that take a pod out; 0 turns this off."""
    interval: PositiveDuration = "10s"
    """How often pods are looked at."""
    base_ejection_time: PositiveDuration = "30s"
    """How long a pod stays out the first time; longer each time after."""
    max_ejection_percent: Annotated[StrictInt, Field(ge=0, le=100)] = 50
    """The most pods of one revision that may be out, in percent."""


_NAME_PATTERN = r"^(\*\.)?[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"
_is_name = matcher(_NAME_PATTERN)
_Name = Annotated[str, Field(max_length=253)]


class ParentRef(ApiModel):
    """A Gateway, or one of its listeners."""

    name: _Name
    """The Gateway."""
    namespace: _Name | None = None
    """Unset means the model's."""
    section_name: _Name | None = None
    """A listener; unset means every one."""


class GatewaySpec(ApiModel):
    """The Gateways that take this model's requests."""

    parent_refs: Annotated[
        tuple[ParentRef, ...], Field(min_length=1, max_length=8, json_schema_extra=ATOMIC)
    ]
    """The Gateways."""
    hostnames: (
        Annotated[
            tuple[Annotated[_Name, Field(description="A host.")], ...],
            Field(max_length=16, json_schema_extra=ATOMIC),
        ]
        | None
    ) = None
    """Hosts to answer for; unset means those of the listeners."""

    # Which entries may stand beside each other, and more, the HTTPRoute's own rules say.
    rules = (
        Rule(
            cel=(
                "(self.parentRefs.map(p, p.name) + (has(self.hostnames) ? self.hostnames : []))"
                f".all(n, n.matches(r'{_NAME_PATTERN}'))"
            ),
            message="names and hosts are lower-case letters, digits, '-' and '.'",
            check=lambda g: (
                all(map(_is_name, [p.name for p in g.parent_refs]))
                and all(map(_is_name, g.hostnames or ()))
            ),
        ),
        Rule(
            cel="self.parentRefs.all(p, self.parentRefs.exists_one(q, q == p))",
            message="parentRefs must not repeat an entry",
            check=lambda g: len(set(g.parent_refs)) == len(g.parent_refs),
        ),
    )


class TrafficSpec(ApiModel):
    """How requests reach the pods: by which router, and what it does on the way."""

    router: Literal["envoy", "gateway", "replicas"] = "envoy"
    """What splits the traffic: envoy runs two small Envoy proxies for this model, with exact
    weights and measurements of its own; gateway asks a Gateway of the Gateway API to; replicas runs
    none, and the ratio of pods is the weight."""
    gateway: GatewaySpec | None = None
    """For router gateway."""
    replicas: Annotated[StrictInt, Field(ge=1, le=100)] = 2
    """Number of router pods, for router envoy."""
    resources: Resources | None = None
    """CPU and memory of a router pod; unset means requests of 50m and 64Mi."""
    timeout: PositiveDuration = "30s"
    """How long a request may take before the router answers 504."""
    retries: Annotated[StrictInt, Field(ge=0, le=5)] = 1
    """How often a request is tried again at another pod when no pod took it: after a refused
    connection or one reset before the answer."""
    session_affinity: SessionAffinity | None = None
    """Keeps a client with one pod; unset means that every request is placed anew."""
    outlier_detection: OutlierDetection = Field(
        default_factory=OutlierDetection, json_schema_extra={"default": {}}
    )
    """Takes failing pods out of rotation."""

    rules = (
        Rule(
            cel="(has(self.router) && self.router == 'gateway') == has(self.gateway)",
            message=("router gateway needs gateway.parentRefs, and no other router has a gateway"),
            check=lambda t: (t.router == "gateway") == (t.gateway is not None),
        ),
        Rule(
            cel="!has(self.router) || self.router == 'envoy' || !has(self.sessionAffinity)",
            message="only router envoy keeps sessions: use it, or remove sessionAffinity",
            check=lambda t: t.router == "envoy" or t.session_affinity is None,
        ),
    )
