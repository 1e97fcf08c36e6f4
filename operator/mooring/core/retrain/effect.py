"""Whether retraining helps: of which requests came nothing, and how many in a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from mooring.core.retrain.ledger import ADOPTED, DRIFT, FAILED, PERFORMANCE, Entry, Ledger
from mooring.core.retrain.triggers import Pull


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a revision: promoted when (None: not yet), and whether it was rejected."""

    promoted_at: datetime | None
    rejected: bool


def relapses(
    ledger: Ledger, revision: str, pulls: tuple[Pull, ...], fates: Mapping[str, Fate],
    now: datetime, within: timedelta,
) -> Ledger:  # fmt: skip
    """The ledger with the retraining marked whose model is stable and whose trigger fires again.

    Soon after the promotion, that is: later it is the world that has moved on.
    """
    fate = fates.get(revision)
    if fate is None or fate.promoted_at is None or now > fate.promoted_at + within:
        return ledger
    firing = {pull.trigger for pull in pulls} & {DRIFT, PERFORMANCE}
    for entry in ledger.entries:
        if entry.adopted == revision and entry.trigger in firing and not entry.relapsed:
            ledger = ledger.with_entry(replace(entry, relapsed=True))
    return ledger


def ineffective(ledger: Ledger, model: str, fates: Mapping[str, Fate]) -> int:
    """How many retrainings in a row did not help, the last one back to the last that did.

    Only those of today's spec.model count: a new model in Git is a new beginning.
    """
    count = 0
    for entry in sorted(ledger.entries, key=lambda e: (e.at, e.request), reverse=True):
        if entry.model != model:
            continue
        helped = _helped(entry, fates)
        if helped is True:
            break
        if helped is False:
            count += 1
    return count


def _helped(entry: Entry, fates: Mapping[str, Fate]) -> bool | None:
    """Whether it did; None while that is open, and for what says nothing about it."""
    if entry.outcome == FAILED or entry.relapsed:
        return False
    if entry.outcome != ADOPTED or entry.adopted is None:
        return None
    fate = fates.get(entry.adopted)
    if fate is None:
        return None  # forgotten by the history limit
    if fate.rejected:
        return False
    return True if fate.promoted_at is not None else None
