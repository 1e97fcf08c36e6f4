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
            "waitingFor": "the step's time to be over", "next": "step 3: weight 50 for 30m",
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


ANALYSIS = {
    "metrics": [
        {"name": "errors", "errorRate": {"maxRatio": 1.5, "max": 0.02}},
        {"name": "p95", "latency": {"max": "300ms", "maxRatio": 1.3}},
        {"name": "approved", "prometheus": {"query": "avg(approved)", "min": 0.97}},
    ]
}
"""The spec.analysis that the evidence below is for."""


def evidence(**changes: Any) -> Json:
    """status.analysis in the middle of a rollout, with every field that the schema has."""
    return {
        "revision": CANDIDATE, "phase": "Rollout", "verdict": "Inconclusive",
        "message": "p95: about 1,240 more requests needed", "since": at(-8), "observedAt": at(0),
        "metrics": [
            {"name": "errors", "verdict": "Pass", "guaranteed": True, "evidence": 0.042,
             "reason": "0.41% of the attempts fail against 0.48% on stable, over 3,420 requests",
             "pValue": 0.9, "candidate": {"value": 0.0041, "low": 0.002, "high": 0.0077},
             "stable": {"value": 0.00481, "low": 0.0031, "high": 0.0072},
             "ratio": {"value": 0.852, "low": 0.36, "high": 1.9}, "samples": 3420,
             "stableSamples": 31204, "samplesNeeded": 0, "decidedAt": at(-3)},
            {"name": "p95", "verdict": "Inconclusive", "guaranteed": True, "evidence": 0.61,
             "reason": "about 1,240 more requests needed", "pValue": 0.08,
             "candidate": {"value": 0.212, "low": 0.18, "high": 0.31},
             "stable": {"value": 0.19, "low": 0.17, "high": 0.21},
             "ratio": {"value": 1.12, "low": 0.86}, "samples": 3380, "stableSamples": 31001,
             "samplesNeeded": 1240},
            {"name": "approved", "verdict": "Inconclusive", "guaranteed": False,
             "reason": "0.981 is within its limits (no guarantee)",
             "candidate": {"value": 0.981, "low": 0.981, "high": 0.981},
             "query": 'avg(approved{namespace="shop"})'},
        ],
        "state": '{"v":1}', **changes,
    }  # fmt: skip


def judged(status: Json | None = None, **changes: Any) -> Json:
    """A ModelDeployment in the middle of a rollout that is judged."""
    found = deployment({**(status or rolling_out()), "analysis": evidence(**changes)})
    found["spec"]["analysis"] = ANALYSIS
    return found


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
