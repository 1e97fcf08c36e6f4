"""Conditions: an ordered chain of small checks for each, the first that finds something wins.

Ready says whether the capacity asked for serves; Reconciling that something is under way;
Stalled that it will not come about without somebody. Each carries the generation it is true of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

from mooring.core import kinds
from mooring.core.allocation import GATEWAY, REPLICAS
from mooring.core.capacity import capacity
from mooring.core.clock import format_time
from mooring.core.gateway import gateway_trouble
from mooring.core.kinds import Ref
from mooring.core.observed import Manifest, Observed, was_ready
from mooring.core.pods import PodReport, worst
from mooring.core.progress import SCALED_TO_ZERO
from mooring.core.registry_said import registry_conditions
from mooring.core.render.router.objects import LABEL_ROUTER, router_name
from mooring.core.retrain.said import retraining_conditions
from mooring.core.revision import Revision
from mooring.core.rollout import Move
from mooring.core.sentences import bounded
from mooring.core.situation import Situation
from mooring.core.steps import in_words

#: How long routers may take over new routes before that is worth a condition.
_ROUTES_TAKE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of a check: a condition's reason and message, and its status if not True."""

    reason: str
    message: str
    status: str = "True"


Check = Callable[[Observed, Situation], Finding | None]


def conditions(observed: Observed, situation: Situation) -> dict[str, Finding]:
    """All conditions of a ModelDeployment whose spec could be read."""
    return {
        "Ready": _first(_READY, observed, situation),
        "Reconciling": _first(_RECONCILING, observed, situation),
        "Stalled": _first(_STALLED, observed, situation),
        "RolledBack": _first(_ROLLED_BACK, observed, situation),
    } | {
        kind: Finding(reason, message, holds)
        for kind, (holds, reason, message) in (
            retraining_conditions(situation) | registry_conditions(situation)
        ).items()
    }


def merge(observed: Observed, findings: dict[str, Finding]) -> list[Manifest]:
    """Conditions in the API's form; the time of transition changes only with the status."""
    before = {c.get("type"): c for c in observed.status.get("conditions") or ()}
    merged = []
    for kind, finding in findings.items():
        old = before.get(kind) or {}
        same = old.get("status") == finding.status and old.get("lastTransitionTime")
        merged.append(
            {
                "type": kind,
                "status": finding.status,
                "reason": finding.reason,
                "message": bounded(finding.message),
                "observedGeneration": observed.generation,
                "lastTransitionTime": (same and old["lastTransitionTime"])
                or format_time(observed.now),
            }
        )
    return merged


def trouble(observed: Observed, situation: Situation, revision: Revision) -> PodReport | None:
    """What keeps a revision's pods from becoming ready, as far as anybody can tell."""
    has = situation.capacity(revision)
    if has.refused:
        return PodReport("", False, "PodsRefused", has.refused)
    found = worst(observed.pods.get(revision.hash, ()))
    if found is None and situation.counts.get(revision.hash, 0) < situation.total:
        message = "the others start once the first has fixed the digest of the model"
        return PodReport("", False, "Starting", message)
    return found


def _first(chain: tuple[Check, ...], observed: Observed, situation: Situation) -> Finding:
    return next(f for check in chain if (f := check(observed, situation)) is not None)


# Ready ---------------------------------------------------------------------------------------


def _ready_nothing(observed: Observed, situation: Situation) -> Finding | None:
    if situation.serving is not None:
        return None
    if situation.blocked is not None:
        return Finding(situation.blocked.reason, situation.blocked.message, "False")
    if situation.target is not None and situation.target.rejected is not None:
        rejected = situation.target.rejected
        return Finding(rejected.reason, f"nothing serves: {rejected.message}", "False")
    return Finding("NoRevision", "no revision serves", "False")


def _ready_unwritten(observed: Observed, situation: Situation) -> Finding | None:
    failed = _failed_write(observed)
    if failed is not None and not situation.capacity(situation.serving).exists:
        return Finding(failed.reason, failed.message, "False")
    return None


