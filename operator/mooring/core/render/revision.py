"""Rendering a new revision: from what the spec asks for and a runtime's template to pinned parts.

This is the only place that reads a runtime template, and it runs once per revision.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson

from mooring.api import (
    InvalidResource,
    ModelDeployment,
    ModelDeploymentSpec,
    RuntimeTemplate,
    parse_runtime_template,
)
from mooring.core.allocation import ENVOY
from mooring.core.model_uri import ModelLocation, located, parse
from mooring.core.observed import RenderSettings, RuntimeSource
from mooring.core.placeholders import UnknownPlaceholder, Values
from mooring.core.render.pod import config_key, pod_template
from mooring.core.render.router.objects import router_template
from mooring.core.revision import Rendered
from mooring.core.traffic import backend_ports


class CannotRender(Exception):
    """What stands in the way of a new revision, as a condition's reason and message."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def render_revision(
    name: str,
    namespace: str,
    resource: ModelDeployment,
    source: RuntimeSource | None,
    known_runtimes: tuple[str, ...],
    revision: str,
    settings: RenderSettings,
    bytes_at: str = "",
) -> Rendered:
    """Renders everything that the pods of this revision are made of.

    ``bytes_at`` is where a registry has the bytes of a model that goes by spec's URI.

    Raises :class:`CannotRender` when a second object stands in the way: the runtime is missing
    or broken, it cannot serve the format, or the administrator asks for a digest.
    """
    spec = resource.spec
    if source is None:
        raise CannotRender("RuntimeNotFound", _runtime_not_found(spec.runtime.name, known_runtimes))
    try:
        runtime = _template(orjson.dumps(source.spec))
    except InvalidResource as error:
        raise CannotRender(
            "RuntimeInvalid",
            f"{source.kind} {source.name} cannot be read: {'; '.join(error.problems)}",
        ) from error
    location = _location(spec.model.uri, bytes_at, settings)
    digest = spec.model.digest or location.digest
    _check_format(resource, runtime, source)
    if settings.require_digest and location.fetched and not digest:
        raise CannotRender(
            "DigestRequired",
            "the administrator asks for spec.model.digest: `mooring digest` prints it",
        )
    # A node resolves a tag anew for each pod, and lays nothing out: then the fetcher does it.
    lays_out = runtime.layout not in (None, "flat")
    if settings.image_volumes and location.scheme == "oci" and digest and not lays_out:
        location = location.as_image(digest)
    values = Values(
        {
            "model.name": spec.model.name or name,
            "model.path": location.model_path,
            "model.uri": location.uri,
            "model.version": model_version(location),
            "runtime.version": spec.runtime.version or runtime.version or "",
            "revision": revision,
            "namespace": namespace,
        }
    )
    ports = _service_ports(runtime, source)
    try:
        template = pod_template(name, spec, runtime, revision, location, values, settings)
        config = {config_key(file.path): values.fill(file.content) for file in runtime.config or ()}
    except UnknownPlaceholder as error:
        raise CannotRender("RuntimeInvalid", f"{source.kind} {source.name}: {error}") from error
    return Rendered(
        template=template,
        config=config,
        ports=ports,
        metrics_port=_metrics_port(runtime, source),
        fetched=location.fetched,
        remote=location.remote,
        own_service_account=not spec.runtime.service_account_name,
        runtime={"kind": source.kind, "name": source.name},
        router=router_of(name, spec, ports, settings),
        signals=runtime.signals.as_dict() if runtime.signals else None,
    )


@lru_cache(maxsize=64)
def _template(spec: bytes) -> RuntimeTemplate:
    """Few templates, many models. Raises InvalidResource."""
    return parse_runtime_template(orjson.loads(spec))


def router_of(
    deployment: str,
    spec: ModelDeploymentSpec,
    ports: Sequence[Mapping[str, Any]],
    settings: RenderSettings,
) -> dict[str, Any] | None:
    """The pod template of the routers before a revision with these ports; None where the spec asks
    for none: it would be two thirds of the record, which each write of it carries.
    """
    if spec.traffic.router != ENVOY:
        return None
    secrets = [secret.name for secret in spec.runtime.image_pull_secrets or ()]
    public = backend_ports(ports)
    return router_template(
        public, spec.traffic, settings, deployment=deployment, pull_secrets=secrets
    )


def model_version(location: ModelLocation) -> str:
    """The number that the URI ends in, as a server writes it; 1 when it ends in no number.

    What is part of an image cannot be laid out, and so is always 1. More than 18 digits are no
    signed 64-bit number for sure.
    """
    last = location.uri.partition("?")[0].rstrip("/").rpartition("/")[2]
    if location.scheme == "file" or not re.fullmatch(r"[0-9]{1,18}", last):
        return "1"
    return str(int(last))


def _location(uri: str, bytes_at: str, settings: RenderSettings) -> ModelLocation:
    try:
        location = located(uri, bytes_at) if bytes_at else parse(uri)
        if location.proxied and not settings.registry_url:
            raise CannotRender(
                "RegistryNotConfigured",
                f"{uri} is kept behind an MLflow server, and the administrator has named none "
                "(config.registry.url)",
            )
        return location.by_way_of(settings.registry_url) if location.proxied else location
    except ValueError as error:
        raise CannotRender("InvalidSpec", f"spec.model.uri: {error}") from error


def _runtime_not_found(name: str, known: tuple[str, ...]) -> str:
    message = f"there is no ModelRuntime or ClusterModelRuntime {name!r}"
    if known:
        return f"{message}; this namespace can use: {', '.join(sorted(known))}"
    return f"{message}, nor any other: install the chart's runtimes or apply one of your own"


def _check_format(
    resource: ModelDeployment, runtime: RuntimeTemplate, source: RuntimeSource
) -> None:
    wanted = resource.spec.model.format
    if wanted is None:
        return
    offered = {supported.name: tuple(supported.versions or ()) for supported in runtime.formats}
    if wanted.name not in offered:
        raise CannotRender(
            "FormatNotSupported",
            f"{source.kind} {source.name} serves {', '.join(sorted(offered)) or 'no format'}, "
            f"not {wanted.name}: change spec.model.format or spec.runtime.name",
        )
    versions = offered[wanted.name]
    if wanted.version and versions and wanted.version not in versions:
        raise CannotRender(
            "FormatNotSupported",
            f"{source.kind} {source.name} serves {wanted.name} {', '.join(versions)}, "
            f"not {wanted.version}: change spec.model.format.version or spec.runtime.name",
        )


def _service_ports(
    runtime: RuntimeTemplate, source: RuntimeSource
) -> tuple[dict[str, object], ...]:
    ports: list[dict[str, object]] = []
    for port in runtime.ports:
        if port.service is False:
            continue
        found: dict[str, object] = {
            "name": port.name,
            "port": port.container_port,
            "targetPort": port.container_port,
        }
        if port.app_protocol:
            found["appProtocol"] = port.app_protocol
        ports.append(found)
    if not ports:
        raise CannotRender(
            "RuntimeInvalid",
            f"{source.kind} {source.name}: every port says service: false, so no client could "
            "reach a model: leave it out for one of them",
        )
    return tuple(ports)


def _metrics_port(runtime: RuntimeTemplate, source: RuntimeSource) -> int | None:
    if runtime.metrics is None:
        return None
    for port in runtime.ports:
        if port.name == runtime.metrics.port:
            return port.container_port
    raise CannotRender(
        "RuntimeInvalid",
        f"{source.kind} {source.name}: metrics.port {runtime.metrics.port!r} is none of its ports",
    )
