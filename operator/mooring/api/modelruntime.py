"""ModelRuntime and ClusterModelRuntime: the template that turns a model into a server."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, WithJsonSchema

from mooring.api.metadata import ObjectMeta
from mooring.api.modeldeployment import FormatName, ImageTag
from mooring.api.pod_fields import EnvVar, Resources
from mooring.api.runtime_signals import RuntimeSignals
from mooring.api.schema_types import (
    API_VERSION,
    ATOMIC,
    ApiModel,
    ListMap,
    Rule,
    StrictBool,
    StrictInt,
    matcher,
    pattern_rule,
)

PLACEHOLDERS: tuple[str, ...] = (
    "model.name",
    "model.path",
    "model.uri",
    "model.version",
    "runtime.version",
    "revision",
    "namespace",
)
"""The names that may stand between `{{` and `}}` in a template."""

_ANY = r"\{\{[^{}]*\}\}"
_KNOWN = r"\{\{\s*(" + "|".join(name.replace(".", r"\.") for name in PLACEHOLDERS) + r")\s*\}\}"
_ONLY_KNOWN = rf"^([^{{]|\{{[^{{]|{_KNOWN})*\{{?$"
_any_placeholder = matcher(_ANY)
_only_known = matcher(_ONLY_KNOWN)

PLACEHOLDER_RULE = Rule(
    cel=f"!self.matches(r'{_ANY}') || self.matches(r'{_ONLY_KNOWN}')",
    message=(
        "has a placeholder that does not exist: use {{ model.name }}, {{ model.path }}, "
        "{{ model.uri }}, {{ model.version }}, {{ runtime.version }}, {{ revision }} or "
        "{{ namespace }}"
    ),
    check=lambda text: not _any_placeholder(text) or _only_known(text),
)

TemplateArgument = Annotated[
    str,
    Field(
        max_length=4096,
        description="One argument; placeholders are filled in, no shell reads it.",
    ),
    PLACEHOLDER_RULE,
]
TemplateEnvVars = Annotated[
    tuple[
        Annotated[
            EnvVar,
            Rule(
                cel=(
                    f"!has(self.value) || !self.value.matches(r'{_ANY}') || "
                    f"self.value.matches(r'{_ONLY_KNOWN}')"
                ),
                message=PLACEHOLDER_RULE.message,
                check=lambda variable: PLACEHOLDER_RULE.check(variable.value or ""),
                field=".value",
            ),
        ],
        ...,
    ],
    Field(max_length=64),
    ListMap(("name",)),
]
TemplateArguments = Annotated[
    tuple[TemplateArgument, ...], Field(max_length=64, json_schema_extra=ATOMIC)
]

_ABSOLUTE_PATTERN = r"^/([^/\s\\]+/)*[^/\s\\]+$"
_CLIMBING_PATTERN = r"(^|/)\.\.?(/|$)"
_climbs = matcher(_CLIMBING_PATTERN)
AbsolutePath = Annotated[
    str,
    Field(max_length=512),
    pattern_rule(
        _ABSOLUTE_PATTERN,
        "must be an absolute path without blanks and without a slash at its end, such as "
        "/etc/server",
    ),
    Rule(
        cel=f"!self.matches(r'{_CLIMBING_PATTERN}')",
        message="must not contain the path segments '.' and '..': write the path without them",
        check=lambda path: not _climbs(path),
    ),
    Rule(
        cel="self != '/mnt/models' && !self.startsWith('/mnt/models/')",
        message="must not lie in /mnt/models, where the model is: choose another folder",
        check=lambda path: path != "/mnt/models" and not path.startswith("/mnt/models/"),
    ),
]

_PORT_NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
PortName = Annotated[
    str,
    Field(max_length=15),
    pattern_rule(
        _PORT_NAME_PATTERN,
        "must be at most 15 lower-case letters, digits and '-', such as http or grpc",
    ),
]
PortNumber = Annotated[StrictInt, Field(ge=1, le=65535)]


_PORT_REFERENCE_RULE = Rule(
    cel=(
        "type(self) == int ? (self >= 1 && self <= 65535) : "
        f"(type(self) == string && self.matches(r'{_PORT_NAME_PATTERN}'))"
    ),
    message="must be a port number from 1 to 65535 or the name of one of spec.ports",
    check=lambda port: (
        1 <= port <= 65535 if isinstance(port, int) else matcher(_PORT_NAME_PATTERN)(port)
    ),
)
PortReference = Annotated[
    StrictInt | str,
    _PORT_REFERENCE_RULE,
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "x-kubernetes-validations": [_PORT_REFERENCE_RULE.schema()],
        }
    ),
]


class SupportedFormat(ApiModel):
    """A model format that the server can load."""

    name: FormatName
    """Name of the format, as ModelDeployments ask for it. Example: onnx."""
    versions: (
        Annotated[
            tuple[
                Annotated[
                    str,
                    Field(min_length=1, max_length=32, description="One version, in quotes."),
                ],
                ...,
            ],
            Field(max_length=32, json_schema_extra={"x-kubernetes-list-type": "set"}),
        ]
        | None
    ) = None
    """The versions that it can load, in quotes; unset means any."""


class RuntimePort(ApiModel):
    """A port that the server listens on."""

    name: PortName
    """Name of the port, such as http, grpc or metrics."""
    container_port: PortNumber
    """Number of the port in the container, 1 to 65535. In the Service, http is 80 and grpc is 9000;
    every other port keeps its number."""
    service: StrictBool = True
    """Whether clients reach it through the model's Service; default true. Management ports say
    false."""
    app_protocol: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """Application protocol for meshes and gateways, as in a Service. Example:
    kubernetes.io/h2c for gRPC."""


class HTTPGetAction(ApiModel):
    """Succeeds when a GET is answered with a status from 200 to 399."""

    path: Annotated[str, Field(min_length=1, max_length=1024), PLACEHOLDER_RULE]
    """Path to ask for, with placeholders. Example: /v2/models/{{ model.name }}/ready."""
    port: PortReference
    """Number or name of the port. Example: http."""


class TCPSocketAction(ApiModel):
    """Succeeds when a connection can be opened."""

    port: PortReference
    """Number or name of the port. Example: http."""


class ExecAction(ApiModel):
    """Succeeds when a command in the container exits with 0; for what listens on loopback only."""

    command: Annotated[
        tuple[TemplateArgument, ...],
        Field(min_length=1, max_length=64, json_schema_extra=ATOMIC),
    ]
    """The command and its arguments, with placeholders; no shell is involved."""


class Probe(ApiModel):
    """A health check of the server: exactly one of httpGet, tcpSocket and exec."""

    http_get: HTTPGetAction | None = None
    """Asks by HTTP; healthy when answered with a status from 200 to 399."""
    tcp_socket: TCPSocketAction | None = None
    """Opens a connection; healthy when that works."""
    exec: ExecAction | None = None
    """Runs a command in the container; healthy when it exits with 0."""
    initial_delay_seconds: Annotated[StrictInt, Field(ge=0, le=86400)] | None = None
    """Seconds before the first check; 0 when unset."""
    period_seconds: Annotated[StrictInt, Field(ge=1, le=86400)] | None = None
    """Seconds between checks; 10 when unset."""
    timeout_seconds: Annotated[StrictInt, Field(ge=1, le=86400)] | None = None
    """Seconds that one check may take; 1 when unset."""
    failure_threshold: Annotated[StrictInt, Field(ge=1, le=86400)] | None = None
    """Failed checks in a row until it counts as unhealthy; 3 when unset."""
    success_threshold: Annotated[StrictInt, Field(ge=1, le=86400)] | None = None
    """Good checks in a row until it counts as healthy; 1 when unset, and for startup and liveness
    always."""

    rules = (
        Rule(
            cel="[has(self.httpGet), has(self.tcpSocket), has(self.exec)].filter(g, g).size() == 1",
            message="set exactly one of httpGet, tcpSocket and exec",
            check=lambda p: sum(a is not None for a in (p.http_get, p.tcp_socket, p.exec)) == 1,
        ),
    )


def _one_success(probe: Probe | None) -> bool:
    return probe is None or probe.success_threshold in (None, 1)


class ConfigFile(ApiModel):
    """A file of the server's configuration."""

    path: AbsolutePath
    """Absolute path of the file in the container. Example: /etc/server/config.properties."""
    content: Annotated[str, Field(max_length=65536), PLACEHOLDER_RULE]
    """Content of the file, with placeholders; at most 64 KiB."""


