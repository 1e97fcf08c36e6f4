"""Which finished requests go: all but the last few, and none that anything still depends on.

That an occasion is not asked for twice is the ledger's to know and not the objects'; so an object
may go once the record says how it ended. With a request goes its Job.
"""

from __future__ import annotations

from collections.abc import Collection

from mooring.core import kinds
from mooring.core.kinds import Ref
from mooring.core.objects import Deletion, owned
from mooring.core.retrain.desk import Desk
from mooring.core.retrain.ledger import DELETED, Ledger


def prunable(desk: Desk, recorded: Ledger, live: Collection[str]) -> tuple[Deletion, ...]:
    """The requests to delete, the oldest first.

    ``recorded`` is the ledger as the stable revision's record holds it: what this decision only
    means to write is not known yet. ``live`` are the revisions that serve or are about to: the
    request that one of them stems from is kept. So is what people have made by hand, which is not
    ours, and a request that says nothing yet of its end.
    """
    if desk.spec is None:
        return ()
    ours = {
        str(raw["metadata"]["name"])
        for raw in desk.facts.requests
        if raw["metadata"].get("ownerReferences") and owned(raw, desk.uid)
    }
    finished = []
    for request in desk.requests:  # the oldest first
        entry = recorded.of(request.name)
        if request.name not in ours or request.deleted or entry is None or not entry.made:
            continue
        if entry.outcome in (None, DELETED) or entry.adopted in live:
            continue
        if request.status.get("phase") in ("Succeeded", "Failed"):
            finished.append(request)
    surplus = finished[: max(0, len(finished) - desk.spec.history_limit)]
    kind = kinds.RETRAINING_REQUEST
    return tuple(Deletion(Ref(kind.name, request.name), request.uid) for request in surplus)
