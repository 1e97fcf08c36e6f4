"""Everything a decision may depend on, as plain values.

The engine fills an :class:`Observed` from its store and, where :func:`revisions_to_inspect` asks
for it, from a list of pods; then :func:`mooring.core.plan.decide` runs without any I/O. If a
decision turns out to need something else, the field belongs here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from mooring.api import status_fits
from mooring.core import kinds
from mooring.core.kinds import Ref
from mooring.core.pods import PodReport
from mooring.core.render.router.table import read_table
from mooring.core.retrain.facts import RetrainingFacts
from mooring.core.traffic import RouterReport

if TYPE_CHECKING:
    from mooring.core.examination import Evidence
    from mooring.core.registry import Answer

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class StoreEgress:
    """Where model pods may fetch from: a CIDR without ``excluded`` ranges; no ports means all."""

    cidr: str
    excluded: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeCache:
    """Where fetchers find the cache of models on their node: a Service of the operator's namespace
    whose port is also its pods'.
    """

    url: str
    port: int


@dataclass(frozen=True, slots=True)
class RenderSettings:
    """What the administrator decides for all models.

    Only rendering of *new* revisions reads the image settings: a changed image restarts nothing.
    """

    fetcher_image: str = "mooring.dev/fetcher:dev"
    pull_policy: str | None = None
    require_digest: bool = False
    #: Nodes mount images as volumes, so that ``oci://`` needs no fetcher.
    image_volumes: bool = False
    #: Anywhere but the addresses where clouds hand out the node's credentials.
    model_stores: tuple[StoreEgress, ...] = (
        StoreEgress("0.0.0.0/0", excluded=("169.254.0.0/16",)),
        StoreEgress("::/0", excluded=("fe80::/10", "fd00:ec2::254/128")),
    )
    #: None where nodes have no cache: each pod fetches for itself.
    node_cache: NodeCache | None = None
    prometheus_namespace_labels: Mapping[str, str] = field(
        default_factory=lambda: {"kubernetes.io/metadata.name": "monitoring"}
    )
    prometheus_pod_labels: Mapping[str, str] = field(default_factory=dict)
    #: The most that one model may be (bytes). Its volume holds twice as much: an archive lies next
    #: to what is unpacked from it.
    max_model_bytes: int = 128 << 30
    #: How long the pods of a replaced revision stay after traffic has left them.
    drain: timedelta = timedelta(seconds=15)
    #: Pods sleep this long before they stop, so that endpoints are withdrawn first (seconds).
    pre_stop_seconds: int = 8
    router_image: str = "mooring.dev/router:dev"
    router_pull_policy: str | None = None
    collector_image: str = "mooring.dev/collector:dev"
    #: Where the operator runs: from there routers are asked what they have taken.
    operator_namespace: str = "mooring-system"
    #: The cluster's DNS domain, in which routers look for the pods.
    cluster_domain: str = "cluster.local"
    #: Whether there is a Prometheus to read evidence from.
    prometheus: bool = False
    #: MLflow's tracking server, which names models and may hand out their files; empty: none.
    registry_url: str = ""
    #: How often what is under judgement is looked at.
    analysis_interval: timedelta = timedelta(seconds=10)
    #: How the scrape configuration calls the namespace and the pod of a target.
    scrape_namespace_label: str = "namespace"
    scrape_pod_label: str = "pod"


@dataclass(frozen=True, slots=True)
class Observed:
    """One ModelDeployment and all that belongs to it, at one moment.

    ``resource`` is the raw ModelDeployment. ``runtimes`` holds the raw specs by name, the
    namespace's own first; ``children`` the raw objects that carry our labels; ``foreign`` the
    names we need but which belong to somebody else; ``failures`` what the API server answered
    to the writes of the previous round. ``routers`` is what the router pods answered; None where
    nobody asked, since :func:`routers_to_ask` saw no need. ``evidence`` is what the last tick found
    of what the decision before had asked to be measured. ``unserved`` names the optional kinds that
    the cluster does not know. ``connected_since`` is when this process
    last began to see the cluster without a gap: deadlines give what happened before that a little
    grace. ``retraining`` is everything about requests for new models. ``registry`` is what the
    model registry last said of spec.model.uri; None where it has not been asked, or not answered.
    """

    now: datetime
    resource: Manifest
    children: Mapping[Ref, Manifest] = field(default_factory=dict)
    runtimes: Mapping[str, RuntimeSource] = field(default_factory=dict)
    pods: Mapping[str, tuple[PodReport, ...]] = field(default_factory=dict)
    foreign: Mapping[Ref, str] = field(default_factory=dict)
    failures: Mapping[Ref, str] = field(default_factory=dict)
    connected_since: datetime | None = None
    unserved: frozenset[str] = frozenset()
    settings: RenderSettings = field(default_factory=RenderSettings)
    routers: tuple[RouterReport, ...] | None = None
    evidence: Evidence | None = None
    retraining: RetrainingFacts = field(default_factory=RetrainingFacts)
    registry: Answer | None = None

    @property
    def name(self) -> str:
        return str(self.resource["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.resource["metadata"]["namespace"])

    @property
    def uid(self) -> str:
        return str(self.resource["metadata"].get("uid", ""))

    @property
    def generation(self) -> int:
        return int(self.resource["metadata"].get("generation", 0))

    @property
    def status(self) -> Manifest:
        return self.resource.get("status") or {}

    def with_sound_status(self) -> Observed:
        """Without a status that has not the form of this version's: it counts as lost.

        An older schema may have let it in; so may whoever has the right to write it.
        """
        raw = self.resource.get("status")
        if raw is None or status_fits(raw):
            return self
        return replace(self, resource={**self.resource, "status": {}})

    @property
    def router(self) -> str:
        """The router that the spec asks for, unparsed."""
        traffic = (self.resource.get("spec") or {}).get("traffic")
        return str(traffic.get("router", "envoy")) if isinstance(traffic, Mapping) else "envoy"

    @property
    def action(self) -> str | None:
        """The verb that somebody annotated, unparsed."""
        annotations = self.resource["metadata"].get("annotations") or {}
        return annotations.get(kinds.ANNOTATION_ACTION)

    def child(self, kind: kinds.Kind, name: str) -> Manifest | None:
        return self.children.get(Ref(kind.name, name))


@dataclass(frozen=True, slots=True)
class RuntimeSource:
    """A ModelRuntime or ClusterModelRuntime as stored: its kind, name and raw spec."""

    kind: str
    name: str
    spec: Manifest


def revisions_to_inspect(children: Mapping[Ref, Manifest]) -> frozenset[str]:
    """The revisions whose pods must be listed before deciding.

    Pods are not watched (a cluster has far more of them than Deployments); they are looked at
    only where a Deployment alone cannot explain itself: it lacks available replicas, or its model
    digest is not pinned yet.
    """
    found = set()
    for ref, child in children.items():
        if ref.kind != kinds.DEPLOYMENT.name:
            continue
        revision = (child["metadata"].get("labels") or {}).get(kinds.LABEL_REVISION)
        if revision is None or not child.get("status"):
            continue  # nothing has looked at this Deployment yet: it has no pods to ask about
        wanted = int(child["spec"].get("replicas", 1))
        status = child["status"]
        available = int(status.get("availableReplicas", 0))
        if available < wanted or (wanted > 0 and not _digest_pinned(children, ref.name)):
            found.add(revision)
    return frozenset(found)


def routers_to_ask(resource: Manifest, children: Mapping[Ref, Manifest]) -> bool:
    """Whether the router pods must be asked what they route by before deciding.

    Only while something moves: their configuration has a version that they were not seen to have
    taken, more than one revision has pods, traffic is on its way into halves or out of them, or it
    is not Ready yet.
    """
    config_map = children.get(Ref(kinds.CONFIG_MAP.name, f"{resource['metadata']['name']}-router"))
    if config_map is None:
        return False
    written = (config_map["metadata"].get("annotations") or {}).get(kinds.ANNOTATION_VERSION)
    status = resource.get("status")
    router = status.get("router") if isinstance(status, Mapping) else None
    if not isinstance(router, Mapping) or router.get("taken") != written:
        return True
    if not was_ready(status):
        return True  # DNS tells routers of pods some seconds after they are
    found = read_table(config_map)
    if found is not None and any(b.halved != b.divisible for b in found[0].backends):
        return True
    revisions = [
        ref
        for ref, child in children.items()
        if ref.kind == kinds.DEPLOYMENT.name
        and kinds.LABEL_REVISION in (child["metadata"].get("labels") or {})
    ]
    return len(revisions) > 1


def was_ready(status: object) -> bool:
    """Whether the status that was last written says so; whatever else it may hold."""
    conditions = status.get("conditions") if isinstance(status, Mapping) else None
    return any(
        isinstance(one, Mapping) and one.get("type") == "Ready" and one.get("status") == "True"
        for one in (conditions if isinstance(conditions, list) else ())
    )


def _digest_pinned(children: Mapping[Ref, Manifest], name: str) -> bool:
    """Whether the record needs no digest from a pod. One that cannot be read counts as such: the
    decision will say so, this must not raise before it.
    """
    record = children.get(Ref(kinds.CONTROLLER_REVISION.name, name)) or {}
    data = record.get("data")
    if not isinstance(data, Mapping) or not data.get("fetched", True):
        return True
    inputs = data.get("inputs")
    model = inputs.get("model") if isinstance(inputs, Mapping) else None
    if isinstance(model, Mapping) and model.get("digest"):
        return True
    return kinds.ANNOTATION_DIGEST in (record["metadata"].get("annotations") or {})
