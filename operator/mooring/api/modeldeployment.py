"""ModelDeployment: one declared model, the server that runs it, and how many pods of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from mooring.api.analysis_spec import AnalysisSpec
from mooring.api.metadata import ObjectMeta
from mooring.api.modeldeployment_status import ModelDeploymentStatus
from mooring.api.monitoring_spec import MonitoringSpec
from mooring.api.pod_fields import (
    Arguments,
    EnvVars,
    ImagePullSecrets,
    LabelValue,
    PodAnnotations,
    PodLabels,
    Resources,
    Tolerations,
    TopologySpreadConstraints,
)
from mooring.api.retraining_spec import RetrainingSpec
from mooring.api.rollout_spec import MAX_REPLICAS, RolloutSpec
from mooring.api.schema_types import (
    API_VERSION,
    ATOMIC,
    DNS_LABEL_PATTERN,
    PRESERVE,
    ApiModel,
    ObjectName,
    Rule,
    StrictInt,
    matcher,
    pattern_rule,
)
from mooring.api.traffic_spec import TrafficSpec

MAX_NAME_LENGTH = 40
NAME_PATTERN = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"

SCHEMES: tuple[str, ...] = (
    "s3", "gs", "az", "abfs", "abfss", "hf", "oci", "https", "pvc", "mlflow",
    "file",
)  # fmt: skip
"""Where this version can load models from."""
LATER_SCHEMES: tuple[str, ...] = ("http",)
"""Schemes that users try and this version refuses."""

_SCHEME_PATTERN = r"^[A-Za-z][A-Za-z0-9+.-]*://"
_SUPPORTED_PATTERN = f"^({'|'.join(SCHEMES)})://"
_LOCATION_PATTERN = (
    r"^(s3://[A-Za-z0-9][A-Za-z0-9._-]*/[^\s]+"
    r"|gs://[A-Za-z0-9][A-Za-z0-9._-]*/[^\s]+"
    r"|(az|abfss?)://[$a-z0-9][a-z0-9-]*(@[a-z0-9]+([.](blob|dfs)[.]core[.]"
    r"(windows[.]net|chinacloudapi[.]cn|usgovcloudapi[.]net))?)?/[^\s]+"
    r"|hf://[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*"
    r"(@[A-Za-z0-9][A-Za-z0-9._%-]*)?(/[^\s]*)?"
    r"|oci://[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]+)?/[a-z0-9][a-z0-9._/-]*"
    r"(:[A-Za-z0-9_][A-Za-z0-9._-]*|(:[A-Za-z0-9_][A-Za-z0-9._-]*)?@sha256:[0-9a-f]{64})"
    r"|https://[A-Za-z0-9.\[\]:_-]+/[^\s]+"
    r"|pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[^\s]*)?"
    r"|mlflow://[A-Za-z0-9_][A-Za-z0-9._-]*(@[A-Za-z0-9_-]+|/[1-9][0-9]{0,17})"
    r"|file:///[^\s]+)$"
)
_CLIMBING_PATTERN = r"(^|/)\.\.(/|$)"


_climbs = matcher(_CLIMBING_PATTERN)

ModelUri = Annotated[
    str,
    Field(max_length=2048),
    pattern_rule(
        _SCHEME_PATTERN,
        "has no scheme: write where the model is, such as s3://bucket/path, gs://bucket/path, "
        "az://container@account/path, hf://org/repo, oci://registry/repo:tag, https://host/path, "
        "pvc://claim/path, mlflow://model@alias or file:///path",
    ),
    Rule(
        cel=f"!self.matches(r'{_SCHEME_PATTERN}') || self.matches(r'{_SUPPORTED_PATTERN}')",
        message=(
            "has a scheme that this version does not load from (http is among them): "
            "use s3, gs, az, hf, oci, https, pvc, mlflow or file"
        ),
        check=matcher(_SUPPORTED_PATTERN),
    ),
    Rule(
        cel=f"!self.matches(r'{_SUPPORTED_PATTERN}') || self.matches(r'{_LOCATION_PATTERN}')",
        message=(
            "is incomplete or malformed: write s3://bucket/path, gs://bucket/path, "
            "az://container@account/path, hf://org/repo@revision/path, "
            "oci://registry/repo:tag (or @sha256:…), https://host/path (user and "
            "password belong in spec.model.credentials), pvc://claim/path, mlflow://model@alias "
            "(or mlflow://model/7) or file:///path, without blanks"
        ),
        check=matcher(_LOCATION_PATTERN),
    ),
    Rule(
        cel=f"!self.matches(r'{_CLIMBING_PATTERN}')",
        message="must not contain the path segment '..': write the path without it",
        check=lambda uri: not _climbs(uri),
    ),
]

_DIGEST_PATTERN = r"^sha256:[0-9a-f]{64}$"
Digest = Annotated[
    str,
    Field(max_length=128),
    pattern_rule(
        _DIGEST_PATTERN,
        "must be sha256: and 64 lower-case hexadecimal digits: `mooring digest <uri>` prints it",
    ),
]

_SERVED_NAME_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$"
ServedName = Annotated[
    str,
    Field(max_length=63),
    pattern_rule(
        _SERVED_NAME_PATTERN,
        "must consist of letters, digits, '-', '_' and '.', beginning and ending with a letter "
        "or digit: it becomes part of URLs and paths",
    ),
]
FormatName = Annotated[
    str,
    Field(max_length=40),
    pattern_rule(
        DNS_LABEL_PATTERN,
        "must be lower-case letters, digits and '-', such as onnx or tensorflow",
    ),
]
_VERSION_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"
ImageTag = Annotated[
    str,
    Field(max_length=128),
    pattern_rule(
        _VERSION_PATTERN,
        "must be an image tag: letters, digits, '_', '.' and '-', such as 0.12.0-cpu",
    ),
]


class ModelFormat(ApiModel):
    """The format of the model's files; the runtime must offer it."""

    name: FormatName
    """Name of the format. Example: onnx."""
    version: Annotated[str, Field(min_length=1, max_length=32)] | None = None
    """Version of the format, in quotes; unset means any that the runtime offers. Example: "1"."""


