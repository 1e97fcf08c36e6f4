"""The pod template of a revision: the server, the fetcher before it, and what both may touch.

Pods satisfy Pod Security "restricted": no token, no root, no capabilities, a read-only root.
This is rendered once per revision and pinned in its record.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from mooring.api import ModelDeploymentSpec, RuntimeTemplate
from mooring.core.model_uri import MODEL_PATH, ModelLocation
from mooring.core.observed import RenderSettings
from mooring.core.placeholders import Values
from mooring.core.pods import FETCH_CONTAINER, SERVER_CONTAINER
from mooring.core.quantity import canonical
from mooring.core.render.metadata import child_name, labels, selector

CREDENTIALS_PATH = "/etc/mooring/credentials"
REVISION_PATH = "/etc/mooring/revision"
DIGEST_KEY = "digest"
_TEMPORARY = "/tmp"
_DEFAULT_USER = 65532
_DEFAULT_GRACE_SECONDS = 60
_FETCH_RESOURCES = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}


def pod_template(
    name: str,
    wanted_spec: ModelDeploymentSpec,
    runtime: RuntimeTemplate,
    revision: str,
    location: ModelLocation,
    values: Values,
    settings: RenderSettings,
) -> dict[str, Any]:
    """The complete pod template. Raises UnknownPlaceholder for a template's typing error."""
    wanted = wanted_spec.runtime
    server = _server(wanted_spec, runtime, location, values, settings)
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "containers": [server],
        "enableServiceLinks": False,
        "securityContext": _pod_security(runtime),
        "serviceAccountName": wanted.service_account_name or name,
        "terminationGracePeriodSeconds": (
            runtime.termination_grace_period_seconds or _DEFAULT_GRACE_SECONDS
        )
        + settings.pre_stop_seconds,
        "topologySpreadConstraints": _spread(name, wanted_spec, revision),
        "volumes": _volumes(wanted_spec, runtime, child_name(name, revision), location, settings),
    }
    if location.fetched:
        spec["initContainers"] = [_fetcher(wanted_spec, runtime, location, values, settings)]
    spec |= _scheduling(wanted_spec, location)
    annotations = _scrape_annotations(runtime) | dict(wanted.pod_annotations or {})
    meta: dict[str, Any] = {"labels": dict(wanted.pod_labels or {}) | labels(name, revision)}
    if annotations:
        meta["annotations"] = annotations
    return {"metadata": meta, "spec": spec}


def config_key(path: str) -> str:
    """The ConfigMap key that holds the file at this absolute path.

    Its end is a hash of the path: so no two files share a key, none takes that of the digest, and
    characters that a key cannot have do no harm.
    """
    readable = re.sub(r"[^A-Za-z0-9._-]", "_", path.strip("/"))[-200:]
    return f"{readable}.{hashlib.sha256(path.encode()).hexdigest()[:8]}"


def _dump(value: Any) -> Any:
    return value.model_dump(by_alias=True, exclude_none=True, mode="json")


def _scheduling(spec: ModelDeploymentSpec, location: ModelLocation) -> dict[str, Any]:
    wanted = spec.runtime
    pull = [_dump(secret) for secret in wanted.image_pull_secrets or ()]
    if location.image and spec.model.credentials:
        # The node pulls the model, too, with what the fetcher would have pulled it with.
        of_model = {"name": spec.model.credentials.secret_name}
        pull += [of_model] if of_model not in pull else []
    found: dict[str, Any] = {
        "imagePullSecrets": pull,
        "nodeSelector": dict(wanted.node_selector or {}),
        "tolerations": [_dump(toleration) for toleration in wanted.tolerations or ()],
        "affinity": dict(wanted.affinity or {}),
        "priorityClassName": wanted.priority_class_name,
    }
    return {key: value for key, value in found.items() if value}


def _env(
    runtime: RuntimeTemplate, spec: ModelDeploymentSpec, values: Values
) -> list[dict[str, Any]]:
    """The runtime's variables, those of the same name replaced by the deployment's own."""
    merged: dict[str, dict[str, Any]] = {}
    for variable in runtime.env or ():
        dumped = _dump(variable)
        if "value" in dumped:
            dumped["value"] = values.fill(dumped["value"])
        merged[variable.name] = dumped
    for variable in spec.runtime.env or ():
        merged[variable.name] = _dump(variable)
    return [
        {key: item for key, item in variable.items() if not (key == "value" and item == "")}
        for variable in merged.values()
    ]