def _ready_unreachable(observed: Observed, situation: Situation) -> Finding | None:
    """Pods may be as ready as can be: without the public Service nobody gets to them."""
    service = Ref(kinds.SERVICE.name, observed.name)
    failed = _failed_write(observed, service)
    if failed is not None:
        return Finding(failed.reason, failed.message, "False")
    if service not in observed.children and situation.capacity(situation.serving).available:
        return Finding("NoService", f"{service} is missing and about to be made", "False")
    return None


def _ready_router(observed: Observed, situation: Situation) -> Finding | None:
    """Nobody gets to the pods while no router has its routes. Later changes are no outage: what
    a router does not take yet, it serves as before.
    """
    if situation.setting.router == REPLICAS or situation.total == 0:
        return None
    routing = situation.setting.routing
    if situation.setting.router == GATEWAY:
        return _ready_gateway(observed, situation)
    routers = capacity(observed.child(kinds.DEPLOYMENT, router_name(observed.name)))
    if routers.available == 0 and situation.capacity(situation.serving).available:
        wanted = routers.set or 1
        return Finding("RouterNotReady", f"0 of {wanted} router pods ready", "False")
    serving = situation.serving
    if was_ready(observed.status) or not situation.capacity(serving).available:
        return None
    if not routing.taken:
        return Finding("RouterStarting", "the routers have not taken their routes yet", "False")
    if serving and observed.routers is not None and not routing.known.get(serving.hash):
        return Finding("RouterStarting", "the routers do not know its pods yet", "False")
    return None


def _ready_gateway(observed: Observed, situation: Situation) -> Finding | None:
    """As with routers; but here pods are reached within the cluster whatever a Gateway says."""
    taken = situation.setting.routing.taken or was_ready(observed.status)
    if taken or not situation.capacity(situation.serving).available:
        return None
    found = _gateway(observed, situation) or Finding(
        "GatewayStarting", "the Gateways have not accepted the HTTPRoute yet"
    )
    return replace(found, status="False")


def _gateway(observed: Observed, situation: Situation) -> Finding | None:
    found = gateway_trouble(observed, situation.setting.routing)
    return Finding(*found) if found is not None else None


def _ready_serving(observed: Observed, situation: Situation) -> Finding | None:
    serving = situation.serving
    has = situation.capacity(serving)
    if serving is None or situation.stable is None or has.available < situation.needed:
        return None
    if situation.counts.get(serving.hash) != situation.total:
        return None  # its digest is not pinned yet: further pods are still to come
    if situation.total == 0:
        return Finding("ScaledToZero", "no pods are asked for: predictions are refused")
    return Finding(
        "Serving",
        f"{_of(has.available, situation.total)} of revision {serving.hash} serve "
        f"{serving.model_uri}",
    )


def _ready_trouble(observed: Observed, situation: Situation) -> Finding | None:
    serving = situation.serving
    if serving is None:
        return None
    has = situation.capacity(serving)
    count = f"{_of(has.available, situation.total)} of revision {serving.hash} ready"
    found = trouble(observed, situation, serving)
    if found is None:
        return Finding("Starting", count, "False")
    detail = f": {found.message}" if found.message else ""
    return Finding(found.reason, count + detail, "False")


# Reconciling ---------------------------------------------------------------------------------


def _awaited(situation: Situation) -> bool:
    """Whether all that is missing is a word of the model registry, which is asked again."""
    resolution = situation.resolution
    return resolution is not None and resolution.model is None and resolution.waiting


def _reconciling_name(observed: Observed, situation: Situation) -> Finding | None:
    if not _awaited(situation) or situation.blocked is None:
        return None
    on = f"; revision {situation.stable.hash} serves on" if situation.stable else ""
    return Finding(situation.blocked.reason, situation.blocked.message + on)


def _reconciling_rollout(observed: Observed, situation: Situation) -> Finding | None:
    candidate = situation.candidate
    if candidate is None:
        return None
    step = _step(situation)
    if situation.rule.move in (Move.HOLD, Move.DWELL):
        until = f" until {format_time(situation.until)}" if situation.until else ""
        words = f"{step}{situation.rule.message}{until}{_evidence_in_words(situation)}"
        return Finding(situation.rule.reason, words, "False")
    if situation.rule.stage in ("Routing", SCALED_TO_ZERO):
        return Finding("RollingOut", f"{step}{situation.rule.message}")
    has = situation.capacity(candidate)
    found = trouble(observed, situation, candidate)
    detail = f": {found.message}" if found and found.message else ""
    count = situation.counts.get(candidate.hash, situation.total)
    if count == 0 < situation.total:
        words = f"pods for revision {candidate.hash}, until the one before it has made room"
        return Finding("RollingOut", f"{step}waiting with {words}")
    if count < situation.total and found is not None and found.reason == "Starting":
        count = situation.total
    return Finding(
        "RollingOut" if situation.stable else "Starting",
        f"{step}{_of(has.available, count)} of revision {candidate.hash} ready{detail}",
    )


