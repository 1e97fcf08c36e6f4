"""Triggers: which of them want a new model now, which episodes have ended, and what holds them.

An episode begins when its trigger is first asked for and ends when what caused it is *seen* to be
gone; not knowing ends nothing. So no loss of data, of status or of the operator makes the same
episode ask twice. A time of a schedule, and rows that were counted up to the request, are gone with
the request.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from mooring.api import RetrainingSpec, RetrainingTrigger, parse_duration
from mooring.api.retraining_spec import NewDataTrigger, PerformanceTrigger
from mooring.core.clock import format_time, parse_time
from mooring.core.promql import holds
from mooring.core.retrain.facts import RetrainingFacts
from mooring.core.retrain.ledger import (
    DRIFT,
    FAILED,
    NEW_DATA,
    PERFORMANCE,
    SCHEDULE,
    Entry,
    Ledger,
)
from mooring.core.retrain.measuring import KNOWN
from mooring.core.retrain.schedule import parse_schedule


@dataclass(frozen=True, slots=True)
class Pull:
    """A trigger that wants a request: for which episode, and what was seen."""

    trigger: str
    episode: str
    message: str
    change_point: datetime | None = None
    evidence: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Hold:
    """Why nothing is asked now, and until when if time alone ends that."""

    reason: str
    message: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Pulled:
    """What the triggers say: those that pull, what is wrong with one, and when to look again."""

    pulls: tuple[Pull, ...] = ()
    problem: str = ""
    waiting: str = ""
    look_again: datetime | None = None


def known_schedules(spec: RetrainingSpec, ledger: Ledger, now: datetime) -> Ledger:
    """The ledger with every schedule noted since when it is known: no earlier time is made up for.

    One that is not in the spec any more is forgotten.
    """
    texts = {t.schedule for t in spec.triggers or () if t.schedule is not None}
    found = {text: ledger.schedules.get(text, now) for text in sorted(texts)}
    return ledger if found == dict(ledger.schedules) else replace(ledger, schedules=found)


def ended(spec: RetrainingSpec, ledger: Ledger, facts: RetrainingFacts) -> Ledger:
    """The ledger with those episodes marked that are seen to be over."""
    for entry in ledger.entries:
        if not entry.over and _is_over(entry, spec, facts):
            ledger = ledger.with_entry(replace(entry, over=True))
    return ledger


def _is_over(entry: Entry, spec: RetrainingSpec, facts: RetrainingFacts) -> bool:
    if entry.trigger == DRIFT:
        return facts.drift is not None and facts.drift.steady and not facts.drift.drifted
    triggers = spec.triggers or ()
    if entry.trigger == PERFORMANCE:
        metric = entry.episode.rpartition("/")[0]
        found = facts.performance.get(metric)
        asked = [
            t.performance for t in triggers if t.performance and t.performance.metric == metric
        ]
        return found is not None and all(_good(found.value, one) for one in asked)
    if entry.trigger == NEW_DATA:
        return any(
            _is_spent(t.new_data, entry, facts)
            for t in triggers
            if t.new_data is not None and _query_name(t.new_data.query) in entry.episode
        )
    return True


def _is_spent(asked: NewDataTrigger, entry: Entry, facts: RetrainingFacts) -> bool:
    """Whether the rows of a request ask no more.

    With ``{{ window }}`` a query counts from the request on: what it counts then are other rows.
    Who waited to see fewer of them would miss that when nobody looks while there are few.
    """
    if holds(asked.query, "window"):
        return True
    rows = _rows(facts, asked.query, entry.at)
    return rows is not None and rows < asked.at_least


def pulled(
    spec: RetrainingSpec,
    ledger: Ledger,
    revision: str,
    facts: RetrainingFacts,
    now: datetime,
    since: datetime,
) -> Pulled:
    """What every trigger says about the stable revision. ``since``: since when data is new."""
    found: dict[tuple[str, str], Pull] = {}
    problems, waiting, moments = [], [], []
    for trigger in spec.triggers or ():
        said = _say(trigger, ledger, revision, facts, now, since)
        problems.append(said.problem)
        waiting.append(said.waiting)
        moments.append(said.look_again)
        for pull in said.pulls:
            found.setdefault((pull.trigger, pull.episode), pull)
    return Pulled(
        tuple(found.values()),
        next((p for p in problems if p), ""),
        next((w for w in waiting if w), ""),
        min((m for m in moments if m is not None), default=None),
    )


def _say(
    trigger: RetrainingTrigger,
    ledger: Ledger,
    revision: str,
    facts: RetrainingFacts,
    now: datetime,
    since: datetime,
) -> Pulled:
    if trigger.drift is not None:
        lasting = parse_duration(trigger.drift.for_) if trigger.drift.for_ else timedelta(0)
        return _drift(lasting, ledger, revision, facts, now)
    if trigger.performance is not None:
        return _performance(trigger.performance, ledger, revision, facts)
    if trigger.schedule is not None:
        return _schedule(trigger.schedule, ledger, now)
    if trigger.new_data is not None:
        query, at_least = trigger.new_data.query, trigger.new_data.at_least
        rows = _rows(facts, query, since)
        if rows is None:
            found = facts.new_data.get(query)
            why = f": {found.problem}" if found is not None and found.problem else " (yet)"
            return Pulled(waiting=f"the query of newData has no answer{why}")
        return _new_data(query, at_least, rows, ledger, revision)
    return Pulled()


def _drift(
    lasting: timedelta, ledger: Ledger, revision: str, facts: RetrainingFacts, now: datetime
) -> Pulled:
    drift = facts.drift
    if drift is None or not drift.drifted:
        return Pulled()
    since = min(drift.since or now, now)
    if now < since + lasting:
        until = since + lasting
        words = f"the data drifts since {format_time(since)}, asked is at {format_time(until)}"
        return Pulled(waiting=words, look_again=until)
    asked = ledger.asked(revision, DRIFT)
    open_one = _open(ledger, revision, DRIFT)
    if open_one is not None:
        return Pulled(waiting=_asked_before(open_one))
    names = ", ".join(drift.features[:5])
    message = drift.message or f"the data drifts since {format_time(since)}: {names}"
    pull = Pull(DRIFT, _next_number(asked), message, drift.change_point or since, drift.evidence)
    return Pulled((pull,))


def _good(value: float, asked: PerformanceTrigger) -> bool:
    """Whether a metric with this value is as good as it should be."""
    enough = asked.below is None or value >= asked.below
    return enough and (asked.above is None or value <= asked.above)


def _performance(
    asked: PerformanceTrigger, ledger: Ledger, revision: str, facts: RetrainingFacts
) -> Pulled:
    metric = asked.metric
    if metric not in KNOWN:
        words = f"there is no performance metric {metric}: use one of {', '.join(KNOWN)}"
        return Pulled(waiting=words)
    ours = facts.performance_of in ("", revision)
    found = facts.performance.get(metric) if ours else None
    if found is None:
        why = f": {facts.performance_problem}" if ours and facts.performance_problem else ""
        return Pulled(waiting=f"performance metric {metric} is not measured yet{why}")
    # The end of the interval that is best for the model: only then it is bad with certainty.
    if _good(found.lower if asked.below is None else found.upper, asked):
        return Pulled()
    before = _of(ledger.asked(revision, PERFORMANCE), metric)
    open_one = _open(ledger, revision, PERFORMANCE, metric)
    if open_one is not None:
        return Pulled(waiting=_asked_before(open_one))
    limit = f"above {asked.above:.4g}" if asked.below is None else f"below {asked.below:.4g}"
    message = (
        f"{metric} is {found.value:.4g} (between {found.lower:.4g} and {found.upper:.4g}, "
        f"{found.samples} samples{'; ' if found.note else ''}{found.note}), {limit}"
    )
    evidence = {
        "feature": metric, "statistic": "value", "value": f"{found.value:.6g}",
        "samples": found.samples,
    }  # fmt: skip
    pull = Pull(PERFORMANCE, f"{metric}/{_next_number(before)}", message, evidence=(evidence,))
    return Pulled((pull,))


def _schedule(text: str, ledger: Ledger, now: datetime) -> Pulled:
    try:
        schedule = parse_schedule(text)
    except ValueError as error:
        return Pulled(problem=str(error))
    after = ledger.schedules.get(text, now)
    last = max(
        (parse_time(e.episode) for e in ledger.entries if e.trigger == SCHEDULE), default=after
    )
    due = schedule.latest(now, max(after, last))
    following = schedule.next(now)
    if due is None:
        return Pulled(look_again=following)
    moment = format_time(due)
    pull = Pull(SCHEDULE, moment, f"the schedule {text} named {moment}")
    return Pulled((pull,), look_again=following)


def _new_data(query: str, at_least: int, value: float, ledger: Ledger, revision: str) -> Pulled:
    if value < at_least:
        return Pulled()
    name = _query_name(query)
    asked = _of(ledger.asked(revision, NEW_DATA), name)
    open_one = _open(ledger, revision, NEW_DATA, name)
    if open_one is not None:
        return Pulled(waiting=_asked_before(open_one))
    evidence = {"statistic": "rows", "value": f"{value:.6g}"}
    message = f"there are {value:.6g} rows of new data, at least {at_least} were asked for"
    return Pulled((Pull(NEW_DATA, f"{name}/{_next_number(asked)}", message, None, (evidence,)),))


def _rows(facts: RetrainingFacts, query: str, since: datetime) -> float | None:
    """The rows counted since then or later; what was counted for an earlier request is old."""
    found = facts.new_data.get(query)
    return found.value if found is not None and found.since >= since else None


def held(
    spec: RetrainingSpec, ledger: Ledger, facts: RetrainingFacts, failed: int, now: datetime
) -> Hold | None:
    """What keeps triggers from asking; ``failed`` retrainings in a row did not help."""
    if failed >= spec.budget.max_ineffective:
        return Hold("Ineffective", breaker_words(failed))
    blocked = blocked_for_all(spec, ledger, facts)
    if blocked is not None:
        return blocked
    asked = [e for e in ledger.entries if e.automatic]
    if asked:
        until = max(e.at for e in asked) + parse_duration(spec.cooldown)
        if now < until:
            return Hold("Cooldown", f"the next request may be made at {format_time(until)}", until)
    count = this_month(ledger, now)
    if count >= spec.budget.per_month:
        until = _next_month(now)
        words = (
            f"{count} requests were made this month, and budget.perMonth is "
            f"{spec.budget.per_month}: the next may be made at {format_time(until)}"
        )
        return Hold("BudgetSpent", words, until)
    return None


def blocked_for_all(spec: RetrainingSpec, ledger: Ledger, facts: RetrainingFacts) -> Hold | None:
    """What keeps a person's verb from asking, too."""
    if facts.drift is not None and not facts.drift.healthy:
        return Hold("DataUnhealthy", "the data is broken, and a model must not learn that")
    flying = [e.request for e in ledger.entries if e.open]
    if len(flying) >= spec.budget.max_in_flight:
        return Hold("InFlight", f"RetrainingRequest {flying[-1]} is not finished")
    return None


