"""The Kubernetes objects of a router: its table, its pods, and who may reach them.

Router pods carry ``mooring.dev/router`` instead of ``mooring.dev/deployment``, so that no selector
of model pods (Services, the disruption budget, the network policy) takes them for one. The objects
themselves carry the labels of every child.

The NetworkPolicy and the PodDisruptionBudget have a dot in their names: a ModelDeployment
``fraud-router`` has ones called ``fraud-router``, and no ModelDeployment has a dot in its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mooring.api import parse_duration
from mooring.api.schema_types import quantity_value
from mooring.api.traffic_spec import TrafficSpec
from mooring.core import kinds
from mooring.core.observed import RenderSettings
from mooring.core.quantity import canonical
from mooring.core.render.metadata import manifest, selector
from mooring.core.render.networkpolicy import dns_egress, prometheus_peer
from mooring.core.render.router.bootstrap import (
    ADMIN_SOCKET,
    METRICS_NUMBER,
    ROUTES_FOLDER,
    VERSION_NUMBER,
    bootstrap,
    public_number,
)
from mooring.core.render.router.envoy import envoy_files, envoy_version
from mooring.core.render.router.observation import CollectorAddress
from mooring.core.render.router.table import table_text
from mooring.core.traffic import BackendPort, Table

LABEL_ROUTER = f"{kinds.GROUP}/router"
CONTAINER = "router"
#: Names of the container's own ports; the public ones are called as in the model's Service.
METRICS_PORT = "router-metrics"
VERSION_PORT = "router-version"

_REQUESTS = {"cpu": "50m", "memory": "64Mi"}
_LIMITS = {"memory": "512Mi"}
#: How much of its memory limit Envoy's heap may take; the rest is code and stacks.
_HEAP_SHARE = 0.8
#: A pod that ends waits no longer than this for what is in flight (seconds).
_LONGEST_DRAIN = 600


def router_name(deployment: str) -> str:
    """The name of the router's Deployment and ConfigMap."""
    return f"{deployment}-router"


def router_selector(deployment: str) -> dict[str, str]:
    """Selects the router pods; the public Service does, with the ports' names as targets."""
    return {LABEL_ROUTER: deployment}


# --- the table ----------------------------------------------------------------------------------


def router_config_map(
    table: Table,
    traffic: TrafficSpec,
    *,
    deployment: str,
    namespace: str,
    uid: str,
    ports: Sequence[BackendPort] = (),
    collector: CollectorAddress | None = None,
) -> dict[str, Any]:
    """What the router pods read while they run. ``ports`` are those of their template;
    ``collector`` gets copies, without one there are none.
    """
    files = envoy_files(
        table,
        traffic,
        deployment=deployment,
        namespace=namespace,
        ports=ports,
        collector=collector,
    )
    return manifest(
        kinds.CONFIG_MAP,
        router_name(deployment),
        namespace=namespace,
        deployment=deployment,
        uid=uid,
        annotations={
            kinds.ANNOTATION_TABLE: table_text(table),
            kinds.ANNOTATION_VERSION: envoy_version(files),
        },
        data=files,
    )


# --- the pods -----------------------------------------------------------------------------------


def router_template(
    ports: Sequence[BackendPort],
    traffic: TrafficSpec,
    settings: RenderSettings,
    *,
    deployment: str,
    pull_secrets: Sequence[str] = (),
) -> dict[str, Any]:
    """The pod template, with the bootstrap in the container's arguments.

    Whatever is changed here rolls the router pods, so it is pinned where the caller wants it to
    be. There is no user in it: the image names one, and OpenShift gives each namespace its own.
    """
    resources = _resources(traffic)
    limit = resources["limits"].get("memory") if "limits" in resources else None
    heap = int(_HEAP_SHARE * float(quantity_value(limit))) if limit else None
    timeout = parse_duration(traffic.timeout).total_seconds()
    drain = settings.pre_stop_seconds + min(_LONGEST_DRAIN, int(timeout) + 1)
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "containers": [_container(ports, settings, resources, heap, drain)],
        "enableServiceLinks": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": drain + 10,
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": key,
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": router_selector(deployment)},
            }
            for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
        ],
        "volumes": [
            {"name": "routes", "configMap": {"name": router_name(deployment)}},
            {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        ],
    }
    if pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in pull_secrets]
    labels = {
        kinds.LABEL_MANAGED_BY: kinds.MANAGED_BY,
        kinds.LABEL_INSTANCE: deployment,
        kinds.LABEL_COMPONENT: kinds.COMPONENT_ROUTER,
        **router_selector(deployment),
    }
    annotations = {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(METRICS_NUMBER),
        "prometheus.io/path": "/stats/prometheus",
    }
    return {"metadata": {"labels": labels, "annotations": annotations}, "spec": spec}


