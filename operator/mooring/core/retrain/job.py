"""The Job that trains, made from a PodTemplate of the namespace.

A PodTemplate is the one kind of Kubernetes that holds a pod template and runs nothing; it needs no
definition of ours, and whoever may write one may in effect create pods, which is what its author
asks for here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mooring.core import kinds
from mooring.core.clock import format_time
from mooring.core.render.metadata import labels

if TYPE_CHECKING:
    from mooring.core.retrain.request import Owner, Request

Manifest = dict[str, Any]

FILE_FOLDER = "/etc/mooring"
FILE_NAME = "request.json"
_VOLUME = "mooring-request"
#: Pods that are tried before the Job has failed: the first and two more.
_RETRIES = 2
_EVIDENCE_IN_ENV = 20
_SHORTEST = 60
#: Kubernetes counts nanoseconds in 63 bits: a longer time is none, and the Job fails at once.
_LONGEST = 2**31 - 1


class NoTemplate(ValueError):
    """The template cannot be used; the message says why and what to do."""


def job_objects(
    request: Request,
    owner: Owner,
    template: Mapping[str, Any] | None,
    template_name: str,
    deadline: datetime,
) -> tuple[Manifest, ...]:
    """The ConfigMap with the request as a file, and the Job; raises NoTemplate."""
    return (_file(request, owner), _job(request, owner, template, template_name, deadline))


def described(request: Request, owner: Owner) -> Manifest:
    """The request as whoever trains gets it: in the file, and as the data of the event."""
    trigger = request.spec.get("trigger") or {"type": "Manual"}
    found: Manifest = {
        "request": request.name,
        "deployment": owner.name,
        "namespace": owner.namespace,
        "revision": owner.revision,
        "idempotencyKey": request.key,
        "trigger": dict(trigger),
        "evidence": list(request.spec.get("evidence") or ()),
        "dataWindow": request.spec.get("dataWindow"),
        "deadline": request.spec.get("deadline"),
        "model": {"uri": owner.model_uri, "digest": owner.model_digest},
        "allowedPrefixes": list(owner.prefixes),
    }
    return {key: value for key, value in found.items() if value is not None}


def _file(request: Request, owner: Owner) -> Manifest:
    text = json.dumps(described(request, owner), sort_keys=True, indent=2, ensure_ascii=False)
    return _object(kinds.CONFIG_MAP, request, owner, data={FILE_NAME: text + "\n"})


def _job(
    request: Request,
    owner: Owner,
    raw: Mapping[str, Any] | None,
    name: str,
    deadline: datetime,
) -> Manifest:
    where = f"in namespace {owner.namespace}"
    if raw is None:
        raise NoTemplate(
            f"PodTemplate {name} does not exist {where}: create it, or correct "
            "spec.retraining.action.job.templateRef"
        )
    template = raw.get("template") or {}
    pod = template.get("spec") or {}
    if not pod.get("containers"):
        raise NoTemplate(f"PodTemplate {name} {where} has no containers: add one that trains")
    meta = template.get("metadata") or {}
    seconds = int((deadline - owner.now).total_seconds())
    spec: Manifest = {
        "backoffLimit": _RETRIES,
        "activeDeadlineSeconds": min(max(_SHORTEST, seconds), _LONGEST),
        "template": {
            "metadata": {
                "labels": {
                    **_others(meta.get("labels")),
                    kinds.LABEL_REQUEST: request.name,
                },
                "annotations": _others(meta.get("annotations")),
            },
            "spec": _pod(pod, _environment(request, owner, deadline), request.name),
        },
    }
    return _object(kinds.JOB, request, owner, spec=spec)


def _others(found: Mapping[str, str] | None) -> dict[str, str]:
    """Not ours: with the labels of a revision the pods would get its requests."""
    return {k: v for k, v in (found or {}).items() if not k.startswith(f"{kinds.GROUP}/")}


def _pod(pod: Mapping[str, Any], env: list[Manifest], config_map: str) -> Manifest:
    found = dict(pod)
    if found.get("restartPolicy") not in ("Never", "OnFailure"):
        found["restartPolicy"] = "Never"  # a PodTemplate is stored with Always, which no Job takes
    for part in ("initContainers", "containers"):
        if found.get(part):
            found[part] = [_container(container, env) for container in found[part]]
    volume = {"name": _VOLUME, "configMap": {"name": config_map}}
    found["volumes"] = [v for v in found.get("volumes") or () if v.get("name") != _VOLUME]
    found["volumes"].append(volume)
    return found


def _container(container: Mapping[str, Any], env: list[Manifest]) -> Manifest:
    names = {variable["name"] for variable in env}
    own = [v for v in container.get("env") or () if v.get("name") not in names]
    mounts = [m for m in container.get("volumeMounts") or () if m.get("name") != _VOLUME]
    mount = {"name": _VOLUME, "mountPath": FILE_FOLDER, "readOnly": True}
    found = {**container, "env": [*env, *own], "volumeMounts": [*mounts, mount]}
    if container.get("terminationMessagePolicy") in (None, "File"):
        # The file where there is one, else the last lines of the log: either way its last words.
        found["terminationMessagePolicy"] = "FallbackToLogsOnError"
    return found


def _environment(request: Request, owner: Owner, deadline: datetime) -> list[Manifest]:
    told = described(request, owner)
    window = told.get("dataWindow") or {}
    evidence = json.dumps(told["evidence"][:_EVIDENCE_IN_ENV], separators=(",", ":"))
    found = {
        "MOORING_REQUEST": request.name,
        "MOORING_REQUEST_FILE": f"{FILE_FOLDER}/{FILE_NAME}",
        "MOORING_IDEMPOTENCY_KEY": request.key,
        "MOORING_NAMESPACE": owner.namespace,
        "MOORING_DEPLOYMENT": owner.name,
        "MOORING_REVISION": told["revision"],
        "MOORING_TRIGGER": told["trigger"].get("type", "Manual"),
        "MOORING_EVIDENCE": evidence.replace("$(", "$$("),
        "MOORING_WINDOW_START": window.get("start", ""),
        "MOORING_WINDOW_END": window.get("end", ""),
        "MOORING_MODEL_URI": owner.model_uri,
        "MOORING_MODEL_DIGEST": owner.model_digest or "",
        "MOORING_ALLOWED_PREFIXES": ",".join(owner.prefixes),
        "MOORING_DEADLINE": format_time(deadline),
    }
    return [{"name": name, "value": str(value)} for name, value in found.items()]


def _object(kind: kinds.Kind, request: Request, owner: Owner, **body: Any) -> Manifest:
    """Owned by the request, so that it goes with it."""
    return {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "metadata": {
            "name": request.name,
            "namespace": owner.namespace,
            "labels": {**labels(owner.name), kinds.LABEL_REQUEST: request.name},
            "ownerReferences": [
                {
                    "apiVersion": kinds.RETRAINING_REQUEST.api_version,
                    "kind": kinds.RETRAINING_REQUEST.name,
                    "name": request.name,
                    "uid": request.uid,
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        },
        **body,
    }
