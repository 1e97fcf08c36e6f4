"""The CloudEvent that tells a sink of a request.

CloudEvents 1.0 in the JSON format. Its id is the request's idempotency key and its time the
request's creation, so every attempt sends the same event: of the revision that was asked for and
its model (their record is kept so long), whatever is stable by then. Only ``allowedPrefixes`` are
those of the moment, since a result is held against those of the moment when it comes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mooring.core import kinds
from mooring.core.clock import format_time
from mooring.core.retrain.job import described

if TYPE_CHECKING:
    from mooring.core.retrain.request import Owner, Request

EVENT_TYPE = "dev.mooring.retraining.requested.v1"


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event to post: to which sink, for which request, and the how many-th attempt it is."""

    request: str
    sink: str
    attempt: int
    id: str
    body: str


def delivery(request: Request, owner: Owner, sink: str, attempt: int) -> Delivery:
    """The event of a request."""
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": request.key,
        "source": kinds.MODEL_DEPLOYMENT.path(owner.namespace, owner.name),
        "type": EVENT_TYPE,
        "subject": request.name,
        "time": format_time(request.created),
        "datacontenttype": "application/json",
        "data": described(request, owner),
    }
    body = json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return Delivery(request.name, sink, attempt, request.key, body)
