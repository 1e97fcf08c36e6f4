"""What status has told already that no record shows yet.

Status is written before the records, so an operator that dies between the two leaves a status that
is ahead of them. Whoever gives a verb then has read that status: taken by the records, the verb
would mean the step before, or a revision that is not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mooring.core.revision import History
from mooring.core.verbs import Action


def is_ahead(status: Mapping[str, Any], history: History, action: Action) -> bool:
    """Whether status tells of a revision, a promotion or a step that is still to be recorded.

    What is ahead because of ``action`` itself does not count: its effect is told before it is
    recorded, too, and must not wait for itself. Nor can it last: the next decision, whatever it is,
    writes both anew.
    """
    if _tells_of(status, action):
        return False
    return (
        _stable_is(status, history) or _candidate_is(status, history) or _step_is(status, history)
    )


def _tells_of(status: Mapping[str, Any], action: Action) -> bool:
    last = status.get("lastAction") or {}
    said = (last.get("verb"), last.get("revision"), last.get("token"))
    return said == (action.verb, action.revision, action.token)


def _stable_is(status: Mapping[str, Any], history: History) -> bool:
    told = _revision(status.get("stable"))
    return told is not None and (history.stable is None or told != history.stable.hash)


def _candidate_is(status: Mapping[str, Any], history: History) -> bool:
    told = _revision(status.get("candidate"))
    return told is not None and history.by_hash(told) is None


def _step_is(status: Mapping[str, Any], history: History) -> bool:
    rollout = status.get("rollout") or {}
    record = history.by_hash(_revision(rollout) or "")
    if record is None or not rollout.get("steps"):
        return False  # there is no step to be at
    plan = record.rollout
    if plan is None or not plan.rolling:
        return True
    return rollout.get("step") != (None if plan.done else (plan.index or 0) + 1)


def _revision(entry: object) -> str | None:
    found = entry.get("revision") if isinstance(entry, Mapping) else None
    return found if isinstance(found, str) else None