class RuntimeSecurity(ApiModel):
    """The user that the server runs as. Everything else is Pod Security "restricted"."""

    run_as_user: Annotated[StrictInt, Field(ge=1, le=2**31 - 1)] | None = None
    """User and group number of the server; 65532 when unset. Never 0."""
    set_run_as_user: StrictBool | None = None
    """False leaves the user to the cluster, as OpenShift wants it; default true."""

    rules = (
        Rule(
            cel="!has(self.runAsUser) || !has(self.setRunAsUser) || self.setRunAsUser",
            message=("runAsUser has no effect with setRunAsUser: false: remove one of them"),
            check=lambda s: s.run_as_user is None or s.set_run_as_user is not False,
        ),
    )


class MetricsEndpoint(ApiModel):
    """Where the server exports its metrics for Prometheus."""

    port: PortName
    """Name of one of spec.ports. Example: metrics."""
    path: Annotated[str, Field(min_length=1, max_length=1024)] = "/metrics"
    """Path of the metrics."""


_VERSION_PLACEHOLDER = r"\{\{\s*runtime\.version\s*\}\}"
_PROBES = ("readinessProbe", "livenessProbe", "startupProbe")
_PROBE_ACTIONS = ("httpGet", "tcpSocket")


def _port_exists(probe: str, action: str) -> str:
    port = f"self.{probe}.{action}.port"
    return (
        f"(!has(self.{probe}) || !has(self.{probe}.{action}) || type({port}) != string || "
        f"self.ports.exists(p, p.name == {port}))"
    )