class ModelCredentials(ApiModel):
    """What the fetcher needs to read the model store; it alone gets to see them."""

    secret_name: ObjectName
    """Name of a Secret in the same namespace, mounted into the fetcher only. For s3 its keys are
    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_ENDPOINT_URL and AWS_REGION;
    for https they are token, or username and password; for the others see docs/stores.md."""


class ModelSpec(ApiModel):
    """The model: where its bytes are and what they are. A change here makes a new revision."""

    uri: ModelUri
    """Where the model is: s3://bucket/path, gs://bucket/path, az://container@account/path (or
    abfs://), hf://org/repo@revision/path, oci://registry/repo:tag, https://host/path,
    pvc://claim/path, mlflow://model@alias (or model/7) in the administrator's registry, or file:///path
    for a model inside the server's image. A file, a folder, or an archive (.tar, .tar.gz, .zip),
    which is unpacked. Example: s3://models/fraud/v7."""
    digest: Digest | None = None
    """What the bytes must be: sha256: and 64 hexadecimal digits, verified before the server
    starts. Unset: the first pod of the revision fixes it, and every later one must match.
    `mooring digest <uri>` prints it; for oci:// it is the manifest's. Not with file://."""
    format: ModelFormat | None = None
    """The format of the files, checked against what the runtime offers; unset means that the
    runtime's word is taken for it."""
    credentials: ModelCredentials | None = None
    """Credentials for the model store; unset means anonymous access."""
    name: ServedName | None = None
    """The name under which clients ask for the model; default is metadata.name.
    Example: fraud."""

    rules = (
        Rule(
            cel="!self.uri.startsWith('file://') || !has(self.digest)",
            message=(
                "digest cannot be verified for a file:// model, which is part of the server's "
                "image: remove digest, and pin the image by its digest instead"
            ),
            check=lambda m: not m.uri.startswith("file://") or m.digest is None,
        ),
        Rule(
            cel=(
                "!has(self.digest) || !self.uri.startsWith('oci://') || !self.uri.contains('@') || "
                "self.uri.endsWith('@' + self.digest)"
            ),
            message="digest is another than the URI's, after its '@': leave one of them out",
            check=lambda m: (
                m.digest is None
                or not m.uri.startswith("oci://")
                or "@" not in m.uri
                or m.uri.endswith(f"@{m.digest}")
            ),
        ),
    )


