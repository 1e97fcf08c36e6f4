"""``decide``: from everything observed to everything that should be. Pure, and the only such place.

It never calls anything and never reads a clock, so whatever can be wrong here can be tested by a
table.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from mooring.api import InvalidResource, parse_model_deployment
from mooring.core import monitoring
from mooring.core.conditions import Finding, conditions
from mooring.core.events import Event, events, turned
from mooring.core.examination import Examination
from mooring.core.front import Touch
from mooring.core.kinds import Ref
from mooring.core.objects import Deletion, objects
from mooring.core.observed import Manifest, Observed
from mooring.core.retrain.counting import Question
from mooring.core.retrain.event import Delivery
from mooring.core.retrain.measuring import EVERY as MEASURED_EVERY
from mooring.core.retrain.measuring import Measurement, measurement
from mooring.core.retrain.pruning import prunable
from mooring.core.retrain.work import RequestStatus
from mooring.core.revision import History, read_history
from mooring.core.situation import Situation
from mooring.core.status import halted, status
from mooring.core.understanding import understand

#: Pods are not watched. While some are not ready they are looked at, ever less often.
_ROUTERS_LEARN = timedelta(seconds=1)
_LOOK_SOONEST = timedelta(seconds=2)
_LOOK_LATEST = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to write, in this order: status, ``apply`` (records first), ``create``,
    ``request_statuses``, ``touch``, ``scale``, ``delete``; events to ``deliver``, and what
    of new data to ``count`` and of performance to ``measure``.

    Status comes first and does not depend on the rest, so that a failing write still leaves a
    true one. ``create`` holds what is made if nothing of its name exists, and never written again.
    ``look_again`` is when to decide anew if nothing happens before; None: no need.
    ``examination`` is what to have measured until then; None: nothing is under judgement.
    """

    status: Manifest | None = None
    apply: tuple[Manifest, ...] = ()
    create: tuple[Manifest, ...] = ()
    request_statuses: tuple[RequestStatus, ...] = ()
    deliver: tuple[Delivery, ...] = ()
    count: tuple[Question, ...] = ()
    measure: Measurement | None = None
    touch: tuple[Touch, ...] = ()
    scale: tuple[tuple[Ref, int], ...] = ()
    delete: tuple[Deletion, ...] = ()
    events: tuple[Event, ...] = ()
    look_again: datetime | None = None
    examination: Examination | None = None


def decide(observed: Observed) -> Plan:
    """The plan for one ModelDeployment.

    Raises whatever a defect of ours raises; the engine then stalls this object alone, by
    :func:`stalled`.
    """
    if observed.resource["metadata"].get("deletionTimestamp"):
        return Plan()  # its children follow it by their owner references
    observed = observed.with_sound_status()
    recorded = read_history(observed.children)
    unreadable = recorded.unreadable
    if unreadable:
        return stalled(
            observed,
            "RecordUnreadable",
            f"ControllerRevision {unreadable[0]} cannot be read, so nothing is touched: restore "
            "it from a backup, or delete it if its revision is no longer wanted",
        )
    try:
        resource = parse_model_deployment(observed.resource)
    except InvalidResource as error:
        problems = "; ".join(error.problems)
        return stalled(observed, "InvalidSpec", f"{problems}; what serves is left as it is")
    situation = understand(observed, resource)
    watched = resource.spec.monitoring
    findings = conditions(observed, situation) | monitoring.findings(observed, watched)
    drift = monitoring.drift_status(observed, watched)
    wanted = objects(observed, resource.spec, situation)
    retraining = situation.retraining
    measure = measurement(
        resource.spec.retraining,
        watched,
        situation.stable.hash if situation.stable is not None else "",
        observed.namespace,
        observed.name,
    )
    return Plan(
        status=status(observed, situation, findings) | ({"drift": drift} if drift else {}),
        apply=wanted.apply,
        touch=wanted.touch,
        scale=wanted.scale,
        delete=(*wanted.delete, *_finished(situation, recorded)),
        create=retraining.create if retraining else (),
        request_statuses=retraining.statuses if retraining else (),
        deliver=retraining.deliver if retraining else (),
        count=retraining.count if retraining else (),
        measure=measure,
        events=(*events(observed, situation, findings), *monitoring.turned(observed, findings)),
        look_again=_soonest(
            wanted.look_again,
            _next_look(observed, situation),
            _next_deadline(observed, situation),
            _routers_known(observed, findings),
            retraining.look_again if retraining else None,
            observed.now + MEASURED_EVERY if measure is not None else None,
        ),
        examination=situation.examination,
    )


def _finished(situation: Situation, recorded: History) -> tuple[Deletion, ...]:
    """Requests for new models that are history, by what the records say already."""
    if situation.retraining is None or recorded.stable is None:
        return ()
    live = {
        r.hash for r in (situation.stable, situation.candidate, situation.previous) if r is not None
    }
    return prunable(situation.retraining.desk, recorded.stable.ledger, live)


def _routers_known(observed: Observed, findings: dict[str, Finding]) -> datetime | None:
    """When to ask routers again that do not know the pods yet: nobody tells when they do."""
    starting = findings["Ready"].reason == "RouterStarting"
    return observed.now + _ROUTERS_LEARN if starting else None


def stalled(observed: Observed, reason: str, message: str) -> Plan:
    """A plan that touches nothing but status: what serves goes on serving."""
    finding = Finding(reason, message)
    written = halted(observed, finding)
    found = turned(observed, {"Ready": Finding(reason, message, "Unknown"), "Stalled": finding})
    return Plan(status=written, events=found)


def _next_look(observed: Observed, situation: Situation) -> datetime | None:
    """When to list pods again: after a quarter of the time already waited, within bounds."""
    if situation.promoted or situation.rejected or situation.begun or situation.postponed:
        return observed.now  # what follows from it can be done at once
    lacking = any(
        situation.capacity(r).exists
        and (
            situation.capacity(r).available < situation.counts.get(r.hash, 0)
            or (not r.settled and situation.counts.get(r.hash, 0) < situation.total)
        )
        for r in (situation.stable, situation.candidate)
        if r is not None
    )
    if not lacking:
        return None
    waited = timedelta(0)
    if situation.progress is not None:
        waited = observed.now - situation.progress.since
    elif situation.stable is not None and situation.stable.promoted_at is not None:
        waited = observed.now - situation.stable.promoted_at
    return observed.now + min(max(waited / 4, _LOOK_SOONEST), _LOOK_LATEST)


def _next_deadline(observed: Observed, situation: Situation) -> datetime | None:
    """The next moment at which time alone changes something."""
    moments = (situation.deadline, situation.until, situation.baking_until)
    return min((m for m in moments if m is not None and m > observed.now), default=None)


def _soonest(*moments: datetime | None) -> datetime | None:
    return min((m for m in moments if m is not None), default=None)
