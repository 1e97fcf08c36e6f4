"""How a router copies requests and answers to the collector, without a request waiting for it.

The copies are made by a filter of the clusters, not of the listener: only there is it known which
revision answers, and only there does it see what a shadow answers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

CLUSTER = "@collector"  # not the form of a revision's cluster, so it is not among the metrics
REVISION_KEY = "x-mooring-revision"
TRAFFIC_KEY = "x-mooring-traffic"

_TYPE = "type.googleapis.com/"
_HTTP = "envoy.extensions.filters.http"
#: Exchanges that are copied at the same time; further ones go by uncopied.
_MOST_STREAMS = 4096
#: What may wait for a slow collector on its way out.
_WAITING_BYTES = 64 << 20
#: Without side streams' flow control: it holds requests back while the collector is slow, and it
#: ends Envoy 1.40 (a null pointer) where the copy of a body above 64 KiB waits for a connection to
#: the collector while the request waits for one to its pod.
_RUNTIME = {"envoy.reloadable_features.grpc_side_stream_flow_control": False}
_BOOTSTRAP_FLAG = "--config-yaml"
#: Else each request would leave a line while there is no collector.
_QUIET = ["--component-log-level", "ext_proc:error"]


@dataclass(frozen=True, slots=True)
class CollectorAddress:
    """Where the collector takes copies."""

    host: str
    port: int


def prepared(bootstrap: str) -> str:
    """A router's bootstrap with which it may be told to observe, and must be before it is told."""
    config = json.loads(bootstrap)
    config["layered_runtime"] = {"layers": [{"name": "observation", "static_layer": _RUNTIME}]}
    return json.dumps(config, separators=(",", ":"))


def prepared_template(template: Mapping[str, Any]) -> dict[str, Any]:
    """The same for a router's pod template, whose first container has the bootstrap in its
    arguments. A template that was pinned by an earlier version is prepared as well.
    """
    found = deepcopy(dict(template))
    container = found["spec"]["containers"][0]
    args = list(container["args"])
    at = args.index(_BOOTSTRAP_FLAG) + 1
    args[at] = prepared(args[at])
    container["args"] = args if _QUIET[0] in args else args + _QUIET
    return found


def is_prepared(template: Mapping[str, Any]) -> bool:
    """Whether pods of this template may be told to observe."""
    try:
        args = template["spec"]["containers"][0]["args"]
        config = json.loads(args[args.index(_BOOTSTRAP_FLAG) + 1])
    except (KeyError, IndexError, TypeError, ValueError, RecursionError):
        return False
    layers = (config.get("layered_runtime") or {}).get("layers") or []
    return any(layer.get("static_layer") == _RUNTIME for layer in layers)


def observing(revision: str, part: str) -> list[dict[str, Any]]:
    """The filters of a cluster that is observed.

    ``part`` is that of the cluster's name: a shadow's answers and those to matched requests are
    marked, since they are no random sample of the traffic.
    """
    traffic = part if part in ("match", "shadow") else "live"
    copies = {
        "@type": f"{_TYPE}{_HTTP}.ext_proc.v3.ExternalProcessor",
        "grpc_service": {
            "envoy_grpc": {"cluster_name": CLUSTER},
            "initial_metadata": [
                {"key": REVISION_KEY, "value": revision},
                {"key": TRAFFIC_KEY, "value": traffic},
            ],
        },
        "observability_mode": True,
        "failure_mode_allow": True,
        # A stream that the collector has not ended by then is ended here.
        "deferred_close_timeout": "1s",
        # Without it, requests and answers would lose their length and be sent in chunks.
        "allow_content_length_header": True,
        # In place of all headers, which would be two more messages for each request.
        "request_attributes": [
            "request.headers['x-request-id']",
            "request.headers['inference-header-content-length']",
        ],
        "response_attributes": ["response.code"],
        "processing_mode": {
            "request_header_mode": "SKIP",
            "response_header_mode": "SKIP",
            "request_body_mode": "STREAMED",
            "response_body_mode": "STREAMED",
            "request_trailer_mode": "SKIP",
            "response_trailer_mode": "SKIP",
        },
    }
    codec = {"@type": f"{_TYPE}{_HTTP}.upstream_codec.v3.UpstreamCodec"}
    return [
        {"name": "envoy.filters.http.ext_proc", "typed_config": copies},
        {"name": "envoy.filters.http.upstream_codec", "typed_config": codec},
    ]


def collector_cluster(collector: CollectorAddress) -> Iterator[dict[str, Any]]:
    """The cluster of the collector's Service, whose address outlives its pods."""
    options = {
        "@type": f"{_TYPE}envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {
            "http2_protocol_options": {
                "max_concurrent_streams": _MOST_STREAMS,
                # A collector that hangs is left within two seconds.
                "connection_keepalive": {"interval": "1s", "timeout": "1s"},
            }
        },
    }
    address = {"socket_address": {"address": collector.host, "port_value": collector.port}}
    yield {
        "@type": f"{_TYPE}envoy.config.cluster.v3.Cluster",
        "name": CLUSTER,
        "cluster_type": {
            "name": "envoy.cluster.dns",
            "typed_config": {
                "@type": f"{_TYPE}envoy.extensions.clusters.dns.v3.DnsCluster",
                "dns_lookup_family": "V4_PREFERRED",
                "dns_refresh_rate": "5s",
                "dns_failure_refresh_rate": {"base_interval": "5s", "max_interval": "5s"},
            },
        },
        "connect_timeout": "1s",
        "per_connection_buffer_limit_bytes": _WAITING_BYTES,
        "load_assignment": {
            "cluster_name": CLUSTER,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        "circuit_breakers": {
            "thresholds": [{"max_requests": _MOST_STREAMS, "max_pending_requests": _MOST_STREAMS}]
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options
        },
    }