def _evidence_in_words(situation: Situation) -> str:
    """``; Inconclusive: errors: about 300 more requests needed``, where somebody judges."""
    if situation.held_to is None:
        return ""
    if situation.held_to.gaps:
        return f"; {situation.held_to.gaps[0].message}"
    if situation.evidence is None:
        return "; the first measurements are awaited"
    if situation.evidence.missing:
        return f"; NoData: {situation.evidence.missing}"
    judgement = situation.evidence.judgement
    return f"; {judgement.verdict.value}: {judgement.reason}"


def _step(situation: Situation) -> str:
    """``step 2 of 5, weight 25 for 20m: ``, or nothing where there are no steps."""
    plan = situation.candidate.rollout if situation.candidate else None
    if plan is None or not plan.steps or plan.done:
        return ""
    return f"step {(plan.index or 0) + 1} of {len(plan.steps)}, {in_words(plan.step)}: "


def _reconciling_leaving(observed: Observed, situation: Situation) -> Finding | None:
    by_pods = situation.setting.router == REPLICAS
    route = situation.route if by_pods else situation.setting.routing.route
    if situation.candidate is not None or situation.stable is None:
        return None
    left = next((r for r in situation.leaving if route.weight(r.hash)), None)
    if left is None:
        return None
    if left.rejected is None and left.promotion is not None:
        words = f"the traffic of revision {left.hash} moves to {situation.stable.hash}"
        return Finding("RollingOut", words)
    return Finding("RollingBack", f"the traffic of revision {left.hash} goes back to stable")


def _reconciling_baking(observed: Observed, situation: Situation) -> Finding | None:
    if situation.baking_until is None or situation.previous is None:
        return None
    until = format_time(situation.baking_until)
    words = f"revision {situation.previous.hash} is kept until {until}"
    return Finding("Baking", f"{words}{_evidence_in_words(situation)}", "False")


def _reconciling_capacity(observed: Observed, situation: Situation) -> Finding | None:
    stable = situation.stable
    has = situation.capacity(stable)
    if stable is None or has.available >= situation.total:
        return None
    return Finding("Scaling", f"{_of(has.available, situation.total)} ready")


def _reconciling_done(observed: Observed, situation: Situation) -> Finding | None:
    return Finding("UpToDate", "nothing is under way", "False")


# Stalled -------------------------------------------------------------------------------------


def _stalled_blocked(observed: Observed, situation: Situation) -> Finding | None:
    if situation.blocked is None or _awaited(situation):
        return None
    on = f"; revision {situation.stable.hash} serves on" if situation.stable else ""
    return Finding(situation.blocked.reason, situation.blocked.message + on)


def _stalled_writes(observed: Observed, situation: Situation) -> Finding | None:
    return _failed_write(observed)


def _stalled_rejected(observed: Observed, situation: Situation) -> Finding | None:
    target = situation.target
    if target is None or target.rejected is None or situation.candidate is not None:
        return None  # on the way back to the one before
    return Finding(
        "RevisionRejected",
        f"revision {target.hash} was rejected ({target.rejected.reason}): "
        f"{target.rejected.message}; change the spec, or retry it with the annotation "
        f"mooring.dev/action: retry/{target.hash}/<token>",
    )