def _server(
    spec: ModelDeploymentSpec,
    runtime: RuntimeTemplate,
    location: ModelLocation,
    values: Values,
    settings: RenderSettings,
) -> dict[str, Any]:
    server: dict[str, Any] = {
        "name": SERVER_CONTAINER,
        "image": values.fill(runtime.image),
        "lifecycle": {"preStop": {"sleep": {"seconds": settings.pre_stop_seconds}}},
        "ports": [
            {"name": port.name, "containerPort": port.container_port, "protocol": "TCP"}
            for port in runtime.ports
        ],
        "securityContext": _container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": _server_mounts(runtime, location, values),
    }
    env = _env(runtime, spec, values)
    if env:
        server["env"] = env
    pull = runtime.image_pull_policy or settings.pull_policy
    if pull:
        server["imagePullPolicy"] = pull
    if runtime.command:
        server["command"] = [values.fill(part) for part in runtime.command]
    args = [values.fill(part) for part in runtime.args or ()]
    args += [str(part) for part in spec.runtime.args or ()]
    if args:
        server["args"] = args
    for key, probe in (
        ("startupProbe", runtime.startup_probe),
        ("readinessProbe", runtime.readiness_probe),
        ("livenessProbe", runtime.liveness_probe),
    ):
        if probe is not None:
            server[key] = _filled(_dump(probe), values)
    resources = _resources(spec, runtime)
    if resources:
        server["resources"] = resources
    return server


def _filled(value: Any, values: Values) -> Any:
    if isinstance(value, str):
        return values.fill(value)
    if isinstance(value, list):
        return [_filled(item, values) for item in value]
    if isinstance(value, dict):
        return {key: _filled(item, values) for key, item in value.items()}
    return value


def _resources(spec: ModelDeploymentSpec, runtime: RuntimeTemplate) -> dict[str, Any]:
    """The deployment's own requests and limits; where it names none, the runtime's."""
    for chosen in (spec.runtime.resources, runtime.resources):
        dumped = _dump(chosen) if chosen else {}
        found = {
            part: {name: canonical(quantity) for name, quantity in dumped[part].items()}
            for part in ("requests", "limits")
            if dumped.get(part)
        }
        if found:
            return found
    return {}


def _fetcher(
    spec: ModelDeploymentSpec,
    runtime: RuntimeTemplate,
    location: ModelLocation,
    values: Values,
    settings: RenderSettings,
) -> dict[str, Any]:
    model = spec.model
    args = ["fetch", "--uri", location.source or location.uri]
    args += ["--target", _mount_path(runtime, location, values)]
    if model.digest:
        args += ["--digest", model.digest]
    else:
        args += ["--expected-digest-file", f"{REVISION_PATH}/{DIGEST_KEY}"]
    mounts = [_model_mount(runtime, location, values, read_only=location.scheme == "pvc")]
    if not model.digest:
        mounts.append({"name": "revision", "mountPath": REVISION_PATH, "readOnly": True})
    if model.credentials:
        args += ["--credentials-dir", CREDENTIALS_PATH]
        args += ["--credentials-name", model.credentials.secret_name]
        mounts.append({"name": "credentials", "mountPath": CREDENTIALS_PATH, "readOnly": True})
        if settings.node_cache and location.remote:
            args += ["--cache", settings.node_cache.url]
    if runtime.layout and runtime.layout != "flat":
        args += ["--layout", runtime.layout, "--model-name", values.by_name["model.name"]]
        if runtime.layout == "tfserving":
            args += ["--model-version", values.by_name["model.version"]]
    if location.remote:
        args += ["--max-bytes", str(settings.max_model_bytes)]
    mounts.append({"name": "tmp", "mountPath": _TEMPORARY})
    fetcher: dict[str, Any] = {
        "name": FETCH_CONTAINER,
        "image": settings.fetcher_image,
        "args": args,
        "resources": _FETCH_RESOURCES,
        "securityContext": _container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }
    if settings.pull_policy:
        fetcher["imagePullPolicy"] = settings.pull_policy
    return fetcher


def _mount_path(runtime: RuntimeTemplate, location: ModelLocation, values: Values) -> str:
    """A claim cannot be laid out, so it is mounted where its server looks for the model."""
    if location.scheme == "pvc" and runtime.layout == "tfserving":
        return f"{MODEL_PATH}/{values.by_name['model.version']}"
    archive = location.scheme == "pvc" and location.path.endswith(".mar")
    if archive and runtime.layout == "torchserve":
        return f"{MODEL_PATH}/{values.by_name['model.name']}.mar"
    return MODEL_PATH


