"""What becomes of requests whose revision has no pod left that takes them.

The clusters of a weighted route are aggregates then: a revision's own pods, and where there are
none, or each that was tried refused, those of another revision. Envoy counts attempts where the
pod belongs, so the fallback has clusters of its own and nobody's evidence gets mixed. Answers and
their latency it charges to the aggregate, which goes by the name of the revision's own cluster;
those of the revision's own pods are counted once more under ``canary``, which is Envoy's word for
pods that are marked so. (All tried on 1.40.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mooring.core.traffic import Backend, BackendPort

#: The part of a cluster's name that says so.
FALLBACK = "fallback"
#: Marks a pod whose answers are evidence about its revision.
OWN = {"filter_metadata": {"envoy.lb": {"canary": True}}}
#: One pod is enough to keep all requests at a revision. Without this, where some pods are kept out
#: for their errors, a part of the requests would go to the fallback.
WHOLE = {"overprovisioning_factor": 1_000_000}

_TYPE = "type.googleapis.com/"


def either(cluster: str, other: str) -> str:
    """The name of an aggregate; not the form of a revision's cluster."""
    return f"{cluster}@{other}"


def aggregate(own: Mapping[str, Any], other: str, fallback: str) -> dict[str, Any]:
    """A revision's cluster ``own``, and behind it the cluster ``fallback`` of revision ``other``.

    Requests have the filters and limits of this cluster, wherever they go.
    """
    kept = (
        "@type",
        "connect_timeout",
        "per_connection_buffer_limit_bytes",
        "circuit_breakers",
        "typed_extension_protocol_options",
    )
    return {key: own[key] for key in kept} | {
        "name": either(own["name"], other),
        "alt_stat_name": own["name"],
        "cluster_type": {
            "name": "envoy.clusters.aggregate",
            "typed_config": {
                "@type": f"{_TYPE}envoy.extensions.clusters.aggregate.v3.ClusterConfig",
                "clusters": [own["name"], fallback],
            },
        },
        "lb_policy": "CLUSTER_PROVIDED",
    }


def others(backend: Backend, backends: Sequence[Backend], port: BackendPort) -> list[str]:
    """The other revisions that have this port."""
    return [
        other.revision
        for other in backends
        if other is not backend and any(own.name == port.name for own in other.ports)
    ]


def fallback_of(revision: str, weights: Mapping[str, int]) -> str | None:
    """Whose pods take the requests of a revision without any: whoever has the greatest share, if it
    is no smaller than its own. The few pods of a candidate could not take those of stable.
    """
    others = {name: weight for name, weight in weights.items() if name != revision}
    heaviest = max(others, key=lambda name: (others[name], name), default=None)
    if heaviest is None or others[heaviest] < weights[revision]:
        return None
    return heaviest


def once_more(attempts: int) -> dict[str, Any]:
    """The part of a retry policy by which a request is tried at the fallback after so many
    ``attempts`` at its own revision.
    """
    return {
        "num_retries": attempts,
        "retry_priority": {
            "name": "envoy.retry_priorities.previous_priorities",
            "typed_config": {
                "@type": f"{_TYPE}envoy.extensions.retry.priority.previous_priorities.v3"
                ".PreviousPrioritiesConfig",
                "update_frequency": attempts,
            },
        },
    }