class RuntimeSpec(ApiModel):
    """The server that runs the model. A change here makes a new revision."""

    name: ObjectName
    """Name of a ModelRuntime in this namespace or else of a ClusterModelRuntime.
    Example: onnx."""
    version: ImageTag | None = None
    """Tag of the server's image in place of the runtime's own. Example: 0.12.0-cpu."""
    env: EnvVars | None = None
    """Environment variables of the server; one of the same name replaces the runtime's.
    At most 64. Example: [{name: OMP_NUM_THREADS, value: "2"}]."""
    args: Arguments | None = None
    """Arguments of the server, added after the runtime's. At most 128."""
    resources: Resources | None = None
    """CPU, memory and devices of the server; takes the place of the runtime's as a whole.
    Example: {requests: {cpu: 500m, memory: 512Mi}}."""
    node_selector: Annotated[dict[str, LabelValue], Field(max_length=32)] | None = None
    """Labels that a node must have to run the pods. Example: {kubernetes.io/arch: amd64}."""
    tolerations: Tolerations | None = None
    """Taints that the pods tolerate, for nodes with GPUs for instance."""
    service_account_name: ObjectName | None = None
    """ServiceAccount of the pods; unset means one of their own without any rights. No token is
    mounted either way."""
    image_pull_secrets: ImagePullSecrets | None = None
    """Secrets with credentials for the image registry."""
    pod_labels: PodLabels | None = None
    """Further labels of the pods, for a mesh or cost centres. The operator's own (mooring.dev/…)
    cannot be set."""
    pod_annotations: PodAnnotations | None = None
    """Further annotations of the pods. The operator's own (mooring.dev/…) cannot be set."""
    affinity: Annotated[dict[str, Any], Field(max_length=3, json_schema_extra=PRESERVE)] | None = (
        None
    )
    """Affinity of the pods, exactly as in core/v1: nodeAffinity, podAffinity, podAntiAffinity."""
    topology_spread_constraints: TopologySpreadConstraints | None = None
    """How the pods spread over nodes and zones; unset means evenly over both as far as possible,
    an empty list means no rule."""
    priority_class_name: ObjectName | None = None
    """PriorityClass of the pods."""


METRIC_TYPES = ("Resource", "ContainerResource", "Pods", "Object", "External")


def _metric_has_type(metric: Any) -> bool:
    return isinstance(metric, dict) and metric.get("type") in METRIC_TYPES


AutoscalingMetric = Annotated[
    dict[str, Any],
    Field(
        description="One metric, exactly as in autoscaling/v2.",
        json_schema_extra=PRESERVE
        | {
            "required": ["type"],
            "properties": {
                "type": {
                    "type": "string",
                    "maxLength": 32,
                    "description": "Kind of the metric: " + ", ".join(METRIC_TYPES) + ".",
                }
            },
        },
    ),
    Rule(
        cel="self.type in [" + ", ".join(f"'{name}'" for name in METRIC_TYPES) + "]",
        message="type must be one of " + ", ".join(METRIC_TYPES) + ", as in autoscaling/v2",
        check=_metric_has_type,
    ),
]

Replicas = Annotated[StrictInt, Field(ge=0, le=MAX_REPLICAS)]


