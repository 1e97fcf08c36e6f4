"""The resources of mooring.dev/v1alpha1 as pydantic models: the one source of their schemas."""

from __future__ import annotations

from mooring.api.conditions import Condition
from mooring.api.metadata import ObjectMeta
from mooring.api.modeldeployment import (
    Autoscaling,
    ModelCredentials,
    ModelDeployment,
    ModelDeploymentSpec,
    ModelFormat,
    ModelSpec,
    RuntimeSpec,
)
from mooring.api.modeldeployment_status import (
    LastAction,
    ModelDeploymentStatus,
    RejectedRevision,
    RevisionReplicas,
    RevisionStatus,
    RolloutStatus,
    RouterStatus,
)
from mooring.api.modelruntime import (
    PLACEHOLDERS,
    ClusterModelRuntime,
    ConfigFile,
    MetricsEndpoint,
    ModelRuntime,
    Probe,
    RuntimePort,
    RuntimeSecurity,
    RuntimeTemplate,
    SupportedFormat,
)
from mooring.api.pod_fields import (
    EnvVar,
    EnvVarSource,
    LocalObjectReference,
    Resources,
    Toleration,
    TopologySpreadConstraint,
)
from mooring.api.retrainingrequest import (
    RetrainingRequest,
    RetrainingRequestSpec,
    RetrainingRequestStatus,
    RetrainingResult,
)
from mooring.api.rollout_spec import Bake, HeaderMatch, Pause, RolloutSpec, RolloutStep
from mooring.api.schema_types import API_VERSION, GROUP, VERSION, ApiModel, parse_duration
from mooring.api.traffic_spec import (
    CookieAffinity,
    OutlierDetection,
    SessionAffinity,
    TrafficSpec,
)
from mooring.api.validation import (
    InvalidResource,
    lint,
    parse_cluster_model_runtime,
    parse_model_deployment,
    parse_model_runtime,
    parse_retraining_request,
    parse_runtime_template,
    parse_status,
)

__all__ = [
    "API_VERSION",
    "GROUP",
    "PLACEHOLDERS",
    "VERSION",
    "ApiModel",
    "Autoscaling",
    "Bake",
    "ClusterModelRuntime",
    "Condition",
    "ConfigFile",
    "CookieAffinity",
    "EnvVar",
    "EnvVarSource",
    "HeaderMatch",
    "InvalidResource",
    "LastAction",
    "LocalObjectReference",
    "MetricsEndpoint",
    "ModelCredentials",
    "ModelDeployment",
    "ModelDeploymentSpec",
    "ModelDeploymentStatus",
    "ModelFormat",
    "ModelRuntime",
    "ModelSpec",
    "ObjectMeta",
    "OutlierDetection",
    "Pause",
    "Probe",
    "RejectedRevision",
    "Resources",
    "RetrainingRequest",
    "RetrainingRequestSpec",
    "RetrainingRequestStatus",
    "RetrainingResult",
    "RevisionReplicas",
    "RevisionStatus",
    "RolloutSpec",
    "RolloutStatus",
    "RolloutStep",
    "RouterStatus",
    "RuntimePort",
    "RuntimeSecurity",
    "RuntimeSpec",
    "RuntimeTemplate",
    "SessionAffinity",
    "SupportedFormat",
    "Toleration",
    "TopologySpreadConstraint",
    "TrafficSpec",
    "lint",
    "parse_cluster_model_runtime",
    "parse_duration",
    "parse_model_deployment",
    "parse_model_runtime",
    "parse_retraining_request",
    "parse_runtime_template",
    "parse_status",
]
