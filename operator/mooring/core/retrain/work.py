"""What retraining does in one decision: asks where a trigger says so, and tends every request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from mooring.api import parse_duration
from mooring.core.promql import Bound
from mooring.core.retrain import ledger as outcomes
from mooring.core.retrain.counting import EVERY, Question, counted_since, questions
from mooring.core.retrain.desk import MOST_OPEN, Desk
from mooring.core.retrain.effect import Fate, ineffective, relapses
from mooring.core.retrain.event import Delivery
from mooring.core.retrain.ledger import Entry, Ledger
from mooring.core.retrain.request import Request, attend, crowded_out, is_over
from mooring.core.retrain.triggers import (
    Hold,
    Pulled,
    ended,
    held,
    known_schedules,
    pulled,
)
from mooring.core.revision import Revision

Manifest = dict[str, Any]

_AGAIN = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class RequestStatus:
    """The status that a request should have, guarded by the version that it was derived from."""

    name: str
    version: str
    before: Mapping[str, Any]
    status: Manifest


@dataclass(frozen=True, slots=True)
class Told:
    """What an Event says: Normal or Warning, a reason, and a sentence."""

    type: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Retraining:
    """The state of retraining, and what to write for it.

    ``create`` are objects that are made if nothing of their name exists, and never written again.
    ``hold`` says why a trigger that pulls does not ask; ``ineffective`` counts retrainings in a row
    that did not help. ``count`` is what to count of new data.
    """

    desk: Desk
    create: tuple[Manifest, ...] = ()
    statuses: tuple[RequestStatus, ...] = ()
    deliver: tuple[Delivery, ...] = ()
    count: tuple[Question, ...] = ()
    look_again: datetime | None = None
    hold: Hold | None = None
    waiting: str = ""
    problem: str = ""
    ineffective: int = 0
    told: tuple[Told, ...] = ()

    @property
    def ledger(self) -> Ledger:
        return self.desk.ledger

    @property
    def in_flight(self) -> tuple[Entry, ...]:
        """Requests without an outcome, the oldest first."""
        return tuple(e for e in self.ledger.entries if e.open)

    @property
    def last(self) -> Entry | None:
        """The last request."""
        return self.ledger.entries[-1] if self.ledger.entries else None

    @property
    def broken(self) -> bool:
        """Whether the breaker holds triggers."""
        return self.ineffective >= self.desk.rules.budget.max_ineffective


def work(
    desk: Desk, stable: Revision, revisions: tuple[Revision, ...], *, rolling_out: bool
) -> Retraining:
    """Asks at most once, and tends every request. ``desk`` holds the ledger as it is by now."""
    fates = {r.hash: Fate(r.promoted_at, r.rejected is not None) for r in revisions}
    before = desk.ledger
    says, hold = Pulled(), None
    if desk.spec is not None:
        desk, says = _read_triggers(desk, stable, fates)
    failed = ineffective(desk.ledger, desk.model, fates)
    if desk.spec is not None and says.pulls:
        hold = _hold(desk, failed, rolling_out)
        if hold is None:
            ledger, _ = desk.ask(stable.hash, says.pulls[0])
            desk = replace(desk, ledger=ledger)
    tended = _tended(desk, stable, revisions)
    count, problem = _questions(desk, stable)
    another = desk.now if len(says.pulls) > 1 and hold is None else None
    counting = desk.now + EVERY if count else None
    moments = (
        says.look_again, hold.until if hold else None, tended.look_again, another, counting,
    )  # fmt: skip
    return replace(
        tended,
        look_again=min((m for m in moments if m is not None), default=None),
        hold=hold,
        waiting=says.waiting,
        problem=says.problem or problem,
        count=count,
        ineffective=failed,
        told=_told(before, desk.ledger),
    )


def _read_triggers(desk: Desk, stable: Revision, fates: Mapping[str, Fate]) -> tuple[Desk, Pulled]:
    """What the triggers say, with all that they show entered into the ledger."""
    spec = desk.rules
    ledger = known_schedules(spec, desk.ledger, desk.now)
    ledger = ended(spec, ledger, desk.facts)
    since = counted_since(ledger, stable.promoted_at, desk.now)
    says = pulled(spec, ledger, stable.hash, desk.facts, desk.now, since)
    within = parse_duration(spec.min_data_window)
    ledger = relapses(ledger, stable.hash, says.pulls, fates, desk.now, within)
    return replace(desk, ledger=ledger), says


def _questions(desk: Desk, stable: Revision) -> tuple[tuple[Question, ...], str]:
    """What to count, by the ledger as it is after this decision."""
    if desk.spec is None:
        return (), ""
    since = counted_since(desk.ledger, stable.promoted_at, desk.now)
    bound = Bound(
        desk.namespace, desk.name, stable.hash,
        namespace_label=desk.labels[0], pod_label=desk.labels[1],
    )  # fmt: skip
    return questions(desk.spec, bound, since, desk.now)


def _hold(desk: Desk, failed: int, rolling_out: bool) -> Hold | None:
    if rolling_out:
        return Hold("RollingOut", "another model is on its way")
    return held(desk.rules, desk.ledger, desk.facts, failed, desk.now)


def _tended(desk: Desk, stable: Revision, revisions: tuple[Revision, ...]) -> Retraining:
    """Every request with what it needs; those that are not made yet are made."""
    known = {revision.hash: revision for revision in (*revisions, stable)}
    statuses, deliver = [], []
    moments: list[datetime | None] = []
    seen = {request.name for request in desk.requests}
    entries = {entry.request: entry for entry in desk.ledger.entries}
    create = [
        desk.manifest(entry)
        for entry in desk.ledger.entries
        if entry.open and not entry.made and entry.request not in seen
    ]
    if create:  # and may be refused: then it is said, and tried again
        moments.append(desk.now + _AGAIN)
    for request in desk.requests:
        entry = entries.get(request.name)
        if request.deleted or (entry is None and is_over(request)):
            continue
        # Stable may be another by now; a record that is gone, or never was, leaves only that.
        of = request.spec.get("revision") or (entry.revision if entry is not None else "")
        asked = known.get(str(of), stable)
        owner = desk.owner(asked.hash, asked.model_uri, asked.resolved_digest)
        if entry is None:
            found = crowded_out(request, owner, MOST_OPEN)
        else:
            found = attend(request, entry, owner, desk.facts)
        create += found.create
        if found.deliver is not None:
            deliver.append(found.deliver)
        moments.append(found.look_again)
        if found.status != request.status:
            statuses.append(_status(request, found.status))
    return Retraining(
        desk,
        create=tuple(create),
        statuses=tuple(statuses),
        deliver=tuple(deliver),
        look_again=min((m for m in moments if m is not None), default=None),
    )


def _status(request: Request, status: Manifest) -> RequestStatus:
    return RequestStatus(request.name, request.version, request.status, status)


def _told(before: Ledger, after: Ledger) -> tuple[Told, ...]:
    """Requests that are new."""
    known = {entry.request for entry in before.entries}
    return tuple(
        Told("Normal", "RetrainingRequested", f"{_name(entry)}: {_why(entry)}")
        for entry in after.entries
        if entry.request not in known
    )


def closings(before: Ledger, after: Ledger) -> tuple[Told, ...]:
    """Requests that have come to their end."""
    found = []
    for entry in after.entries:
        known = before.of(entry.request)
        if entry.outcome is None or (known is not None and known.outcome == entry.outcome):
            continue
        kind = "Warning" if entry.outcome == outcomes.FAILED else "Normal"
        reason, words = _ENDINGS[entry.outcome]
        found.append(Told(kind, reason, f"{_name(entry)}: {words.format(entry.adopted)}"))
    return tuple(found)


_ENDINGS = {
    outcomes.ADOPTED: ("ModelAdopted", "its model is revision {}"),
    outcomes.LEFT: ("ModelTrained", "there is a model, and onSuccess is None"),
    outcomes.FAILED: ("RetrainingFailed", "there is no model of it; its status says why"),
    outcomes.SUPERSEDED: ("ModelSuperseded", "spec.model has changed meanwhile, and that wins"),
    outcomes.DELETED: ("RequestDeleted", "it was deleted before it had ended"),
}


def _name(entry: Entry) -> str:
    return f"RetrainingRequest {entry.request}"


def _why(entry: Entry) -> str:
    trigger = (entry.order or {}).get("trigger") or {}
    return str(trigger.get("message") or "made by hand")