class Autoscaling(ApiModel):
    """Lets a HorizontalPodAutoscaler choose the number of pods."""

    min_replicas: Annotated[StrictInt, Field(ge=1, le=MAX_REPLICAS)] | None = None
    """The least number of pods; 1 when unset."""
    max_replicas: Annotated[StrictInt, Field(ge=1, le=MAX_REPLICAS)]
    """The greatest number of pods, at most 1000."""
    metrics: (
        Annotated[tuple[AutoscalingMetric, ...], Field(max_length=16, json_schema_extra=ATOMIC)]
        | None
    ) = None
    """What to scale on, exactly as in autoscaling/v2; unset means 80 % of the CPU requested."""

    rules = (
        Rule(
            cel="!has(self.minReplicas) || self.minReplicas <= self.maxReplicas",
            message="minReplicas exceeds maxReplicas: lower minReplicas or raise maxReplicas",
            check=lambda a: a.min_replicas is None or a.min_replicas <= a.max_replicas,
        ),
    )


_COUNTED = "self.analysis.metrics.exists(m, has(m.errorRate) || has(m.latency))"
_OBJECTIVE = (
    "self.analysis.metrics.exists(m, has(m.errorRate) && has(m.errorRate.max) || "
    "has(m.latency) && has(m.latency.max))"
)


def _splits_traffic(spec: ModelDeploymentSpec) -> bool:
    """Whether some step shows what the metrics count, so that the candidate can pass by it."""
    if spec.analysis is None or not spec.analysis.counted or not spec.rollout.steps:
        return True
    return any(
        step.weight is not None and (step.weight < 100 or spec.analysis.has_objective)
        for step in spec.rollout.steps
    )


ANALYSIS_RULES = (
    Rule(
        cel="has(self.analysis) || !has(self.rollout) || !has(self.rollout.advance) || "
        "self.rollout.advance == 'OnTime'",
        message="advance: OnPass needs spec.analysis: without it nothing can pass",
        check=lambda s: s.analysis is not None or s.rollout.advance == "OnTime",
        field=".rollout.advance",
    ),
    Rule(
        cel="has(self.analysis) || !has(self.rollout) || !has(self.rollout.onInconclusive) || "
        "self.rollout.onInconclusive == 'Hold'",
        message="onInconclusive needs spec.analysis: without it nothing is judged",
        check=lambda s: s.analysis is not None or s.rollout.on_inconclusive == "Hold",
        field=".rollout.onInconclusive",
    ),
    Rule(
        cel="!has(self.analysis) || has(self.rollout) && "
        "(has(self.rollout.bake) || has(self.rollout.steps))",
        message="has nothing to judge: give rollout.steps or rollout.bake",
        check=lambda s: (
            s.analysis is None or s.rollout.bake is not None or s.rollout.steps is not None
        ),
        field=".analysis",
    ),
    Rule(
        cel=f"!has(self.analysis) || !{_COUNTED} || !has(self.rollout) || "
        "!has(self.rollout.steps) || self.rollout.steps.exists(s, has(s.weight) && "
        f"(s.weight < 100 || {_OBJECTIVE}))",
        message=(
            "errorRate and latency are counted in steps with a weight below 100: add one, or the "
            "candidate can never pass"
        ),
        check=_splits_traffic,
        field=".rollout.steps",
    ),
    Rule(
        cel=f"!has(self.analysis) || !{_COUNTED} || {_OBJECTIVE} || !has(self.rollout) || "
        "!has(self.rollout.bake) || !has(self.rollout.bake.previousWeight) || "
        "self.rollout.bake.previousWeight > 0",
        message=(
            "bake needs previousWeight or an absolute objective (max): with all traffic on the "
            "candidate there is nothing to compare it with"
        ),
        check=lambda s: (
            s.analysis is None
            or not s.analysis.counted
            or s.analysis.has_objective
            or s.rollout.bake is None
            or s.rollout.bake.previous_weight > 0
        ),
        field=".rollout.bake",
    ),
)