def _container(
    ports: Sequence[BackendPort],
    settings: RenderSettings,
    resources: Mapping[str, Any],
    heap: int | None,
    drain: int,
) -> dict[str, Any]:
    numbers = {port.name: public_number(index) for index, port in enumerate(ports)}
    numbers |= {METRICS_PORT: METRICS_NUMBER, VERSION_PORT: VERSION_NUMBER}
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": settings.router_image,
        "args": [
            "--config-yaml",
            bootstrap(ports, heap_bytes=heap),
            "--concurrency",
            str(_threads(resources)),
            # Connections that are busy when the pod ends are closed at their next answer; the
            # listeners stay until the drain helper is done.
            "--drain-strategy",
            "immediate",
            "--drain-time-s",
            str(drain + 10),
        ],
        "lifecycle": {
            "preStop": {
                "exec": {
                    "command": [
                        "mooring-router-drain",
                        ADMIN_SOCKET,
                        str(settings.pre_stop_seconds),
                        str(drain),
                    ]
                }
            }
        },
        "livenessProbe": _probe("/live", period=10, failures=6),
        "readinessProbe": _probe("/ready", period=2, failures=2),
        "ports": [
            {"name": name, "containerPort": number, "protocol": "TCP"}
            for name, number in numbers.items()
        ],
        "resources": dict(resources),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "startupProbe": _probe("/ready", period=1, failures=60),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "routes", "mountPath": ROUTES_FOLDER, "readOnly": True},
            {"name": "run", "mountPath": ADMIN_SOCKET.rsplit("/", 1)[0]},
        ],
    }
    if settings.router_pull_policy:
        container["imagePullPolicy"] = settings.router_pull_policy
    return container


def _probe(path: str, *, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": VERSION_PORT},
        "periodSeconds": period,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
    }


def _resources(traffic: TrafficSpec) -> dict[str, Any]:
    """As asked for. What is not said is small; memory is bounded only where nothing is said."""
    wanted = traffic.resources
    dumped = wanted.model_dump(by_alias=True, exclude_none=True, mode="json") if wanted else {}
    if not any(dumped.values()):
        return {"requests": dict(_REQUESTS), "limits": dict(_LIMITS)}
    return {
        part: {name: canonical(quantity) for name, quantity in dumped[part].items()}
        for part in ("requests", "limits")
        if dumped.get(part)
    }


def _threads(resources: Mapping[str, Any]) -> int:
    """One worker, or as many as whole CPUs were asked for: an idle one costs memory."""
    asked = [resources.get(part, {}).get("cpu", "0") for part in ("requests", "limits")]
    return max(1, *(int(quantity_value(cpu)) for cpu in asked))


def router_deployment(
    template: Mapping[str, Any], replicas: int, *, deployment: str, namespace: str, uid: str
) -> dict[str, Any]:
    """The router pods. A new one is ready before an old one goes."""
    return manifest(
        kinds.DEPLOYMENT,
        router_name(deployment),
        namespace=namespace,
        deployment=deployment,
        uid=uid,
        spec={
            "replicas": replicas,
            "selector": {"matchLabels": router_selector(deployment)},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
            },
            "template": dict(template),
            "revisionHistoryLimit": 0,
        },
    )


# --- who may reach and stop them ----------------------------------------------------------------


def router_pdb(*, deployment: str, namespace: str, uid: str) -> dict[str, Any]:
    """Keeps node drains from taking more than one router pod at a time."""
    return manifest(
        kinds.POD_DISRUPTION_BUDGET,
        f"{deployment}.router",
        namespace=namespace,
        deployment=deployment,
        uid=uid,
        spec={
            "maxUnavailable": 1,
            "selector": {"matchLabels": router_selector(deployment)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    )


def router_network_policy(
    ports: Sequence[BackendPort],
    settings: RenderSettings,
    *,
    deployment: str,
    namespace: str,
    uid: str,
) -> dict[str, Any]:
    """In: clients, Prometheus, the operator. Out: the DNS server and this model's pods."""
    public = [_tcp(public_number(index)) for index in range(len(ports))]
    operator = {
        "namespaceSelector": {
            "matchLabels": {"kubernetes.io/metadata.name": settings.operator_namespace}
        }
    }
    return manifest(
        kinds.NETWORK_POLICY,
        f"{deployment}.router",
        namespace=namespace,
        deployment=deployment,
        uid=uid,
        spec={
            "podSelector": {"matchLabels": router_selector(deployment)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                *([{"ports": public}] if public else []),
                {"from": [prometheus_peer(settings)], "ports": [_tcp(METRICS_NUMBER)]},
                {"from": [operator], "ports": [_tcp(VERSION_NUMBER)]},
            ],
            "egress": [
                *dns_egress(),
                {"to": [{"podSelector": {"matchLabels": selector(deployment)}}]},
            ],
        },
    )


def _tcp(port: int) -> dict[str, Any]:
    return {"port": port, "protocol": "TCP"}
