"""What status says of retraining: the conditions, and two parts of their own."""

from __future__ import annotations

from typing import Any

from mooring.api.schema_types import MESSAGE_LENGTH
from mooring.core.retrain.adoption import in_force
from mooring.core.retrain.triggers import breaker_words, this_month
from mooring.core.retrain.work import Retraining
from mooring.core.situation import Situation

Manifest = dict[str, Any]


def retraining_conditions(situation: Situation) -> dict[str, tuple[str, str, str]]:
    """RetrainingRequested and RetrainIneffective, as (status, reason, message); none of them where
    nothing was asked for and nothing ever asks.
    """
    found = situation.retraining
    if found is None:
        return {}
    conditions = {"RetrainingRequested": _requested(found)}
    if found.desk.spec is not None:
        conditions["RetrainIneffective"] = _ineffective(found)
    return conditions


def retraining_status(situation: Situation) -> Manifest | None:
    """status.retraining."""
    found = situation.retraining
    if found is None:
        return None
    last = found.last
    _, _, message = _requested(found)
    status = {
        "request": last.request if last else None,
        "outcome": last.outcome if last else None,
        "inFlight": len(found.in_flight),
        "thisMonth": this_month(found.ledger, found.desk.now),
        "ineffective": found.ineffective,
        "message": message[:MESSAGE_LENGTH],
    }
    return {key: value for key, value in status.items() if value is not None}


def adopted_model(situation: Situation) -> Manifest | None:
    """status.adoptedModel."""
    found = situation.retraining
    revision = in_force(situation.history, found.desk.model) if found is not None else None
    if revision is None or revision.adopted is None:
        return None
    return {
        "request": revision.adopted.request,
        "revision": revision.hash,
        "uri": revision.model_uri,
    }


def _requested(found: Retraining) -> tuple[str, str, str]:
    if found.in_flight:
        entry = found.in_flight[-1]
        request = next((r for r in found.desk.requests if r.name == entry.request), None)
        said = str(request.status.get("message") or "") if request is not None else ""
        refused = found.desk.facts.refused.get(entry.request) if request is None else None
        if request is None and entry.request in found.desk.facts.taken:
            said = "one of that name belongs to another ModelDeployment: remove it"
        elif refused:
            said = f"the API server refused it: {refused}"
        words = f"RetrainingRequest {entry.request}" + (f": {said}" if said else " is being made")
        return "True", entry.trigger, words
    if found.problem:
        return "False", "InvalidSchedule", found.problem
    if found.hold is not None:
        return "False", found.hold.reason, f"a new model is wanted, but {found.hold.message}"
    if found.waiting:
        return "False", "Waiting", found.waiting
    return "False", "NotNeeded", "no trigger asks for a new model"


def _ineffective(found: Retraining) -> tuple[str, str, str]:
    if found.broken:
        return "True", "DidNotHelp", breaker_words(found.ineffective)
    if not found.ineffective:
        return "False", "NotIneffective", "no retraining was in vain"
    return "False", "NotIneffective", f"{found.ineffective} retrainings in a row did not help"