def _probes_use_ports(runtime: RuntimeTemplate) -> bool:
    names = {port.name for port in runtime.ports}
    probes = (runtime.readiness_probe, runtime.liveness_probe, runtime.startup_probe)
    actions = [a for p in probes if p is not None for a in (p.http_get, p.tcp_socket)]
    used = [action.port for action in actions if action is not None]
    return all(port in names for port in used if isinstance(port, str))


PUBLIC_PORTS = {"http": 80, "grpc": 9000}
"""Numbers of these ports in a model's Service, whatever they are in the container."""


def _some_port_is_public(runtime: RuntimeTemplate) -> bool:
    return any(port.service for port in runtime.ports)


def _port_numbers_differ(runtime: RuntimeTemplate) -> bool:
    in_container = [port.container_port for port in runtime.ports]
    in_service = [PUBLIC_PORTS.get(p.name, p.container_port) for p in runtime.ports if p.service]
    return len(set(in_container)) == len(in_container) and len(set(in_service)) == len(in_service)


_SERVICE_NUMBER = "(p.name == 'http' ? 80 : p.name == 'grpc' ? 9000 : p.containerPort)"


def _needs_version(runtime: RuntimeTemplate) -> bool:
    return runtime.version is None and matcher(_VERSION_PLACEHOLDER)(runtime.image)


def _has_metrics_port(runtime: RuntimeTemplate) -> bool:
    metrics = runtime.metrics
    return metrics is None or any(port.name == metrics.port for port in runtime.ports)


