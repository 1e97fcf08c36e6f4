"""The collector of a ModelDeployment: what it is told, its pod, and who may reach it.

Its pods carry ``mooring.dev/collector`` instead of ``mooring.dev/deployment``, as router pods carry
a label of their own. There is one: labels that come later find their predictions there. It stands
beside the requests' path, so that its end costs observation and nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from mooring.api import parse_duration
from mooring.api.monitoring_spec import MonitoredFeature, MonitoredOutput, MonitoringSpec
from mooring.core import kinds
from mooring.core.observed import RenderSettings
from mooring.core.render.metadata import manifest
from mooring.core.render.networkpolicy import prometheus_peer
from mooring.core.render.router.objects import router_selector
from mooring.core.render.router.observation import CollectorAddress

LABEL_COLLECTOR = f"{kinds.GROUP}/collector"
CONTAINER = "collector"
CONFIG_FILE = "collector.json"
REFERENCE_FILE = "reference.json"
COPIES_NUMBER = 9001
HTTP_NUMBER = 8080

_ANNOTATION_CONFIG = f"{kinds.GROUP}/config"
_CONFIG_FOLDER = "/etc/mooring/collector"
_REFERENCE_FOLDER = "/etc/mooring/reference"
#: A core counts thousands of requests a second; what it holds at a time is bounded (see the
#: component), and far below the limit.
_RESOURCES = {
    "requests": {"cpu": "50m", "memory": "128Mi"},
    "limits": {"memory": "512Mi"},
}
#: How the API calls the protocols of runtimes, and the collector; the more particular first.
_PROTOCOLS = {
    "torchserve": "torchserve",
    "tfserving": "tensorflow-serving",
    "open-inference-v2": "open-inference",
}


def collector_name(deployment: str) -> str:
    """The name of the collector's Deployment, Service and ConfigMap."""
    return f"{deployment}-collector"


def collector_selector(deployment: str) -> dict[str, str]:
    """Selects the collector's pod."""
    return {LABEL_COLLECTOR: deployment}


def collector_address(deployment: str, namespace: str, domain: str) -> CollectorAddress:
    """Where routers send their copies: the Service, whose address outlives the pod.

    The full name ends in a dot, or the resolver tries it in every search domain first.
    """
    return CollectorAddress(
        f"{collector_name(deployment)}.{namespace}.svc.{domain}.", COPIES_NUMBER
    )


def collector_config(spec: MonitoringSpec, protocols: Sequence[str]) -> dict[str, Any]:
    """What stands in ``collector.json``; ``protocols`` are those of the model's runtime."""
    spoken = next((ours for theirs, ours in _PROTOCOLS.items() if theirs in protocols), None)
    found: dict[str, Any] = {"protocol": spoken or "open-inference", "sample": spec.sample}
    if spec.features:
        found["features"] = [_as_said(one) for one in spec.features]
    if spec.outputs:
        found["outputs"] = [_as_said(one) for one in spec.outputs]
    if spec.ground_truth is not None:
        maturity = parse_duration(spec.ground_truth.maturity).total_seconds()
        found["feedback"] = {"maturity": maturity}
    if spec.sample_store is not None:
        # Said only where it is wanted: another text would make another pod of every collector.
        found["reservoir"] = spec.sample_store.rows
    return found


def _as_said(one: MonitoredFeature | MonitoredOutput) -> dict[str, Any]:
    return one.model_dump(mode="json", by_alias=True, exclude_none=True)


def collector_objects(
    spec: MonitoringSpec,
    protocols: Sequence[str],
    settings: RenderSettings,
    *,
    deployment: str,
    namespace: str,
    uid: str,
) -> tuple[dict[str, Any], ...]:
    """Everything of one collector."""
    config = json.dumps(collector_config(spec, protocols), separators=(",", ":"), sort_keys=True)
    owner: dict[str, Any] = {"namespace": namespace, "deployment": deployment, "uid": uid}
    name = collector_name(deployment)
    return (
        manifest(kinds.CONFIG_MAP, name, **owner, data={CONFIG_FILE: config}),
        _network_policy(settings, **owner),
        manifest(
            kinds.SERVICE,
            name,
            **owner,
            spec={
                "selector": collector_selector(deployment),
                "ports": [
                    _service_port("grpc", COPIES_NUMBER, "kubernetes.io/h2c"),
                    _service_port("http", HTTP_NUMBER, "http"),
                ],
            },
        ),
        manifest(
            kinds.DEPLOYMENT,
            name,
            **owner,
            spec={
                "replicas": 1,
                "selector": {"matchLabels": collector_selector(deployment)},
                # The next one is ready before this one goes: what is not counted is lost.
                "strategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
                },
                "template": _template(spec, config, settings, deployment),
                "revisionHistoryLimit": 0,
            },
        ),
    )


