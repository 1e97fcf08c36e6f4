"""Whether a deployment's requests are copied to a collector, and when its routers may begin.

Routers must be prepared before they are told to copy (``render.router.observation`` says why). So
the pods are changed first, and the copies begin once no unprepared one is left. Pods stay prepared
when monitoring is switched off: to undo it would restart them for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mooring.api import ModelDeploymentSpec
from mooring.core import kinds
from mooring.core.observed import Manifest, Observed
from mooring.core.render.collector import (
    COPIES_NUMBER,
    collector_address,
    collector_objects,
    collector_selector,
)
from mooring.core.render.router.envoy import CLUSTERS_FILE
from mooring.core.render.router.objects import router_name
from mooring.core.render.router.observation import (
    CLUSTER,
    CollectorAddress,
    is_prepared,
    prepared_template,
)
from mooring.core.revision import Revision


@dataclass(frozen=True, slots=True)
class Observation:
    """What the front does for it.

    Attributes:
        objects: the collector's.
        address: where routers send copies now; None while they may not, or need not.
        prepare: whether router pods are to be prepared.
    """

    objects: tuple[Manifest, ...] = ()
    address: CollectorAddress | None = None
    prepare: bool = False

    def template(self, template: Mapping[str, Any]) -> dict[str, Any]:
        """The router's pod template as it should be."""
        return prepared_template(template) if self.prepare else dict(template)

    def policy(self, policy: Manifest, deployment: str) -> Manifest:
        """The routers' NetworkPolicy, open towards the collector."""
        if not self.objects:
            return policy
        way = {
            "to": [{"podSelector": {"matchLabels": collector_selector(deployment)}}],
            "ports": [{"port": COPIES_NUMBER, "protocol": "TCP"}],
        }
        spec = policy["spec"]
        return policy | {"spec": spec | {"egress": [*spec["egress"], way]}}


def observation(
    observed: Observed, spec: ModelDeploymentSpec, serving: Revision, *, envoy: bool
) -> Observation:
    """``envoy``: whether the spec wants Envoy routers; nothing else copies."""
    routers = observed.child(kinds.DEPLOYMENT, router_name(observed.name))
    ready = routers is not None and is_prepared(routers["spec"]["template"])
    if spec.monitoring is None or not envoy:
        return Observation(prepare=ready)
    objects = collector_objects(
        spec.monitoring,
        _protocols(observed, serving),
        observed.settings,
        deployment=observed.name,
        namespace=observed.namespace,
        uid=observed.uid,
    )
    address = None
    if routers is not None and ready and (_copies(observed) or _rolled_out(routers)):
        domain = observed.settings.cluster_domain
        address = collector_address(observed.name, observed.namespace, domain)
    return Observation(objects, address, prepare=True)


def _protocols(observed: Observed, serving: Revision) -> tuple[str, ...]:
    """What the serving revision's runtime speaks; nothing where it is gone."""
    source = observed.runtimes.get(str(serving.rendered.runtime.get("name", "")))
    return tuple(source.spec.get("protocols") or ()) if source is not None else ()


def _copies(observed: Observed) -> bool:
    """Whether routers copy already: then all of them were prepared once, and are so since."""
    config_map = observed.child(kinds.CONFIG_MAP, router_name(observed.name))
    clusters = ((config_map or {}).get("data") or {}).get(CLUSTERS_FILE)
    return isinstance(clusters, str) and f'"{CLUSTER}"' in clusters


def _rolled_out(routers: Manifest) -> bool:
    """Whether every pod is of the present template, those that are ending among them."""
    status = routers.get("status") or {}
    replicas = int(status.get("replicas", 0))
    return (
        int(status.get("observedGeneration", 0)) >= int(routers["metadata"].get("generation", 0))
        and replicas > 0
        and int(status.get("updatedReplicas", 0)) == replicas
        and int(status.get("terminatingReplicas", 0)) == 0
    )
