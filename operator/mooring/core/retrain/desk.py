"""The desk of one ModelDeployment: its ledger and its requests, brought together.

What the requests show is entered into the ledger first; then a verb or a trigger may add an entry;
at last every request gets what it needs. Nothing is made for an entry that is not in a record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from mooring.api import RetrainingSpec, parse_duration
from mooring.core import kinds
from mooring.core.render.metadata import labels, owner
from mooring.core.retrain import ledger as outcomes
from mooring.core.retrain.facts import RetrainingFacts
from mooring.core.retrain.ledger import (
    MANUAL,
    Entry,
    Ledger,
    idempotency_key,
    request_name,
)
from mooring.core.retrain.request import (
    Owner,
    Request,
    accepted,
    deadline_of,
    is_over,
    said_end,
)
from mooring.core.retrain.result import Result
from mooring.core.retrain.triggers import Pull, blocked_for_all
from mooring.core.retrain.window import data_window

Manifest = dict[str, Any]

_MESSAGE = 1000
_EVIDENCE = 20
#: Requests that are attended to at once: all of them stand in one annotation.
MOST_OPEN = 100
#: Without spec.retraining a request made by hand is left to whoever watches.
LEFT_TO_PIPELINES = RetrainingSpec.model_validate({"action": {"none": {}}})


@dataclass(frozen=True, slots=True)
class Desk:
    """``model`` is the hash of spec.model. ``spec`` is None where the user has given none.
    ``labels`` is how metrics call a namespace and a pod.
    """

    uid: str = ""
    name: str = ""
    namespace: str = ""
    now: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    spec: RetrainingSpec | None = None
    model: str = ""
    prefixes: tuple[str, ...] = ()
    ledger: Ledger = field(default_factory=Ledger)
    requests: tuple[Request, ...] = ()
    facts: RetrainingFacts = field(default_factory=RetrainingFacts)
    labels: tuple[str, str] = ("namespace", "pod")

    @property
    def rules(self) -> RetrainingSpec:
        """What holds for requests made by hand, too."""
        return self.spec or LEFT_TO_PIPELINES

    @property
    def refusal(self) -> str:
        """Why the verb may not ask; empty when it may."""
        if self.spec is None:
            return "spec.retraining is not set: nobody is there to train"
        hold = blocked_for_all(self.spec, self.ledger, self.facts)
        return hold.message if hold is not None else ""

    def by_hand(self, revision: str, token: str) -> tuple[Ledger, str]:
        """The ledger with an entry for a person's verb, and the name of its request."""
        return self.ask(revision, Pull(MANUAL, token, "a person asked for it"))

    def ask(self, revision: str, pull: Pull) -> tuple[Ledger, str]:
        """The ledger with an entry for this episode, and the name of its request.

        Asking for what was asked for before changes nothing.
        """
        key = idempotency_key(self.uid, revision, pull.trigger, pull.episode)
        name = request_name(self.name, key)
        if self.ledger.of(name) is not None:
            return self.ledger, name
        unhealthy = self.facts.drift.unhealthy_windows if self.facts.drift else ()
        least = parse_duration(self.rules.min_data_window)
        order: Manifest = {
            "deploymentRef": {"name": self.name},
            "revision": revision,
            "trigger": {
                "type": pull.trigger,
                "episode": pull.episode,
                "message": pull.message[:_MESSAGE],
            },
            "idempotencyKey": key,
            "dataWindow": data_window(self.now, pull.change_point, least, unhealthy),
            "deadline": deadline_of(self.rules, self.now),
        }
        if pull.evidence:
            order["evidence"] = [dict(one) for one in pull.evidence[:_EVIDENCE]]
        entry = Entry(
            request=name, revision=revision, trigger=pull.trigger, episode=pull.episode,
            at=self.now, model=self.model, order=order,
        )  # fmt: skip
        return self.ledger.with_entry(entry), name

    def owner(self, revision: str, uri: str, digest: str | None) -> Owner:
        """What a request has to know of the deployment; the rest is the revision it is about."""
        return Owner(
            name=self.name, namespace=self.namespace, spec=self.rules, prefixes=self.prefixes,
            revision=revision, model_uri=uri, model_digest=digest, now=self.now,
        )  # fmt: skip

    def result(self, request: Request) -> Result | None:
        """Its result, if that may be served."""
        return accepted(request, self.owner("", "", None))

    def manifest(self, entry: Entry) -> Manifest:
        """The RetrainingRequest of an entry that is not made yet."""
        kind = kinds.RETRAINING_REQUEST
        return {
            "apiVersion": kind.api_version,
            "kind": kind.name,
            "metadata": {
                "name": entry.request,
                "namespace": self.namespace,
                "labels": labels(self.name),
                "ownerReferences": [owner(self.name, self.uid)],
            },
            "spec": dict(entry.order or {}),
        }


def entered(desk: Desk, revision: str | None, adopted: Mapping[str, str]) -> Desk:
    """The desk with everything in its ledger that its requests show.

    ``revision`` is the stable one; without one nothing is entered. ``adopted`` maps the requests
    whose result has a recorded revision to that.
    """
    if revision is None:
        return desk
    ledger = desk.ledger
    named = {entry.request for entry in ledger.entries}
    room = MOST_OPEN - sum(entry.open for entry in ledger.entries)
    for request in desk.requests:
        if request.name in named or request.deleted:
            continue
        if not is_over(request):
            room -= 1
            if room < 0:
                continue  # it has its turn when another has ended
        ledger = ledger.with_entry(_found(desk, request, revision))
    seen = {request.name: request for request in desk.requests}
    for entry in ledger.entries:
        known = _made(entry, seen)
        outcome = _outcome(desk, known, seen.get(entry.request), adopted)
        known = replace(known, outcome=outcome, adopted=adopted.get(entry.request, known.adopted))
        ledger = ledger.with_entry(known)
    return replace(desk, ledger=ledger)


def _found(desk: Desk, request: Request, revision: str) -> Entry:
    """The entry of a request that somebody made by hand, or that the ledger has forgotten: then
    what its status says of its end holds, or the model of long ago would be adopted anew.
    """
    outcome, adopted = said_end(request)
    return Entry(
        request=request.name, revision=revision, trigger=MANUAL, episode=request.uid,
        at=request.created, model=desk.model, made=True, outcome=outcome, adopted=adopted,
    )  # fmt: skip


def _made(entry: Entry, seen: Mapping[str, Request]) -> Entry:
    if entry.made or entry.request not in seen:
        return entry
    return replace(entry, made=True, order=None)


def _outcome(
    desk: Desk, entry: Entry, request: Request | None, adopted: Mapping[str, str]
) -> str | None:
    if entry.request in adopted:
        return outcomes.ADOPTED
    if entry.outcome not in (None, outcomes.DELETED):
        return entry.outcome
    if not entry.made:
        return None
    if request is None or request.deleted:
        return outcomes.DELETED  # not for ever: the view may be an old one
    if request.status.get("phase") == "Failed":
        return outcomes.FAILED
    if desk.result(request) is None:
        return None
    if entry.model != desk.model:
        return outcomes.SUPERSEDED
    return outcomes.LEFT if desk.rules.on_success == "None" else None