class RuntimeTemplate(ApiModel):
    """The template that turns a model into a server: image, arguments, ports, probes, files.
    Placeholders: {{ model.name }}, {{ model.path }}, {{ model.uri }}, {{ model.version }},
    {{ runtime.version }}, {{ revision }} and {{ namespace }}.
    """

    description: Annotated[str, Field(max_length=1024)] | None = None
    """What this runtime is, in a sentence for people."""
    formats: Annotated[
        tuple[SupportedFormat, ...], Field(min_length=1, max_length=32), ListMap(("name",))
    ]
    """The model formats that the server can load; at least one."""
    protocols: (
        Annotated[
            tuple[
                Annotated[
                    Literal["open-inference-v2", "tfserving", "torchserve", "custom"],
                    Field(description="One protocol."),
                ],
                ...,
            ],
            Field(max_length=8, json_schema_extra={"x-kubernetes-list-type": "set"}),
        ]
        | None
    ) = None
    """The prediction protocols that the server speaks: open-inference-v2, tfserving, torchserve or
    custom."""
    image: Annotated[str, Field(min_length=1, max_length=512), PLACEHOLDER_RULE]
    """Image of the server. Example: pytorch/torchserve:{{ runtime.version }}."""
    version: ImageTag | None = None
    """What {{ runtime.version }} stands for unless a ModelDeployment says otherwise.
    Example: 0.12.0-cpu."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    """When the kubelet pulls the image: Always, IfNotPresent or Never; unset leaves it to the
    operator's setting."""
    command: TemplateArguments | None = None
    """Command in place of the image's entrypoint, with placeholders."""
    args: TemplateArguments | None = None
    """Arguments, with placeholders; those of the ModelDeployment follow.
    Example: ["--model-dir", "{{ model.path }}"]."""
    env: TemplateEnvVars | None = None
    """Environment variables; values may have placeholders."""
    ports: Annotated[
        tuple[RuntimePort, ...], Field(min_length=1, max_length=16), ListMap(("name",))
    ]
    """The ports that the server listens on; at least one."""
    readiness_probe: Probe | None = None
    """Whether the model (not just the server) is ready to answer; traffic waits for it."""
    liveness_probe: Probe | None = None
    """Whether the server is alive; it is restarted when not."""
    startup_probe: Probe | None = None
    """Whether the server has started; holds the other probes back while a large model loads."""
    resources: Resources | None = None
    """CPU, memory and devices where the ModelDeployment names none."""
    config: Annotated[tuple[ConfigFile, ...], Field(max_length=8), ListMap(("path",))] | None = None
    """Configuration files, mounted read-only."""
    security: RuntimeSecurity | None = None
    """The user that the server runs as."""
    writable_paths: (
        Annotated[
            tuple[Annotated[AbsolutePath, Field(description="Absolute path of one folder.")], ...],
            Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "set"}),
        ]
        | None
    ) = None
    """Folders that the server may write to, empty at start; /tmp always is one. The rest of the
    file system is read-only."""
    termination_grace_period_seconds: Annotated[StrictInt, Field(ge=1, le=3600)] | None = None
    """Seconds that the server gets to finish what is in flight; 60 when unset."""
    metrics: MetricsEndpoint | None = None
    """Where the server exports its metrics; unset means that it has none."""
    signals: RuntimeSignals | None = None
    """What can be judged from those metrics; unset means nothing."""
    layout: Literal["flat", "triton", "tfserving", "torchserve"] | None = None
    """How the fetcher lays the model out: flat (the default: as it is stored), triton
    (<name>/1/…), tfserving (a SavedModel in <version>/) or torchserve (<name>.mar)."""

    rules = (
        Rule(
            cel=f"has(self.version) || !self.image.matches(r'{_VERSION_PLACEHOLDER}')",
            message=(
                "image uses {{ runtime.version }}, but version is not set: set version to the "
                "default tag"
            ),
            check=lambda r: not _needs_version(r),
            field=".image",
        ),
        Rule(
            cel="self.ports.exists(p, !has(p.service) || p.service)",
            message=(
                "every port says service: false, so no client could reach a model: leave it out "
                "for one of them"
            ),
            check=_some_port_is_public,
            field=".ports",
        ),
        Rule(
            cel=(
                "self.ports.all(p, self.ports.exists_one(q, q.containerPort == p.containerPort)) "
                "&& self.ports.filter(p, !has(p.service) || p.service)"
                f".map(p, {_SERVICE_NUMBER}).all(n, "
                "self.ports.filter(p, !has(p.service) || p.service)"
                f".map(p, {_SERVICE_NUMBER}).exists_one(m, m == n))"
            ),
            message=(
                "two ports have the same number, in the container or in the Service, where http is "
                "80 and grpc is 9000: give one of them another number, or service: false"
            ),
            check=_port_numbers_differ,
            field=".ports",
        ),
        Rule(
            cel="!has(self.metrics) || self.ports.exists(p, p.name == self.metrics.port)",
            message="metrics.port must be the name of one of ports: correct it or add the port",
            check=_has_metrics_port,
            field=".metrics",
        ),
        Rule(
            cel="!has(self.signals) || has(self.metrics)",
            message="signals are read from the server's metrics: say where those are in metrics",
            check=lambda r: r.signals is None or r.metrics is not None,
            field=".signals",
        ),
        Rule(
            cel=" && ".join(_port_exists(p, action) for p in _PROBES for action in _PROBE_ACTIONS),
            message="probes name a port that is not one of ports: correct it or add the port",
            check=_probes_use_ports,
        ),
        Rule(
            cel=(
                "(!has(self.livenessProbe) || !has(self.livenessProbe.successThreshold) || "
                "self.livenessProbe.successThreshold == 1) && (!has(self.startupProbe) || "
                "!has(self.startupProbe.successThreshold) || "
                "self.startupProbe.successThreshold == 1)"
            ),
            message="livenessProbe and startupProbe take no successThreshold but 1: remove it",
            check=lambda r: _one_success(r.liveness_probe) and _one_success(r.startup_probe),
        ),
    )