class ModelDeploymentSpec(ApiModel):
    """What is wanted: a model, a server for it, and a number of pods."""

    model: ModelSpec
    """The model: where its bytes are and what they are. A change makes a new revision."""
    runtime: RuntimeSpec
    """The server that runs the model. A change makes a new revision."""
    replicas: Replicas | None = None
    """Number of pods, 0 to 1000; 1 when unset. Not together with autoscaling."""
    autoscaling: Autoscaling | None = None
    """Lets the number of pods follow the load. Not together with replicas."""
    traffic: TrafficSpec = Field(default_factory=TrafficSpec, json_schema_extra={"default": {}})
    """How requests reach the pods. A change starts no rollout."""
    rollout: RolloutSpec = Field(default_factory=RolloutSpec, json_schema_extra={"default": {}})
    """How a new revision takes over from the stable one."""
    analysis: AnalysisSpec | None = None
    """What a candidate is judged by; unset means that time and people alone decide. A change starts
    no rollout."""
    monitoring: MonitoringSpec | None = None
    """Watches the model's data for drift and defects. A change starts no rollout."""
    retraining: RetrainingSpec | None = None
    """When a new model is asked for, and who makes it."""

    rules = (
        Rule(
            cel="!has(self.replicas) || !has(self.autoscaling)",
            message=(
                "replicas and autoscaling exclude each other: remove replicas to let the "
                "autoscaler choose, or remove autoscaling"
            ),
            check=lambda s: s.replicas is None or s.autoscaling is None,
        ),
        Rule(
            cel=(
                "!has(self.autoscaling) || !has(self.rollout) || !has(self.rollout.maxSurge) || "
                "self.rollout.maxSurge == '100%'"
            ),
            message=(
                "rollout.maxSurge and autoscaling exclude each other: the autoscaler decides how "
                "many stable pods there are, so a rollout cannot take some of them away; remove "
                "maxSurge"
            ),
            check=lambda s: s.autoscaling is None or s.rollout.max_surge in (None, "100%"),
        ),
        Rule(
            cel=(
                "!has(self.traffic) || !has(self.traffic.router) || "
                "self.traffic.router != 'replicas' || !has(self.rollout) || "
                "!has(self.rollout.steps) || "
                "self.rollout.steps.all(s, !has(s.mirror) && !has(s.match))"
            ),
            message=(
                "router replicas can neither mirror nor match: use router envoy or gateway, or "
                "steps of weight, pause and replicas"
            ),
            check=lambda s: (
                s.traffic.router != "replicas"
                or all(step.mirror is None and step.match is None for step in s.rollout.steps or ())
            ),
        ),
        *ANALYSIS_RULES,
    )


def _name_fits(resource: ModelDeployment) -> bool:
    name = resource.metadata.name
    return len(name) <= MAX_NAME_LENGTH and matcher(NAME_PATTERN)(name)


class ModelDeployment(ApiModel):
    """Serves a declared model. A change of spec.model or spec.runtime makes a new revision, which
    takes over from the stable one only when it is ready.
    """

    api_version: Literal["mooring.dev/v1alpha1"] = API_VERSION
    """Version of this schema: mooring.dev/v1alpha1."""
    kind: Literal["ModelDeployment"] = "ModelDeployment"
    """Kind of the object: ModelDeployment."""
    metadata: ObjectMeta
    """Standard metadata of the object."""
    spec: ModelDeploymentSpec
    """What is wanted: a model, a server for it, and a number of pods."""
    status: ModelDeploymentStatus | None = None
    """What is served, what is rolling out, and why. Written by the operator alone."""

    rules = (
        Rule(
            cel=(
                f"self.metadata.name.size() <= {MAX_NAME_LENGTH} && "
                f"self.metadata.name.matches(r'{NAME_PATTERN}')"
            ),
            message=(
                "must be at most 40 lower-case letters, digits and '-', beginning "
                "with a letter and ending with a letter or digit: choose a shorter or simpler "
                "name, since Services and pods are named after it"
            ),
            check=_name_fits,
            field=".metadata.name",
        ),
    )
