"""Status: what is served, what is under way, why it waits, and what comes next.

Nothing in it is needed to decide what is served. It can be lost and is written anew; only timers
then begin again.
"""

from __future__ import annotations

from typing import Any

from mooring.core import kinds
from mooring.core.allocation import GATEWAY, REPLICAS
from mooring.core.analysis_status import analysis_status
from mooring.core.capacity import Capacity, capacity
from mooring.core.clock import format_time
from mooring.core.conditions import Finding, merge
from mooring.core.observed import Manifest, Observed
from mooring.core.render.metadata import selector
from mooring.core.render.router.objects import router_name
from mooring.core.retrain.said import adopted_model, retraining_status
from mooring.core.revision import Revision
from mooring.core.sentences import bounded
from mooring.core.situation import Situation
from mooring.core.steps import in_words

_REJECTED_LIMIT = 10
_NOT_MEASURED = "weights are as set: a Gateway does not tell how it has split the requests"


def status(observed: Observed, situation: Situation, findings: dict[str, Finding]) -> Manifest:
    """The complete status; fields without a value are left out."""
    phase, message = _headline(situation, findings)
    serving = situation.serving
    found: dict[str, Any] = {
        "observedGeneration": observed.generation,
        "phase": phase,
        "message": bounded(message),
        "conditions": merge(observed, findings),
        "replicas": situation.capacity(serving).pods,
        "stable": _revision(situation, situation.stable),
        "candidate": _revision(situation, situation.candidate),
        "previous": _revision(situation, situation.previous),
        "rollout": _rollout(situation),
        "router": _router(observed, situation),
        "analysis": analysis_status(observed, situation),
        "rejectedRevisions": _rejected(situation),
        "retraining": retraining_status(situation),
        "adoptedModel": adopted_model(situation),
        "lastAction": _last_action(observed, situation),
    }
    if serving is not None:
        labels = selector(observed.name, serving.hash)
        found["selector"] = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    return {key: value for key, value in found.items() if value is not None and value != []}


def halted(observed: Observed, finding: Finding) -> Manifest:
    """The status when nothing may be touched: the rest stays as it was, and why is said.

    Ready becomes Unknown: whether what serves is what the spec asks for cannot be told.
    """
    findings = {
        "Ready": _cannot_tell(finding),
        "Reconciling": Finding(finding.reason, "waiting for somebody to act", "False"),
        "Stalled": finding,
    }
    before = {k: v for k, v in observed.status.items() if k != "conditions"}
    return {
        **before,
        "observedGeneration": observed.generation,
        "phase": "Stalled",
        "message": bounded(finding.message),
        "conditions": merge(observed, findings),
    }


def _cannot_tell(finding: Finding) -> Finding:
    return Finding(
        finding.reason,
        "whether the capacity asked for serves is not known: " + finding.message,
        "Unknown",
    )


def _headline(situation: Situation, findings: dict[str, Finding]) -> tuple[str, str]:
    """One word and one sentence for people, from the conditions."""
    ready, reconciling, stalled = (findings[k] for k in ("Ready", "Reconciling", "Stalled"))
    if stalled.status == "True":
        return "Stalled", stalled.message
    if situation.candidate is not None and situation.candidate.paused:
        return "Paused", reconciling.message
    if situation.candidate is not None and situation.stable is not None:
        back = situation.stable.rejected is not None
        return "RollingBack" if back else "RollingOut", reconciling.message
    if reconciling.reason in ("RollingBack", "RollingOut") and situation.stable is not None:
        return reconciling.reason, reconciling.message
    if reconciling.reason == "Baking" and ready.status == "True":
        return "Baking", reconciling.message
    if ready.status == "True":
        return ("ScaledToZero" if situation.total == 0 else "Serving"), ready.message
    if situation.stable is None:
        return "Starting", ready.message
    return "Degraded", ready.message


def _revision(situation: Situation, revision: Revision | None) -> Manifest | None:
    if revision is None:
        return None
    has = situation.capacity(revision)
    stable = situation.stable is not None and revision.hash == situation.stable.hash
    since = revision.promoted_at if stable else None
    found: dict[str, Any] = {
        "revision": revision.hash,
        "modelUri": revision.model_uri,
        "modelDigest": revision.resolved_digest,
        "runtime": revision.rendered.runtime.get("name"),
        "replicas": {
            "desired": situation.counts.get(revision.hash, has.set if stable else situation.total),
            "ready": has.available,
        },
        "weight": _weight(situation, revision),
        "since": format_time(since) if since else None,
    }
    return {key: value for key, value in found.items() if value is not None}