def _model_mount(
    runtime: RuntimeTemplate, location: ModelLocation, values: Values, *, read_only: bool
) -> dict[str, Any]:
    mount: dict[str, Any] = {"name": "model", "mountPath": _mount_path(runtime, location, values)}
    if read_only:
        mount["readOnly"] = True
    if location.scheme == "pvc" and location.path:
        mount["subPath"] = location.path
    return mount


def _server_mounts(
    runtime: RuntimeTemplate, location: ModelLocation, values: Values
) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = []
    if location.fetched or location.image:
        mounts.append(_model_mount(runtime, location, values, read_only=True))
    mounts += [
        {
            "name": "config",
            "mountPath": file.path,
            "subPath": config_key(file.path),
            "readOnly": True,
        }
        for file in runtime.config or ()
    ]
    mounts += [{"name": name, "mountPath": path} for name, path in _writable(runtime).items()]
    return mounts


def _writable(runtime: RuntimeTemplate) -> dict[str, str]:
    """Volume name to path of every writable folder; ``/tmp`` is always one."""
    paths = [path for path in runtime.writable_paths or () if path != _TEMPORARY]
    return {"tmp": _TEMPORARY} | {f"writable-{index}": path for index, path in enumerate(paths)}


def _volumes(
    spec: ModelDeploymentSpec,
    runtime: RuntimeTemplate,
    config_map: str,
    location: ModelLocation,
    settings: RenderSettings,
) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = []
    if location.scheme == "pvc":
        volumes.append(
            {
                "name": "model",
                "persistentVolumeClaim": {"claimName": location.claim, "readOnly": True},
            }
        )
    elif location.image:
        image = {"reference": location.image, "pullPolicy": "IfNotPresent"}
        volumes.append({"name": "model", "image": image})
    elif location.fetched:
        volumes.append({"name": "model", "emptyDir": _sized(2 * settings.max_model_bytes)})
    if location.fetched and not spec.model.digest:
        # Optional on purpose: the first pod starts before the digest is known.
        items = [{"key": DIGEST_KEY, "path": DIGEST_KEY}]
        volumes.append(
            {
                "name": "revision",
                "configMap": {"name": config_map, "items": items, "optional": True},
            }
        )
    if location.fetched and spec.model.credentials:
        secret = spec.model.credentials.secret_name
        # Optional on purpose: the fetcher names a missing Secret, the kubelet would only wait.
        volumes.append({"name": "credentials", "secret": {"secretName": secret, "optional": True}})
    if runtime.config:
        volumes.append({"name": "config", "configMap": {"name": config_map}})
    scratch = _sized(settings.max_model_bytes)
    volumes += [{"name": name, "emptyDir": dict(scratch)} for name in _writable(runtime)]
    return volumes


def _sized(limit: int) -> dict[str, str]:
    """A pod that fills its volume is evicted; without a limit it would fill its node."""
    return {"sizeLimit": canonical(f"{-(-limit // 2**20)}Mi")}


def _spread(name: str, spec: ModelDeploymentSpec, revision: str) -> list[dict[str, Any]]:
    """As asked for; by default over nodes and zones, as far as the cluster allows."""
    wanted = spec.runtime.topology_spread_constraints
    if wanted is not None:
        return [_dump(constraint) for constraint in wanted]
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector(name, revision)},
        }
        for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
    ]


def _pod_security(runtime: RuntimeTemplate) -> dict[str, Any]:
    context: dict[str, Any] = {
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    security = runtime.security
    if security is None or security.set_run_as_user is not False:
        user = security.run_as_user if security else None
        context["runAsUser"] = user if user is not None else _DEFAULT_USER
        # Without it the group would be the image's, often root's.
        context["runAsGroup"] = context["runAsUser"]
        context["fsGroup"] = context["runAsUser"]
        context["fsGroupChangePolicy"] = "OnRootMismatch"
    return context


def _container_security() -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


def _scrape_annotations(runtime: RuntimeTemplate) -> dict[str, str]:
    if runtime.metrics is None:
        return {}
    port = next(p for p in runtime.ports if p.name == runtime.metrics.port)
    return {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(port.container_port),
        "prometheus.io/path": runtime.metrics.path,
    }
