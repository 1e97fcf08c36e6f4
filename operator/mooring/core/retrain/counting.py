"""New data: what has to be counted for the triggers that ask for enough of it.

``{{ window }}`` in a query stands for the time since the last request, or since the stable revision
was promoted, whichever is later. The other placeholders and what a query may hold are those of free
queries in an analysis: it reads its own namespace and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from mooring.api import RetrainingSpec
from mooring.core.promql import Bound, prepare
from mooring.core.promql_tokens import BadQuery
from mooring.core.retrain.ledger import Ledger

#: How often it is counted.
EVERY = timedelta(minutes=5)
_SHORTEST = timedelta(minutes=1)
_LONGEST = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class Question:
    """A query as its author wrote it, the text to send, and since when it counts."""

    query: str
    text: str
    since: datetime


def counted_since(ledger: Ledger, promoted_at: datetime | None, now: datetime) -> datetime:
    """Since when data is new."""
    moments = [entry.at for entry in ledger.entries]
    if promoted_at is not None:
        moments.append(promoted_at)
    return min(max(moments, default=now - EVERY), now)


def questions(
    spec: RetrainingSpec, bound: Bound, since: datetime, now: datetime
) -> tuple[tuple[Question, ...], str]:
    """What to count, and what is wrong with a query that cannot be asked."""
    window = min(max(now - since, _SHORTEST), _LONGEST)
    window -= window % timedelta(minutes=1)
    found, problem = [], ""
    for trigger in spec.triggers or ():
        if trigger.new_data is None:
            continue
        query = trigger.new_data.query
        at = Bound(
            bound.namespace, bound.deployment, bound.revision, window,
            bound.namespace_label, bound.pod_label,
        )  # fmt: skip
        try:
            found.append(Question(query, prepare(query, at).text, since))
        except (BadQuery, ValueError) as error:
            problem = problem or f"the query of newData cannot be asked: {error}"
    return tuple(found), problem