def _stalled_router(observed: Observed, situation: Situation) -> Finding | None:
    """Routers that do not take their routes: what serves serves on, and nothing moves."""
    routing = situation.setting.routing
    if situation.setting.router == GATEWAY:
        return _gateway(observed, situation)
    if situation.setting.router == REPLICAS or routing.table is None or routing.taken:
        return None
    waited = observed.now - (routing.since or observed.now)
    if routing.problem:
        return Finding("RouterRefused", f"router pod {routing.problem}; nothing moves meanwhile")
    if waited < _ROUTES_TAKE:
        return None
    if routing.idle or routing.ready == 0:
        return Finding(
            "RouterNotReady",
            f"no router pod is ready: see kubectl get pods -l {LABEL_ROUTER}={observed.name}",
        )
    return Finding(
        "RouterNotTaking",
        f"not every router pod has taken the routes written at "
        f"{format_time(routing.since or observed.now)}; nothing moves until it has",
    )


def _stalled_unmeasured(observed: Observed, situation: Situation) -> Finding | None:
    """An analysis that cannot be carried out as it is written: nothing is promoted by it."""
    if situation.held_to is None or not situation.held_to.gaps:
        return None
    gaps = situation.held_to.gaps
    return Finding(gaps[0].reason, "; ".join(gap.message for gap in gaps))


def _stalled_no_data(observed: Observed, situation: Situation) -> Finding | None:
    evidence = situation.evidence
    if evidence is None or not evidence.overdue:
        return None
    judged = evidence.examination.revision
    return Finding(
        "NoData", f"revision {judged} cannot be judged, so nothing moves: {evidence.missing}"
    )


def _stalled_permanent(observed: Observed, situation: Situation) -> Finding | None:
    for revision in (situation.candidate, situation.stable):
        if revision is None:
            continue
        found = trouble(observed, situation, revision)
        if found is not None and found.permanent and situation.capacity(revision).available == 0:
            return Finding(found.reason, f"revision {revision.hash}: {found.message}")
    return None


def _stalled_overdue(observed: Observed, situation: Situation) -> Finding | None:
    candidate = situation.candidate
    if candidate is None or situation.deadline is None or situation.rule.move is not Move.WAIT:
        return None
    if observed.now < situation.deadline:
        return None
    found = trouble(observed, situation, candidate)
    words = f": {found.message}" if found and found.message else ""
    return Finding(
        "ProgressDeadlineExceeded",
        f"no further pod of revision {candidate.hash} became ready in time{words}",
    )


def _stalled_not(observed: Observed, situation: Situation) -> Finding | None:
    return Finding("NotStalled", "nothing stands in the way", "False")


# RolledBack ----------------------------------------------------------------------------------


def _rolled_back_target(observed: Observed, situation: Situation) -> Finding | None:
    target = situation.target
    if target is None or target.rejected is None:
        return None
    return Finding(
        target.rejected.reason, f"revision {target.hash} was taken back: {target.rejected.message}"
    )


def _rolled_back_not(observed: Observed, situation: Situation) -> Finding | None:
    return Finding("NotRolledBack", "what the spec asks for was not taken back", "False")


def _failed_write(observed: Observed, only: Ref | None = None) -> Finding | None:
    """What could not be written in the last round: the first of all, or this object."""
    for ref, whose in sorted(observed.foreign.items()):
        if only in (None, ref):
            return Finding(
                "NameTaken",
                f"{ref} exists and belongs to {whose}: remove it, or rename this ModelDeployment",
            )
    for ref, answer in sorted(observed.failures.items()):
        if only in (None, ref):
            return Finding("WriteRefused", f"the API server refused {ref}: {answer}")
    return None


def _of(available: int, total: int) -> str:
    return f"{min(available, total)} of {total} pod{'' if total == 1 else 's'}"


_READY: tuple[Check, ...] = (
    _ready_nothing,
    _ready_unwritten,
    _ready_unreachable,
    _ready_router,
    _ready_serving,
    _ready_trouble,
)
_RECONCILING: tuple[Check, ...] = (
    _reconciling_name,
    _reconciling_rollout,
    _reconciling_leaving,
    _reconciling_capacity,
    _reconciling_baking,
    _reconciling_done,
)
_STALLED: tuple[Check, ...] = (
    _stalled_blocked,
    _stalled_writes,
    _stalled_rejected,
    _stalled_router,
    _stalled_unmeasured,
    _stalled_no_data,
    _stalled_permanent,
    _stalled_overdue,
    _stalled_not,
)
_ROLLED_BACK: tuple[Check, ...] = (_rolled_back_target, _rolled_back_not)
