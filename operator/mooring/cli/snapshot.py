"""What the view is drawn from: a ModelDeployment and its pods, as they were at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mooring.cli.cluster import Cluster, Json
from mooring.cli.failure import Failure
from mooring.core import kinds, pods

#: The live revisions that a status knows, in the order in which they are shown.
ROLES = ("stable", "candidate", "previous")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Raw objects. ``pods_unknown`` says why the pods are not known, when they are not."""

    resource: Json
    pods: tuple[Json, ...] = ()
    pods_unknown: str = ""

    @property
    def name(self) -> str:
        return str(self.resource["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.resource["metadata"]["namespace"])

    @property
    def generation(self) -> int:
        return int(self.resource["metadata"].get("generation") or 0)

    @property
    def status(self) -> Json:
        return self.resource.get("status") or {}

    @property
    def unseen(self) -> bool:
        """Whether the operator has not yet looked at the newest spec."""
        return int(self.status.get("observedGeneration") or 0) < self.generation

    @property
    def told(self) -> Json:
        """The status for programs: without what only the judge itself can read."""
        analysis = self.status.get("analysis")
        if not analysis:
            return self.status
        kept = {name: value for name, value in analysis.items() if name != "state"}
        return {**self.status, "analysis": kept}

    def part(self, name: str) -> Json:
        """One object of the status, empty when it is not there."""
        return self.status.get(name) or {}

    def condition(self, kind: str) -> Json:
        """The condition of this type, empty when there is none."""
        found = (c for c in self.status.get("conditions") or () if c.get("type") == kind)
        return next(found, {})

    def holds(self, kind: str) -> bool:
        """Whether this condition is True."""
        return bool(self.condition(kind).get("status") == "True")

    def pods_of(self, revision: str) -> list[Json]:
        """The pods that serve this revision, by name."""
        return [pod for pod in self.pods if label(pod, kinds.LABEL_REVISION) == revision]

    @property
    def leaving(self) -> dict[str, list[Json]]:
        """Pods of revisions that status does not speak of any more, by revision."""
        live = {self.part(role).get("revision") for role in ROLES}
        found: dict[str, list[Json]] = {}
        for pod in self.pods:
            revision = label(pod, kinds.LABEL_REVISION)
            if revision and revision not in live:
                found.setdefault(revision, []).append(pod)
        return found

    @property
    def router_pods(self) -> list[Json]:
        return [
            pod for pod in self.pods if label(pod, kinds.LABEL_COMPONENT) == kinds.COMPONENT_ROUTER
        ]


def label(pod: Json, name: str) -> str:
    """The value of a label, empty when the pod has none of this name."""
    return str((pod["metadata"].get("labels") or {}).get(name) or "")


def leaves(pod: Json) -> bool:
    """Whether the pod was told to end."""
    return bool(pod["metadata"].get("deletionTimestamp"))


def pod_selector(name: str) -> str:
    """Selects every pod of a ModelDeployment, those of its router among them.

    ``mooring.dev/deployment`` would not do: it selects the pods that serve, and no others.
    """
    return f"{kinds.LABEL_MANAGED_BY}={kinds.MANAGED_BY},{kinds.LABEL_INSTANCE}={name}"


def read(cluster: Cluster, name: str) -> Snapshot:
    """The ModelDeployment and its pods; who may not list pods gets the rest all the same."""
    resource = cluster.get(kinds.MODEL_DEPLOYMENT, name)
    try:
        found, _ = cluster.objects(kinds.POD, labels=pod_selector(name))
    except Failure as failure:
        return Snapshot(resource, pods_unknown=failure.message)
    return Snapshot(resource, tuple(found))


def as_data(snapshot: Snapshot) -> Json:
    """What ``-o json`` prints: names, the whole status, and what the pods say."""
    meta = snapshot.resource["metadata"]
    shown: dict[str, Any] = {
        "name": snapshot.name,
        "namespace": snapshot.namespace,
        "generation": snapshot.generation,
        "created": meta.get("creationTimestamp"),
        "status": snapshot.told,
        "pods": [_pod(pod) for pod in snapshot.pods],
    }
    if snapshot.pods_unknown:
        shown["podsUnknown"] = snapshot.pods_unknown
    return shown


def _pod(pod: Json) -> Json:
    found = pods.report(pod)
    return {
        "name": found.name,
        "revision": label(pod, kinds.LABEL_REVISION) or None,
        "component": label(pod, kinds.LABEL_COMPONENT) or None,
        "ready": found.ready,
        "leaving": leaves(pod),
        "restarts": found.restarts,
        "reason": found.reason or None,
        "message": found.message or None,
    }