class ModelRuntime(ApiModel):
    """A model server that the ModelDeployments of its namespace can use by name. Editing it
    changes no running pod: new revisions use the new template.
    """

    api_version: Literal["mooring.dev/v1alpha1"] = API_VERSION
    """Version of this schema: mooring.dev/v1alpha1."""
    kind: Literal["ModelRuntime"] = "ModelRuntime"
    """Kind of the object: ModelRuntime."""
    metadata: ObjectMeta
    """Standard metadata of the object."""
    spec: RuntimeTemplate
    """The template that turns a model into a server. Placeholders: {{ model.name }},
    {{ model.path }} (the folder of the model's files), {{ model.uri }}, {{ model.version }} (the
    number that the URI ends in, else 1), {{ runtime.version }}, {{ revision }} and
    {{ namespace }}."""


class ClusterModelRuntime(ApiModel):
    """A model server that every ModelDeployment of the cluster can use by name; a ModelRuntime of
    the same name goes first in its namespace. Editing it changes no running pod.
    """

    api_version: Literal["mooring.dev/v1alpha1"] = API_VERSION
    """Version of this schema: mooring.dev/v1alpha1."""
    kind: Literal["ClusterModelRuntime"] = "ClusterModelRuntime"
    """Kind of the object: ClusterModelRuntime."""
    metadata: ObjectMeta
    """Standard metadata of the object."""
    spec: RuntimeTemplate
    """The template that turns a model into a server. Placeholders: {{ model.name }},
    {{ model.path }} (the folder of the model's files), {{ model.uri }}, {{ model.version }} (the
    number that the URI ends in, else 1), {{ runtime.version }}, {{ revision }} and
    {{ namespace }}."""
