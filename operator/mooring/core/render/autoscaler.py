"""The HorizontalPodAutoscaler of the revision that takes the traffic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mooring.api import Autoscaling
from mooring.core import kinds
from mooring.core.quantity import canonical
from mooring.core.render.metadata import child_name, manifest
from mooring.core.revision import Revision

_QUANTITIES = {"averageValue", "value"}
_DEFAULT_METRICS = [
    {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
    }
]


def autoscaler(
    revision: Revision,
    wanted: Autoscaling,
    *,
    least: int,
    deployment: str,
    namespace: str,
    uid: str,
) -> dict[str, Any]:
    """Targets one revision's Deployment, so it never counts the pods of a candidate; and never goes
    below ``least``, which is more than was asked for while a candidate has a part of the traffic.
    """
    return manifest(
        kinds.AUTOSCALER,
        deployment,
        namespace=namespace,
        deployment=deployment,
        uid=uid,
        spec={
            "scaleTargetRef": {
                "apiVersion": kinds.DEPLOYMENT.api_version,
                "kind": kinds.DEPLOYMENT.name,
                "name": child_name(deployment, revision.hash),
            },
            "minReplicas": least,
            "maxReplicas": wanted.max_replicas,
            "metrics": [_as_stored(metric) for metric in wanted.metrics or ()] or _DEFAULT_METRICS,
        },
    )


def _as_stored(metric: Mapping[str, Any]) -> dict[str, Any]:
    """The metric with the quantities of its target in the form that the API server stores: else
    an operator that is started anew could not see that nothing has changed, and would apply it.
    """
    found: dict[str, Any] = {}
    for name, source in metric.items():
        found[name] = source
        target = source.get("target") if isinstance(source, Mapping) else None
        if isinstance(target, Mapping):
            quantities = {key: canonical(target[key]) for key in _QUANTITIES & target.keys()}
            found[name] = {**source, "target": {**target, **quantities}}
    return found


def minimum(wanted: Autoscaling) -> int:
    """The lower bound; 1 where none is given, as autoscaling/v2 has it."""
    return wanted.min_replicas if wanted.min_replicas is not None else 1
