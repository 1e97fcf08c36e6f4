"""Keeps node drains from taking more than one pod of those that serve."""

from __future__ import annotations

from typing import Any

from mooring.core import kinds
from mooring.core.render.metadata import manifest, selector
from mooring.core.revision import Revision


def pod_disruption_budget(
    revision: Revision, *, deployment: str, namespace: str, uid: str
) -> dict[str, Any]:
    """Covers the revision that takes the traffic. A pod that is not healthy may always go."""
    return manifest(
        kinds.POD_DISRUPTION_BUDGET,
        deployment,
        namespace=namespace,
        deployment=deployment,
        uid=uid,
        spec={
            "maxUnavailable": 1,
            "selector": {"matchLabels": selector(deployment, revision.hash)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    )