def _service_port(name: str, number: int, protocol: str) -> dict[str, Any]:
    return {
        "name": name,
        "port": number,
        "targetPort": name,
        "protocol": "TCP",
        "appProtocol": protocol,
    }


def _template(
    spec: MonitoringSpec, config: str, settings: RenderSettings, deployment: str
) -> dict[str, Any]:
    labels = {
        kinds.LABEL_MANAGED_BY: kinds.MANAGED_BY,
        kinds.LABEL_INSTANCE: deployment,
        kinds.LABEL_COMPONENT: kinds.COMPONENT_COLLECTOR,
        **collector_selector(deployment),
    }
    annotations = {
        # A process reads its configuration once, so another one makes another pod.
        _ANNOTATION_CONFIG: hashlib.sha256(config.encode()).hexdigest()[:16],
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(HTTP_NUMBER),
        "prometheus.io/path": "/metrics",
    }
    return {
        "metadata": {"labels": labels, "annotations": annotations},
        "spec": {
            "automountServiceAccountToken": False,
            "containers": [_container(settings)],
            "enableServiceLinks": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "terminationGracePeriodSeconds": 5,
            "volumes": [
                {"name": "config", "configMap": {"name": collector_name(deployment)}},
                {"name": "reference", "configMap": {"name": spec.reference.config_map}},
            ],
        },
    }


def _container(settings: RenderSettings) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": settings.collector_image,
        "args": [
            "--config", f"{_CONFIG_FOLDER}/{CONFIG_FILE}",
            "--reference", f"{_REFERENCE_FOLDER}/{REFERENCE_FILE}",
            "--grpc-port", str(COPIES_NUMBER),
            "--http-port", str(HTTP_NUMBER),
        ],
        "livenessProbe": _probe(period=10, failures=6),
        "readinessProbe": _probe(period=2, failures=2),
        "ports": [
            {"name": "grpc", "containerPort": COPIES_NUMBER, "protocol": "TCP"},
            {"name": "http", "containerPort": HTTP_NUMBER, "protocol": "TCP"},
        ],
        "resources": {part: dict(found) for part, found in _RESOURCES.items()},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "startupProbe": _probe(period=1, failures=60),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "config", "mountPath": _CONFIG_FOLDER, "readOnly": True},
            {"name": "reference", "mountPath": _REFERENCE_FOLDER, "readOnly": True},
        ],
    }  # fmt: skip
    if settings.router_pull_policy:
        container["imagePullPolicy"] = settings.router_pull_policy
    return container


def _probe(*, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": "/healthz", "port": "http"},
        "periodSeconds": period,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
    }


def _network_policy(
    settings: RenderSettings, *, deployment: str, namespace: str, uid: str
) -> dict[str, Any]:
    """In: routers, Prometheus, and labels from this namespace. Out: nothing at all."""
    routers = {"podSelector": {"matchLabels": router_selector(deployment)}}
    return manifest(
        kinds.NETWORK_POLICY,
        f"{deployment}.collector",  # a dot, which no ModelDeployment's name has
        namespace=namespace,
        deployment=deployment,
        uid=uid,
        spec={
            "podSelector": {"matchLabels": collector_selector(deployment)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {"from": [routers], "ports": [{"port": COPIES_NUMBER, "protocol": "TCP"}]},
                {
                    "from": [prometheus_peer(settings), {"podSelector": {}}],
                    "ports": [{"port": HTTP_NUMBER, "protocol": "TCP"}],
                },
            ],
            "egress": [],
        },
    )
