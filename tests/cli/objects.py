"""Fixture objects: one rollout in the middle of its second step, as the API server returns it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

Json = dict[str, Any]

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
NAMESPACE = "shop"
DEPLOYMENTS = f"/apis/mooring.dev/v1alpha1/namespaces/{NAMESPACE}/modeldeployments"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
EVENTS = f"/api/v1/namespaces/{NAMESPACE}/events"
RECORDS = f"/apis/apps/v1/namespaces/{NAMESPACE}/controllerrevisions"
STABLE, CANDIDATE, OLD, REJECTED = "hcqmvwrtzb", "bkdzxfpnlt", "cvgjwhmtqr", "ddrtlkwnpz"


def at(minutes: float) -> str:
    """So many minutes after NOW, as the API writes a time."""
    return (NOW + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(kind: str, status: str, reason: str, message: str = "") -> Json:
    return {
        "type": kind, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": at(-8), "observedGeneration": 3,
    }  # fmt: skip


SERVING = "3 of 3 pods of revision hcqmvwrtzb serve s3://models/fraud/v7"


def stable(**changes: Any) -> Json:
    return {
        "revision": STABLE, "modelUri": "s3://models/fraud/v7", "modelDigest": "sha256:" + "9" * 64,
        "runtime": "onnx", "replicas": {"desired": 3, "ready": 3}, "weight": 75,
        "measuredWeight": 76, "since": at(-3000), **changes,
    }  # fmt: skip


def candidate(**changes: Any) -> Json:
    return {
        "revision": CANDIDATE, "modelUri": "s3://models/fraud/v8",
        "modelDigest": "sha256:" + "a" * 64, "runtime": "onnx",
        "replicas": {"desired": 2, "ready": 1}, "weight": 25, "measuredWeight": 24,
        "since": at(-20), **changes,
    }  # fmt: skip


def rolling_out() -> Json:
    """The status in the middle of a rollout, with every field that the schema has."""
    return {
        "observedGeneration": 3,
        "phase": "RollingOut",
        "message": "25 % of the traffic goes to revision bkdzxfpnlt",
        "conditions": [
            condition("Ready", "True", "Serving", SERVING),
            condition("Reconciling", "False", "UpToDate", "nothing is under way"),
            condition("Stalled", "False", "NotStalled", "nothing stands in the way"),
        ],
        "stable": stable(),
        "candidate": candidate(),
        "rollout": {
            "revision": CANDIDATE, "stage": "Waiting", "step": 2, "steps": 6,
            "doing": "weight 25 for 20m", "since": at(-8), "until": at(12),
            "waitingFor": "the step to last its 20m", "next": "step 3: weight 50 for 30m",
        },
        "router": {
            "kind": "envoy", "version": "7f3c2a", "taken": "7f3c2a",
            "routers": {"desired": 2, "ready": 2},
        },
        "rejectedRevisions": [
            {"revision": REJECTED, "reason": "Aborted", "message": "aborted by hand",
             "at": at(-120)},
        ],
        "lastAction": {
            "verb": "abort", "revision": REJECTED, "token": "1", "result": "Accepted",
            "message": "revision ddrtlkwnpz is rejected", "at": at(-120),
        },
    }  # fmt: skip


def serving(**changes: Any) -> Json:
    """The status when nothing is under way."""
    return {
        "observedGeneration": 3,
        "phase": "Serving",
        "message": SERVING,
        "conditions": [
            condition("Ready", "True", "Serving", SERVING),
            condition("Reconciling", "False", "UpToDate"),
            condition("Stalled", "False", "NotStalled"),
        ],
        "stable": stable(weight=100, measuredWeight=None),
        **changes,
    }


DENIED = "s3://models/churn/v12: access denied: check the Secret churn-store"


def stalled(reason: str = "FetchFailed", message: str = DENIED) -> Json:
    """The status of one whose only revision never gets ready."""
    return {
        "observedGeneration": 3,
        "phase": "Stalled",
        "message": message,
        "conditions": [
            condition("Ready", "False", reason, f"0 of 3 pods ready: {message}"),
            condition("Reconciling", "True", "Starting", "0 of 3 pods ready"),
            condition("Stalled", "True", reason, message),
        ],
        "candidate": {
            "revision": CANDIDATE, "modelUri": "s3://models/churn/v12", "runtime": "onnx",
            "replicas": {"desired": 3, "ready": 0},
        },
    }  # fmt: skip


def deployment(status: Json | None = None, name: str = "fraud", **metadata: Any) -> Json:
    found: Json = {
        "apiVersion": "mooring.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {
            "name": name, "namespace": NAMESPACE, "generation": 3, "uid": f"uid-{name}",
            "creationTimestamp": at(-9000), **metadata,
        },
        "spec": {"model": {"uri": f"s3://models/{name}/v8"}, "runtime": {"name": "onnx"},
                 "replicas": 3},
    }  # fmt: skip
    return found if status is None else {**found, "status": status}


def pod(
    revision: str, number: int, *, ready: bool = True, name: str = "fraud", **more: Any
) -> Json:
    """A pod of a revision, or of the router."""
    router = revision == "router"
    label = "app.kubernetes.io/component" if router else "mooring.dev/revision"
    server = {"name": "server", "restartCount": 0, "state": {"running": {}}, **more}
    return {
        "metadata": {
            "name": f"{name}-{revision}-5d8f{number}",
            "namespace": NAMESPACE,
            "labels": {
                "app.kubernetes.io/managed-by": "mooring",
                "app.kubernetes.io/instance": name,
                label: revision,
            },
        },
        "status": {
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [server],
        },
    }


def broken_pod(number: int = 1, words: str = "model.onnx: not a valid ONNX model") -> Json:
    """A pod of the candidate whose server ends again and again."""
    return pod(
        CANDIDATE,
        number,
        ready=False,
        restartCount=3,
        state={"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
        lastState={"terminated": {"exitCode": 1, "reason": "Error", "message": words}},
    )


def all_pods() -> tuple[Json, ...]:
    return (
        *(pod(STABLE, number) for number in range(3)),
        pod(CANDIDATE, 0),
        broken_pod(),
        *(pod("router", number) for number in range(2)),
    )


def record(revision: str, sequence: int, uri: str, *, cpu: str = "500m", **facts: str) -> Json:
    """A ControllerRevision; ``facts`` are its annotations without the group."""
    template = {
        "metadata": {"labels": {"mooring.dev/revision": revision}},
        "spec": {"containers": [{"name": "server", "image": f"onnx-server:0.1.{sequence // 3}",
                                 "resources": {"requests": {"cpu": cpu}}}]},
    }  # fmt: skip
    return {
        "metadata": {
            "name": f"fraud-{revision}",
            "namespace": NAMESPACE,
            "creationTimestamp": at(-9000 + sequence),
            "labels": {"mooring.dev/deployment": "fraud", "mooring.dev/revision": revision},
            "annotations": {f"mooring.dev/{k.replace('_', '-')}": v for k, v in facts.items()},
        },
        "revision": sequence,
        "data": {
            "inputs": {"model": {"uri": uri}, "runtime": {"name": "onnx"}},
            "template": template,
            "config": {"models.json": "{}\n"},
            "runtime": {"name": "onnx"},
        },
    }


def all_records() -> tuple[Json, ...]:
    why = json.dumps({"reason": "Aborted", "message": "aborted by hand", "at": at(-120)})
    return (
        record(OLD, 1, "s3://models/fraud/v6", promotion="1", promoted_at=at(-9000)),
        record(STABLE, 2, "s3://models/fraud/v7", promotion="2", promoted_at=at(-3000),
               model_digest="sha256:" + "9" * 64),
        record(REJECTED, 3, "s3://models/fraud/v8-rc1", rejected=why),
        record(CANDIDATE, 4, "s3://models/fraud/v8", cpu="1"),
    )  # fmt: skip
