"""The ledger: every request that was decided on, and what came of it.

It is an annotation of the stable revision's ControllerRevision, in one write with everything else
that is decided about it, and moves on with a promotion. An entry is written before its request is
made: whatever happens afterwards, the same episode is not asked for again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from mooring.core.clock import format_time, parse_time

DRIFT, PERFORMANCE, SCHEDULE, NEW_DATA, MANUAL = (
    "Drift", "Performance", "Schedule", "NewData", "Manual",
)  # fmt: skip

#: Outcomes of a request.
ADOPTED = "Adopted"  # its model has a revision
LEFT = "LeftToPeople"  # there is a model, and onSuccess is None
FAILED = "Failed"  # there is none
SUPERSEDED = "Superseded"  # spec.model has changed meanwhile
DELETED = "Deleted"  # the request is gone

#: More than a calendar month can hold by the greatest budget would be too long for an annotation;
#: what is dropped is closed and the oldest.
_KEPT = 120
_ALPHABET = "bcdfghjklmnpqrstvwxz"


@dataclass(frozen=True, slots=True)
class Entry:
    """One request.

    ``revision``, ``trigger`` and ``episode`` say what it was asked for; ``model`` is the hash of
    spec.model then. ``order`` is the request's spec until the request is ``made``. ``over``: the
    episode has ended, so the next one may ask. ``adopted`` is the revision made of the result, and
    ``relapsed`` that the same trigger fired again soon after it was promoted.
    """

    request: str
    revision: str
    trigger: str
    episode: str
    at: datetime
    model: str
    order: Mapping[str, Any] | None = None
    made: bool = False
    over: bool = False
    outcome: str | None = None
    adopted: str | None = None
    relapsed: bool = False

    @property
    def open(self) -> bool:
        """Whether it is in flight."""
        return self.outcome is None

    @property
    def automatic(self) -> bool:
        return self.trigger != MANUAL

    @property
    def _progress(self) -> tuple[bool, ...]:
        return (self.made, self.outcome is not None, self.over, self.relapsed)


@dataclass(frozen=True, slots=True)
class Ledger:
    """All entries, the oldest first; and since when each schedule is known."""

    entries: tuple[Entry, ...] = ()
    schedules: Mapping[str, datetime] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.entries or self.schedules)

    def of(self, request: str) -> Entry | None:
        """The entry of a request, by its name."""
        return next((e for e in self.entries if e.request == request), None)

    def with_entry(self, entry: Entry) -> Ledger:
        """With this entry added, or in place of the one of the same request."""
        if self.of(entry.request) is None:
            return replace(self, entries=_bounded((*self.entries, entry)))
        found = tuple(entry if e.request == entry.request else e for e in self.entries)
        return replace(self, entries=found)

    def with_new(self, other: Ledger) -> Ledger:
        """With the entries of requests that only the other one knows."""
        known = {entry.request for entry in self.entries}
        new = (entry for entry in other.entries if entry.request not in known)
        found = sorted((*self.entries, *new), key=lambda e: (e.at, e.request))
        return replace(self, entries=_bounded(tuple(found)))

    def asked(self, revision: str, trigger: str) -> tuple[Entry, ...]:
        """What was asked for this revision and trigger."""
        return tuple(e for e in self.entries if (e.revision, e.trigger) == (revision, trigger))

    def to_text(self) -> str:
        """The annotation's value."""
        value: dict[str, Any] = {"asked": [_to_data(entry) for entry in self.entries]}
        if self.schedules:
            value["schedules"] = {k: format_time(v) for k, v in sorted(self.schedules.items())}
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_text(cls, text: str) -> Ledger:
        """Reads :meth:`to_text`; raises ValueError, KeyError or TypeError for anything else."""
        value = json.loads(text)
        schedules = {str(k): parse_time(v) for k, v in (value.get("schedules") or {}).items()}
        return cls(tuple(_from_data(data) for data in value["asked"]), schedules)


def joined(ledgers: Iterable[Ledger]) -> Ledger:
    """One ledger of several: of the same request what knows more; of a schedule the earliest."""
    entries: dict[str, Entry] = {}
    schedules: dict[str, datetime] = {}
    for ledger in ledgers:
        for entry in ledger.entries:
            known = entries.get(entry.request)
            if known is None or known._progress < entry._progress:  # noqa: SLF001 - its own class
                entries[entry.request] = entry
        for text, since in ledger.schedules.items():
            schedules[text] = min(since, schedules.get(text, since))
    found = sorted(entries.values(), key=lambda e: (e.at, e.request))
    return Ledger(_bounded(tuple(found)), schedules)


def idempotency_key(uid: str, revision: str, trigger: str, episode: str) -> str:
    """Names one occasion to retrain; the uid tells a deployment from one of the same name."""
    return hashlib.sha256(f"{uid}\n{revision}\n{trigger}\n{episode}".encode()).hexdigest()[:32]


def request_name(deployment: str, key: str) -> str:
    """``fraud-rr-bcdfghjk``: the same for the same key, and never longer than 52 characters."""
    number = int(key, 16)
    letters = []
    for _ in range(8):
        number, index = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[index])
    return f"{deployment}-rr-{''.join(letters)}"


def _bounded(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    excess = len(entries) - _KEPT
    if excess <= 0:
        return entries
    closed = [e.request for e in entries if not e.open][:excess]
    return tuple(e for e in entries if e.request not in closed)


_FLAGS = ("made", "over", "relapsed")


def _to_data(entry: Entry) -> dict[str, Any]:
    data: dict[str, Any] = {
        "request": entry.request,
        "revision": entry.revision,
        "trigger": entry.trigger,
        "episode": entry.episode,
        "at": format_time(entry.at),
        "model": entry.model,
    }
    data |= {name: True for name in _FLAGS if getattr(entry, name)}
    more = {"order": entry.order, "outcome": entry.outcome, "adopted": entry.adopted}
    return data | {k: v for k, v in more.items() if v is not None}


def _from_data(data: Mapping[str, Any]) -> Entry:
    texts = {k: data[k] for k in ("request", "revision", "trigger", "episode", "model")}
    if not all(isinstance(text, str) for text in texts.values()):
        raise TypeError("an entry's fields are texts")
    order = data.get("order")
    if order is not None and not isinstance(order, Mapping):
        raise TypeError("an order is an object")
    return Entry(
        **texts,
        at=parse_time(data["at"]),
        order=order,
        made=bool(data.get("made")),
        over=bool(data.get("over")),
        outcome=data.get("outcome"),
        adopted=data.get("adopted"),
        relapsed=bool(data.get("relapsed")),
    )
