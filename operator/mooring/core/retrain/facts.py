"""What retraining is decided by, as plain values: what others have found, and who could be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Span = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class DriftFacts:
    """How the data stands.

    ``drifted``: an alarm lasts, since ``since``; the data changed at ``change_point``. ``steady``:
    there is data, and nothing is found: only that ends an episode, and silence does not.
    ``healthy``: the last window broke no rule; ``unhealthy_windows`` are those that did.
    ``evidence`` is what a request says of it, in the API's form, the strongest first.
    """

    drifted: bool = False
    steady: bool = False
    since: datetime | None = None
    change_point: datetime | None = None
    features: tuple[str, ...] = ()
    healthy: bool = True
    unhealthy_windows: tuple[Span, ...] = ()
    message: str = ""
    evidence: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class PerformanceFacts:
    """One metric of the model: its value, and the bounds between which it lies with certainty.

    ``samples`` are labels; ``note`` is what else a reader has to know.
    """

    value: float
    lower: float
    upper: float
    samples: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class RowsFacts:
    """How many rows there were since ``since``; None where that cannot be told, for ``problem``."""

    value: float | None
    since: datetime
    problem: str = ""


@dataclass(frozen=True, slots=True)
class JobFacts:
    """A training Job as seen: whether it has ended and how, and the last words of its pods.

    ``words`` is the newest termination message of a container; ``started`` counts pods.
    """

    uid: str
    ended: bool = False
    succeeded: bool = False
    words: str = ""
    reason: str = ""
    started: int = 0


@dataclass(frozen=True, slots=True)
class SinkAnswer:
    """What a sink answered to one attempt; ``problem`` is empty for a success.

    ``id`` is the event's: a request that was deleted may come back under its name as another one.
    """

    at: datetime
    attempt: int
    problem: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class RetrainingFacts:
    """Everything that retraining depends on and that is no child of the ModelDeployment.

    ``requests`` are the raw RetrainingRequests that name it; ``jobs`` and ``answers`` go by the
    request's name; ``templates`` holds the PodTemplates that were looked for, None for one that
    does not exist; ``sinks`` are the administrator's, by name; ``refused`` is what the API server
    answered to the writes of a request's objects, by the request's name, and ``taken`` the kind of
    an object of that name that is somebody else's. ``drift`` and ``performance`` are None and empty
    where nobody has looked; ``performance_of`` is the revision that was measured, and
    ``performance_problem`` why a metric could not be. ``new_data`` goes by query.
    """

    requests: tuple[Mapping[str, Any], ...] = ()
    jobs: Mapping[str, JobFacts] = field(default_factory=dict)
    templates: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)
    sinks: frozenset[str] = frozenset()
    answers: Mapping[str, SinkAnswer] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    taken: Mapping[str, str] = field(default_factory=dict)
    drift: DriftFacts | None = None
    performance: Mapping[str, PerformanceFacts] = field(default_factory=dict)
    performance_of: str = ""
    performance_problem: str = ""
    new_data: Mapping[str, RowsFacts] = field(default_factory=dict)
