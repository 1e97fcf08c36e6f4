"""Services: the public one under the deployment's name, and a headless one per revision."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from mooring.api.modelruntime import PUBLIC_PORTS
from mooring.core import kinds
from mooring.core.clock import format_time
from mooring.core.render.metadata import child_name, manifest, selector
from mooring.core.revision import Revision


def public_service(
    revision: Revision,
    *,
    deployment: str,
    namespace: str,
    uid: str,
    selected: Mapping[str, str],
    targets: Mapping[str, str],
    since: datetime,
) -> dict[str, Any]:
    """The address that clients use, with the public ports of this revision.

    ``selected`` are the labels of the pods that take the requests, ``targets`` the names of their
    ports where those have other numbers than the revision's own. ``since`` is when the Service
    began to select them: the pods that it left before are drained from then on.
    """
    ports = [
        _port(port)
        | {
            "port": PUBLIC_PORTS.get(port["name"], port["port"]),
            "targetPort": targets.get(port["name"], port["targetPort"]),
        }
        for port in revision.rendered.ports
    ]
    return manifest(
        kinds.SERVICE,
        deployment,
        namespace=namespace,
        deployment=deployment,
        uid=uid,
        annotations={kinds.ANNOTATION_ROUTED: format_time(since)},
        spec={
            "type": "ClusterIP",
            "selector": dict(selected),
            "ports": ports,
        },
    )


def revision_service(
    revision: Revision, *, deployment: str, namespace: str, uid: str
) -> dict[str, Any]:
    """Names the pods of one revision, for whoever wants to speak to exactly that one."""
    return manifest(
        kinds.SERVICE,
        child_name(deployment, revision.hash),
        namespace=namespace,
        deployment=deployment,
        uid=uid,
        of_revision=revision.hash,
        spec={
            "clusterIP": "None",
            "selector": selector(deployment, revision.hash),
            "ports": [_port(port) for port in revision.rendered.ports],
        },
    )


def _port(port: Mapping[str, Any]) -> dict[str, Any]:
    return {"protocol": "TCP", **port}