def _weight(situation: Situation, revision: Revision) -> int | None:
    """What the router was told to send it; with router replicas what the ratio of pods gives."""
    if situation.setting.router != REPLICAS:
        table = situation.setting.routing.table
        return table.route.weight(revision.hash) if table is not None else None
    if situation.route.weight(revision.hash) in (0, 100):
        return situation.route.weight(revision.hash)
    has = {r: situation.capacities.get(r, Capacity()).available for r in situation.route.weights}
    pods = sum(has.values())
    return round(100 * has[revision.hash] / pods) if pods else 0


def _rollout(situation: Situation) -> Manifest | None:
    candidate = situation.candidate
    if candidate is None or situation.progress is None:
        return _bake(situation)
    found: Manifest = {
        "revision": candidate.hash,
        "stage": _stage(situation),
        "maxAvailable": situation.progress.most_available,
        "progressedAt": format_time(situation.progress.since),
    }
    if situation.progress.staffed_since is not None:
        found["staffedSince"] = format_time(situation.progress.staffed_since)
    if situation.rule.awaits:
        found["waitingFor"] = situation.rule.awaits
    plan = candidate.rollout
    if plan is not None and plan.steps:
        found["steps"] = len(plan.steps)
        if not plan.done:
            found["step"] = plan.number
            later = plan.advanced()
            found["next"] = in_words(later.step)
        found["doing"] = in_words(plan.step)
        if plan.since is not None:
            found["since"] = format_time(plan.since)
    if situation.until is not None:
        found["until"] = format_time(situation.until)
    if situation.deadline is not None:
        found["deadline"] = format_time(situation.deadline)
    return found


def _stage(situation: Situation) -> str:
    stable = situation.stable
    return "Returning" if stable is not None and stable.rejected else situation.rule.stage


def _bake(situation: Situation) -> Manifest | None:
    if situation.baking_until is None or situation.stable is None or situation.previous is None:
        return None
    return {
        "revision": situation.stable.hash,
        "stage": "Baking",
        "until": format_time(situation.baking_until),
        "waitingFor": f"the bake to be over; {situation.previous.hash} can take the traffic back",
    }


def _router(observed: Observed, situation: Situation) -> Manifest | None:
    if situation.setting.router == REPLICAS:
        return None
    routing = situation.setting.routing
    if situation.setting.router == GATEWAY:
        return _gateway(observed, situation)
    before = (observed.status.get("router") or {}).get("taken")
    routers = capacity(observed.child(kinds.DEPLOYMENT, router_name(observed.name)))
    found = {
        "kind": situation.setting.router,
        "version": routing.version or None,
        "taken": routing.version if routing.taken else before,
        "takenAt": format_time(routing.taken_at) if routing.taken_at else None,
        "routers": {"desired": routers.set, "ready": routers.available} if routers.exists else None,
        "message": bounded(routing.problem) or None,
    }
    return {key: value for key, value in found.items() if value is not None}


def _gateway(observed: Observed, situation: Situation) -> Manifest:
    routing = situation.setting.routing
    found = {
        "kind": GATEWAY,
        "version": routing.version or None,
        "taken": routing.version if routing.taken else _taken_before(observed),
        "message": bounded(routing.problem or _NOT_MEASURED),
    }
    return {key: value for key, value in found.items() if value is not None}


def _taken_before(observed: Observed) -> str | None:
    """What was taken last, as status says; nothing that another router had taken."""
    router = observed.status.get("router") or {}
    return router.get("taken") if router.get("kind") == GATEWAY else None


def _rejected(situation: Situation) -> list[Manifest]:
    newest = sorted(
        (r for r in situation.history.revisions if r.rejected),
        key=lambda r: r.sequence,
        reverse=True,
    )
    return [
        {
            "revision": r.hash,
            "reason": r.rejected.reason,
            "message": bounded(r.rejected.message),
            "at": format_time(r.rejected.at),
        }
        for r in newest[:_REJECTED_LIMIT]
        if r.rejected is not None
    ]


def _last_action(observed: Observed, situation: Situation) -> Manifest | None:
    outcome = situation.verb
    if outcome is None:
        return observed.status.get("lastAction")
    return {
        "verb": outcome.action.verb,
        "revision": outcome.action.revision,
        "token": outcome.action.token,
        "result": outcome.result,
        "message": outcome.message,
        "at": format_time(observed.now),
    }
