"""One RetrainingRequest: how far it is, and what is to be done for it next.

Its status is written by us and by whoever fulfils it; nothing of it is believed that the result's
own check does not bear out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from mooring.api import RetrainingSpec, parse_duration
from mooring.api.retrainingrequest import ADOPTED as CONDITION_ADOPTED
from mooring.api.retrainingrequest import DISPATCHED, RESULT_ACCEPTED
from mooring.api.schema_types import MESSAGE_LENGTH
from mooring.core.clock import format_time, parse_time
from mooring.core.retrain import ledger as outcomes
from mooring.core.retrain.event import Delivery, delivery
from mooring.core.retrain.facts import JobFacts, RetrainingFacts
from mooring.core.retrain.job import NoTemplate, job_objects
from mooring.core.retrain.ledger import Entry
from mooring.core.retrain.result import Result, Unacceptable, check, read_words

Manifest = dict[str, Any]

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
_LOOK = timedelta(seconds=30)
_NAME_TAKEN = (
    "a RetrainingRequest of this name has failed before, and is not attended to again: give a new "
    "one another name"
)
_FIRST_WAIT = timedelta(seconds=10)
_LONGEST_WAIT = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Request:
    """A RetrainingRequest as stored; ``spec`` and ``status`` are raw."""

    name: str
    uid: str
    version: str
    created: datetime
    spec: Mapping[str, Any]
    status: Mapping[str, Any]
    deleted: bool
    generation: int = 1

    @property
    def key(self) -> str:
        """What pipelines and sinks tell it from others by."""
        return str(self.spec.get("idempotencyKey") or self.uid)


@dataclass(frozen=True, slots=True)
class Owner:
    """The ModelDeployment of a request, as far as a request has to know it.

    ``revision`` is the one that the request was made for, and the model is that revision's.
    """

    name: str
    namespace: str
    spec: RetrainingSpec
    prefixes: tuple[str, ...]
    revision: str
    model_uri: str
    model_digest: str | None
    now: datetime


@dataclass(frozen=True, slots=True)
class Attended:
    """What a request wants: its status, the objects to make (never written again), an event to
    deliver, and when to look again.
    """

    status: Manifest
    create: tuple[Manifest, ...] = ()
    deliver: Delivery | None = None
    look_again: datetime | None = None


def read_request(raw: Mapping[str, Any]) -> Request:
    """Reads a stored RetrainingRequest; what does not fit counts as absent."""
    meta = raw["metadata"]
    status = raw.get("status")
    return Request(
        name=str(meta["name"]),
        uid=str(meta.get("uid", "")),
        version=str(meta.get("resourceVersion", "")),
        created=_time(meta.get("creationTimestamp")) or _NEVER,
        spec=raw.get("spec") or {},
        status=status if isinstance(status, Mapping) else {},
        deleted=bool(meta.get("deletionTimestamp")),
        generation=int(meta.get("generation", 1)),
    )


def accepted(request: Request, owner: Owner) -> Result | None:
    """The result that may be served; None while there is none."""
    try:
        return check(request.status.get("result"), owner.prefixes)
    except Unacceptable:
        return None


def attend(request: Request, entry: Entry, owner: Owner, facts: RetrainingFacts) -> Attended:
    """What to write and to do for it now."""
    if entry.outcome is not None:
        return Attended(_closed(request, entry, owner))
    if request.status.get("phase") == "Failed":
        return Attended(dict(request.status))  # whoever trains has given up
    if request.status.get("result") is not None:
        return _judged(request, owner)
    deadline = _deadline(request, owner)
    job = facts.jobs.get(request.name)
    if job is not None and job.ended:
        return Attended(_ended_job(request, owner, job))
    if owner.now >= deadline:
        words = f"there was no result by {format_time(deadline)}"
        last = str(request.status.get("message") or "")
        return Attended(
            _status(request, owner, "Failed", f"{words}; last: {last}" if last else words)
        )
    found = _dispatched(request, owner, facts, deadline)
    soonest = min(m for m in (found.look_again, deadline) if m is not None)
    return replace(found, look_again=soonest)


def deadline_of(spec: RetrainingSpec, now: datetime) -> str:
    """The deadline of a request that is made now."""
    return format_time(now + parse_duration(spec.deadline))


def _deadline(request: Request, owner: Owner) -> datetime:
    stated = _time(request.spec.get("deadline"))
    return stated or request.created + parse_duration(owner.spec.deadline)


def _judged(request: Request, owner: Owner) -> Attended:
    """A result that somebody wrote. A wrong one may be corrected until the deadline."""
    try:
        result = check(request.status["result"], owner.prefixes)
    except Unacceptable as error:
        deadline = _deadline(request, owner)
        failed = owner.now >= deadline
        status = _status(request, owner, "Failed" if failed else "Running", str(error))
        refused = _condition(request, owner, RESULT_ACCEPTED, "False", "InvalidResult", str(error))
        return Attended(_with(status, refused), look_again=None if failed else deadline)
    return Attended(_succeeded(request, owner, result, dict(request.status["result"])))


def _succeeded(request: Request, owner: Owner, result: Result, raw: Mapping[str, Any]) -> Manifest:
    words = f"the new model is {result.uri}"
    status = _status(request, owner, "Succeeded", words) | {"result": dict(raw)}
    return _with(status, _condition(request, owner, RESULT_ACCEPTED, "True", "Valid", words))


def _ended_job(request: Request, owner: Owner, job: JobFacts) -> Manifest:
    started = {"jobName": request.name, "attempts": job.started}
    if not job.succeeded:
        words = f": {job.words}" if job.words else ""
        reason = f" ({job.reason})" if job.reason else ""
        return _status(request, owner, "Failed", f"the Job failed{reason}{words}") | started
    try:
        raw = read_words(job.words)
        result = check(raw, owner.prefixes)
    except Unacceptable as error:
        status = _status(request, owner, "Failed", str(error)) | started
        refused = _condition(request, owner, RESULT_ACCEPTED, "False", "InvalidResult", str(error))
        return _with(status, refused)
    kept: Manifest = {"uri": result.uri, "digest": result.digest}
    if result.metrics:
        kept["metrics"] = dict(result.metrics)
    return _succeeded(request, owner, result, kept) | started


def _closed(request: Request, entry: Entry, owner: Owner) -> Manifest:
    """Nothing more is done for it; its status says what came of it."""
    if entry.outcome in (outcomes.FAILED, outcomes.DELETED):
        usual = "it failed" if request.status.get("phase") == "Failed" else _NAME_TAKEN
        words = str(request.status.get("message") or usual)
        return _status(request, owner, "Failed", words)
    said = {
        outcomes.ADOPTED: (
            "True", "Adopted", f"revision {entry.adopted} of {owner.name} is made of it"
        ),
        outcomes.SUPERSEDED: (
            "False", "Superseded",
            "spec.model has changed since this was asked for, and that wins over the result",
        ),
        outcomes.LEFT: (
            "False", "LeftToPeople", "onSuccess is None: put the result into spec.model to serve it"
        ),
    }  # fmt: skip
    holds, reason, words = said[entry.outcome or ""]
    result = request.status.get("result")
    status = _status(request, owner, "Succeeded", words)
    if isinstance(result, Mapping):
        valid = f"the new model is {result.get('uri')}"
        status = _with(status, _condition(request, owner, RESULT_ACCEPTED, "True", "Valid", valid))
    if entry.adopted is not None:
        status["revision"] = entry.adopted
    return _with(status, _condition(request, owner, CONDITION_ADOPTED, holds, reason, words))


def said_end(request: Request) -> tuple[str | None, str | None]:
    """The outcome that its status tells of, and the revision that was made of it; None: neither."""
    reason = _found(request, CONDITION_ADOPTED).get("reason")
    if reason not in (outcomes.ADOPTED, outcomes.SUPERSEDED, outcomes.LEFT):
        return None, None
    revision = request.status.get("revision")
    return str(reason), str(revision) if revision and reason == outcomes.ADOPTED else None


def is_over(request: Request) -> bool:
    """Whether its status tells of its end."""
    return request.status.get("phase") == "Failed" or said_end(request)[0] is not None


def crowded_out(request: Request, owner: Owner, most: int) -> Attended:
    """The status of a request that has to wait until one of those before it has ended."""
    words = f"{most} others of {owner.name} are not finished: this one waits for its turn"
    return _waiting(request, owner, "False", "TooMany", words)


# whoever trains has to know of it -------------------------------------------------------------


def _dispatched(
    request: Request, owner: Owner, facts: RetrainingFacts, deadline: datetime
) -> Attended:
    action = owner.spec.action
    if action.job is not None:
        template = action.job.template_ref.name
        return _by_job(request, owner, facts, template, deadline)
    if action.sink is not None:
        return _by_sink(request, owner, facts, action.sink.name)
    words = "a pipeline that watches RetrainingRequests has to write status.result"
    return _waiting(request, owner, "True", "LeftToPipeline", words)


def _by_job(
    request: Request, owner: Owner, facts: RetrainingFacts, template: str, deadline: datetime
) -> Attended:
    job = facts.jobs.get(request.name)
    if job is not None:
        words = f"Job {request.name} trains"
        status = _status(request, owner, "Running", words)
        status |= {"jobName": request.name, "attempts": job.started}
        told = _condition(request, owner, DISPATCHED, "True", "JobCreated", words)
        return Attended(_with(status, told))
    if request.status.get("jobName"):
        words = f"Job {request.status['jobName']} was deleted before it had ended"
        return Attended(_status(request, owner, "Failed", words))
    refused = facts.refused.get(request.name)
    try:
        made = job_objects(request, owner, facts.templates.get(template), template, deadline)
    except NoTemplate as error:
        found = _waiting(request, owner, "False", "TemplateUnusable", str(error))
        return replace(found, look_again=owner.now + _LOOK)
    taken = facts.taken.get(request.name)
    if taken is not None:
        words = (
            f"{taken} {request.name} belongs to somebody else, and the Job needs one of that name: "
            "remove it, or make a request of another name"
        )
        found = _waiting(request, owner, "False", "NameTaken", words)
        return replace(found, create=made, look_again=owner.now + _LOOK)
    if refused is not None:
        words = f"the API server refused what PodTemplate {template} asks for: {refused}"
        found = _waiting(request, owner, "False", "JobRefused", words)
        return replace(found, create=made, look_again=owner.now + _LOOK)
    words = f"a Job is made from PodTemplate {template}"
    found = _waiting(request, owner, "False", "Creating", words)
    # What becomes of it is not always told: a refusal right after a restart changes no status.
    return replace(found, create=made, look_again=owner.now + _LOOK)


def _by_sink(request: Request, owner: Owner, facts: RetrainingFacts, sink: str) -> Attended:
    if _holds(request, DISPATCHED, "Delivered"):
        return Attended(_status(request, owner, _phase(request), _told(sink)))
    if sink not in facts.sinks:
        known = ", ".join(sorted(facts.sinks)) or "none"
        words = f"there is no sink {sink!r}: the operator's administrator has set up {known}"
        return _waiting(request, owner, "False", "UnknownSink", words)
    attempts = _count(request.status.get("attempts"))
    answer = facts.answers.get(request.name)
    if answer is not None and answer.id == request.key and answer.attempt > attempts:
        tried = {"attempts": answer.attempt, "lastAttempt": format_time(answer.at)}
        if not answer.problem:
            found = _waiting(request, owner, "True", "Delivered", _told(sink))
            return replace(found, status=found.status | tried)
        due = answer.at + _backoff(answer.attempt)
        words = (
            f"sink {sink} {answer.problem} (attempt {answer.attempt}); again at {format_time(due)}"
        )
        found = _waiting(request, owner, "False", "DeliveryFailed", words)
        return replace(found, status=found.status | tried, look_again=due)
    last = _time(request.status.get("lastAttempt"))
    due = last + _backoff(attempts) if last is not None and attempts else owner.now
    if owner.now < due:
        return Attended(dict(request.status), look_again=due)
    found = (
        Attended(dict(request.status))
        if attempts
        else _waiting(request, owner, "False", "Delivering", f"sink {sink} is being told")
    )
    return replace(found, deliver=delivery(request, owner, sink, attempts + 1))


def _told(sink: str) -> str:
    return f"sink {sink} was told; whoever trains has to write status.result"


def _backoff(attempts: int) -> timedelta:
    return min(_FIRST_WAIT * 2.0 ** min(attempts - 1, 16), _LONGEST_WAIT)


def _waiting(request: Request, owner: Owner, holds: str, reason: str, words: str) -> Attended:
    status = _status(request, owner, _phase(request), words)
    return Attended(_with(status, _condition(request, owner, DISPATCHED, holds, reason, words)))


def _phase(request: Request) -> str:
    """Running where whoever trains says so; there is no result yet, whatever else they say."""
    return "Pending" if request.status.get("phase") in (None, "Pending") else "Running"


# its status -----------------------------------------------------------------------------------


def _status(request: Request, owner: Owner, phase: str, message: str) -> Manifest:
    return dict(request.status) | {
        "phase": phase,
        "message": message[:MESSAGE_LENGTH],
        "observedGeneration": request.generation,
    }


def _condition(
    request: Request, owner: Owner, kind: str, holds: str, reason: str, message: str
) -> Manifest:
    before = _found(request, kind)
    same = before.get("status") == holds and before.get("lastTransitionTime")
    return {
        "type": kind,
        "status": holds,
        "reason": reason,
        "message": message[:MESSAGE_LENGTH],
        "observedGeneration": request.generation,
        "lastTransitionTime": same or format_time(owner.now),
    }


def _with(status: Manifest, condition: Manifest) -> Manifest:
    others = [c for c in status.get("conditions") or () if c.get("type") != condition["type"]]
    found = sorted((*others, condition), key=lambda c: str(c.get("type")))
    return status | {"conditions": found}


def _found(request: Request, kind: str) -> Mapping[str, Any]:
    conditions = request.status.get("conditions") or ()
    return next((c for c in conditions if c.get("type") == kind), {})


def _holds(request: Request, kind: str, reason: str) -> bool:
    found = _found(request, kind)
    return found.get("status") == "True" and found.get("reason") == reason


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _time(value: Any) -> datetime | None:
    try:
        # RFC 3339 allows a small t and z, too, and so does the API server.
        return parse_time(value.upper()) if isinstance(value, str) else None
    except ValueError:
        return None
