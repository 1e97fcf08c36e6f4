"""The kinds of objects that Mooring reads and writes, and how the API server addresses them.

One table, so that the renderers, the store, the watches and the client agree on names.
"""

from __future__ import annotations

from dataclasses import dataclass

GROUP = "mooring.dev"
VERSION = "v1alpha1"


@dataclass(frozen=True, slots=True)
class Kind:
    """An API resource: ``group`` is empty for the core group; ``plural`` as in URLs."""

    group: str
    version: str
    name: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """``apps/v1``, or ``v1`` for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """The URL path of a collection (no ``name``), an object or its subresource."""
        prefix = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        where = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        parts = [prefix + where, self.plural, name, subresource]
        return "/".join(part for part in parts if part)


MODEL_DEPLOYMENT = Kind(GROUP, VERSION, "ModelDeployment", "modeldeployments")
MODEL_RUNTIME = Kind(GROUP, VERSION, "ModelRuntime", "modelruntimes")
CLUSTER_MODEL_RUNTIME = Kind(
    GROUP, VERSION, "ClusterModelRuntime", "clustermodelruntimes", namespaced=False
)

CONTROLLER_REVISION = Kind("apps", "v1", "ControllerRevision", "controllerrevisions")
CONFIG_MAP = Kind("", "v1", "ConfigMap", "configmaps")
SERVICE_ACCOUNT = Kind("", "v1", "ServiceAccount", "serviceaccounts")
NETWORK_POLICY = Kind("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies")
POD_DISRUPTION_BUDGET = Kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
SERVICE = Kind("", "v1", "Service", "services")
DEPLOYMENT = Kind("apps", "v1", "Deployment", "deployments")
AUTOSCALER = Kind("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")

HTTP_ROUTE = Kind("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes")
#: What retraining needs. None are children: requests may be made by hand, and Jobs belong to them.
RETRAINING_REQUEST = Kind(GROUP, VERSION, "RetrainingRequest", "retrainingrequests")
JOB = Kind("batch", "v1", "Job", "jobs")
POD_TEMPLATE = Kind("", "v1", "PodTemplate", "podtemplates")

POD = Kind("", "v1", "Pod", "pods")
EVENT = Kind("", "v1", "Event", "events")

#: Children in the order in which they are written: what others refer to comes first, and the
#: record of a revision before anything that is made from it.
CHILD_KINDS: tuple[Kind, ...] = (
    CONTROLLER_REVISION,
    CONFIG_MAP,
    SERVICE_ACCOUNT,
    NETWORK_POLICY,
    POD_DISRUPTION_BUDGET,
    SERVICE,
    DEPLOYMENT,
    AUTOSCALER,
)

#: Children of a kind that not every cluster has. They are written after all others.
OPTIONAL_KINDS: tuple[Kind, ...] = (HTTP_ROUTE,)

KIND_BY_NAME: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        MODEL_DEPLOYMENT,
        MODEL_RUNTIME,
        CLUSTER_MODEL_RUNTIME,
        *CHILD_KINDS,
        *OPTIONAL_KINDS,
        RETRAINING_REQUEST,
        JOB,
        POD_TEMPLATE,
        POD,
        EVENT,
    )
}


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """Names one object of a namespace: ``Ref("Deployment", "fraud-7c9f")``."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


# Labels and annotations. Labels select; annotations of ControllerRevisions are the durable record.
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED_BY = "mooring"
LABEL_INSTANCE = "app.kubernetes.io/instance"
LABEL_DEPLOYMENT = f"{GROUP}/deployment"
LABEL_REVISION = f"{GROUP}/revision"
#: On what is made for a RetrainingRequest, pods of its Job among it.
LABEL_REQUEST = f"{GROUP}/retraining-request"

ANNOTATION_ACTION = f"{GROUP}/action"
ANNOTATION_FINGERPRINT = f"{GROUP}/fingerprint"
ANNOTATION_PROMOTION = f"{GROUP}/promotion"
ANNOTATION_PROMOTED_AT = f"{GROUP}/promoted-at"
ANNOTATION_REJECTED = f"{GROUP}/rejected"
ANNOTATION_PAUSED = f"{GROUP}/paused"
ANNOTATION_RESTART = f"{GROUP}/restart"
ANNOTATION_ACKNOWLEDGED = f"{GROUP}/acknowledged"
ANNOTATION_DIGEST = f"{GROUP}/model-digest"
ANNOTATION_ROLLOUT = f"{GROUP}/rollout"
ANNOTATION_RETRAINING = f"{GROUP}/retraining"
ANNOTATION_ADOPTED = f"{GROUP}/adopted"
#: On a ControllerRevision: a registry names its model.
ANNOTATION_NAMED = f"{GROUP}/named"
ANNOTATION_ROUTED = f"{GROUP}/routed-since"
#: On the record of a revision that got routers only later: their pod template as JSON.
ANNOTATION_ROUTER = f"{GROUP}/router-template"
#: On a router's ConfigMap: its table as JSON, and the version that its files say they are.
ANNOTATION_TABLE = f"{GROUP}/table"
ANNOTATION_VERSION = f"{GROUP}/routes-version"
#: On an HTTPRoute: since when every Gateway has accepted it as it is.
ANNOTATION_ACCEPTED = f"{GROUP}/accepted-since"
#: On the public Service and on router objects: what a pod or object is part of.
LABEL_COMPONENT = "app.kubernetes.io/component"
COMPONENT_ROUTER = "router"
COMPONENT_COLLECTOR = "collector"
