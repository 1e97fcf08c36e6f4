"""One ModelDeployment, understood: what the rest of a decision is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from mooring.core import kinds
from mooring.core.allocation import Setting
from mooring.core.analysis import Standard
from mooring.core.capacity import Capacity
from mooring.core.examination import Evidence, Examination
from mooring.core.observed import Observed
from mooring.core.progress import Progress
from mooring.core.registry import Resolution
from mooring.core.render.revision import CannotRender
from mooring.core.retrain.work import Retraining
from mooring.core.revision import History, Revision
from mooring.core.rollout import Rule
from mooring.core.routing import Routing
from mooring.core.traffic import Route
from mooring.core.verbs import Outcome


@dataclass(frozen=True, slots=True)
class Situation:
    """One ModelDeployment, understood.

    ``target`` is the revision that the spec asks for; ``candidate`` the same while it is neither
    stable nor rejected. ``counts`` are the pods each live revision should have now, ``total`` those
    of the whole deployment, ``needed`` those without which it is not ready. ``created``,
    ``promoted`` and ``rejected`` name what this decision itself brings about. ``held_to`` is what
    revisions are judged by, if anything; ``examination`` what is to be measured next, ``evidence``
    what was found of it. ``resolution`` is how far a model's name in a registry was followed.
    ``postponed``: a verb waits for the next decision, since status was ahead of the records.
    """

    history: History
    stable: Revision | None
    target: Revision | None
    candidate: Revision | None
    blocked: CannotRender | None
    verb: Outcome | None
    rule: Rule
    progress: Progress | None
    deadline: datetime | None
    capacities: Mapping[str, Capacity]
    counts: Mapping[str, int]
    route: Route
    total: int
    needed: int
    autoscaled: bool
    setting: Setting
    until: datetime | None = None
    previous: Revision | None = None
    leaving: tuple[Revision, ...] = ()
    baking_until: datetime | None = None
    begun: tuple[str, ...] = ()
    created: Revision | None = None
    promoted: Revision | None = None
    rejected: Revision | None = None
    held_to: Standard | None = None
    examination: Examination | None = None
    evidence: Evidence | None = None
    retraining: Retraining | None = None
    resolution: Resolution | None = None
    postponed: bool = False

    @property
    def serving(self) -> Revision | None:
        """The revision that the public Service names: stable, or before there is one the first."""
        return self.stable or self.candidate

    def capacity(self, revision: Revision | None) -> Capacity:
        return self.capacities.get(revision.hash, Capacity()) if revision else Capacity()


def routed_revision(observed: Observed, routing: Routing) -> str | None:
    """The revision that most requests go to in the cluster, as last seen."""
    service = observed.child(kinds.SERVICE, observed.name)
    if service is None:
        return None
    found = (service["spec"].get("selector") or {}).get(kinds.LABEL_REVISION)
    if found is not None:
        return str(found)
    return max(routing.route.weights, key=routing.route.weight, default=None)
