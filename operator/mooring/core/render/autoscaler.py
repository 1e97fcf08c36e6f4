"""The HorizontalPodAutoscaler of the revision that takes the traffic."""

from __future__ import annotations

from typing import Any

from mooring.api import Autoscaling
from mooring.core import kinds
from mooring.core.render.metadata import child_name, manifest
from mooring.core.revision import Revision

_DEFAULT_METRICS = [
    {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
    }
]


def autoscaler(
    revision: Revision, wanted: Autoscaling, *, deployment: str, namespace: str, uid: str
) -> dict[str, Any]:
    """Targets one revision's Deployment, so it never counts the pods of a candidate."""
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
            "minReplicas": minimum(wanted),
            "maxReplicas": wanted.max_replicas,
            "metrics": [dict(metric) for metric in wanted.metrics or ()] or _DEFAULT_METRICS,
        },
    )


def minimum(wanted: Autoscaling) -> int:
    """The lower bound; 1 where none is given, as autoscaling/v2 has it."""
    return wanted.min_replicas if wanted.min_replicas is not None else 1
