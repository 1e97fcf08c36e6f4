"""How many pods a revision has and should have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mooring.api import ModelDeploymentSpec
from mooring.core.render.autoscaler import minimum
from mooring.core.render.pod import DIGEST_KEY
from mooring.core.revision import Revision


@dataclass(frozen=True, slots=True)
class Capacity:
    """A revision's Deployment in numbers of pods.

    ``set`` is what ``spec.replicas`` says now, ``pods`` how many there are, ``ready`` and
    ``available`` how many of them were counted last. ``current`` says that the Deployment's
    controller has seen the present generation. Pods do not go away because it has not: a
    revision's template never changes, so until then its last count stands, or every scaling would
    look like an outage. ``refused`` is why pods could not be created (a quota, an admission
    policy).
    """

    exists: bool = False
    set: int = 0
    pods: int = 0
    ready: int = 0
    available: int = 0
    refused: str = ""
    current: bool = False

    def serves(self, wanted: int) -> bool:
        """Whether all pods asked for are there and available, beyond doubt."""
        return self.exists and self.current and self.set == wanted and self.available >= wanted


def capacity(deployment: Mapping[str, Any] | None) -> Capacity:
    """Reads a raw Deployment."""
    if deployment is None:
        return Capacity()
    wanted = int(deployment["spec"].get("replicas", 1))
    status = deployment.get("status") or {}
    refused = next(
        (
            str(c.get("message") or c.get("reason") or "pods could not be created")
            for c in status.get("conditions") or ()
            if c.get("type") == "ReplicaFailure" and c.get("status") == "True"
        ),
        "",
    )
    return Capacity(
        exists=True,
        set=wanted,
        pods=int(status.get("replicas", 0)),
        ready=int(status.get("readyReplicas", 0)),
        available=int(status.get("availableReplicas", 0)),
        refused=refused,
        current=int(status.get("observedGeneration", 0))
        >= int(deployment["metadata"].get("generation", 0)),
    )


def total(spec: ModelDeploymentSpec, stable: Capacity) -> int:
    """The pods that the whole deployment should have, from the spec or from its autoscaler."""
    floor = needed(spec)
    if spec.autoscaling is None or not stable.exists:
        return floor
    return min(max(stable.set, floor), spec.autoscaling.max_replicas)


def needed(spec: ModelDeploymentSpec) -> int:
    """The pods that the spec asks for in so many words: an autoscaler's least, since what it asks
    for beyond that comes and goes with the load.
    """
    if spec.autoscaling is not None:
        return minimum(spec.autoscaling)
    return spec.replicas if spec.replicas is not None else 1


def digest_pinned(revision: Revision, config_map: Mapping[str, Any] | None) -> bool:
    """Whether every further pod is bound to one digest of the model.

    It is the ConfigMap as it stands in the cluster that counts, since that is what pods mount.
    """
    if not revision.rendered.fetched or revision.declared_digest:
        return True
    return bool(config_map and (config_map.get("data") or {}).get(DIGEST_KEY))