def breaker_words(failed: int) -> str:
    """Why triggers ask no more, and the way out."""
    return (
        f"{failed} retrainings in a row did not help, so triggers ask no more: change spec.model, "
        "or retrain by hand with success"
    )


def this_month(ledger: Ledger, now: datetime) -> int:
    """Requests by triggers in the calendar month (UTC)."""
    month = (now.year, now.month)
    return sum(e.automatic and (e.at.year, e.at.month) == month for e in ledger.entries)


def _next_month(now: datetime) -> datetime:
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=32)).replace(day=1)


def _asked_before(entry: Entry) -> str:
    if entry.outcome == FAILED:
        return (
            f"{entry.trigger} goes on, and RetrainingRequest {entry.request} for it failed: "
            "`mooring retrain` asks again"
        )
    return f"RetrainingRequest {entry.request} was made for this episode of {entry.trigger}"


def _of(entries: tuple[Entry, ...], what: str) -> tuple[Entry, ...]:
    """Those whose episodes are about this metric or query."""
    return tuple(e for e in entries if e.episode.rpartition("/")[0] == what)


def _open(ledger: Ledger, revision: str, trigger: str, what: str = "") -> Entry | None:
    """The request for an episode that has not ended.

    The model that was made for it may have taken over by now: what still lasts then is the same
    episode, though the revision is another.
    """
    return next(
        (
            e
            for e in _of(ledger.entries, what)
            if e.trigger == trigger and revision in (e.revision, e.adopted) and not e.over
        ),
        None,
    )


def _next_number(asked: tuple[Entry, ...]) -> str:
    numbers = [int(n) for e in asked if (n := e.episode.rpartition("/")[2]).isdigit()]
    return str(max(numbers, default=0) + 1)


def _query_name(query: str) -> str:
    """A short name of a query in an episode."""
    return hashlib.sha256(query.encode()).hexdigest()[:8]
