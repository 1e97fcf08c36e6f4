"""What is known about a model's data, as ``decide`` and retraining see it.

Windows are judged beside the work on objects (:mod:`mooring.core.drift.tick`), and what came of it
stands in one child, the ConfigMap ``<name>-drift``: one write per window, so that a restart at any
moment neither loses a window nor takes one twice. From there status, conditions and Events are
derived like everything else. Nothing here needs numpy or scipy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from mooring.api import MonitoringSpec
from mooring.api.conditions import DATA_HEALTHY, DRIFTED
from mooring.core import kinds
from mooring.core.clock import format_time
from mooring.core.conditions import Finding
from mooring.core.events import NORMAL, WARNING, Event
from mooring.core.kinds import Ref
from mooring.core.observed import Manifest, Observed

REPORT_KEY = "report.json"
STATE_KEY = "state.json.zlib"
#: End of the last window that was taken, in Unix seconds: read without opening the rest.
ANNOTATION_WINDOW_END = f"{kinds.GROUP}/drift-window-end"
#: What is wrong with the reference: it is looked at again before the window ends.
ANNOTATION_PROBLEM = f"{kinds.GROUP}/drift-problem"

#: Labels say that a score means something else by now: told also amid a drift of the data.
CONCEPT_DRIFTED = "ConceptDrifted"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class DriftFacts:
    """What retraining may depend on.

    Attributes:
        drifted: an alarm lasts.
        since: end of the window in which the present episode began to alarm.
        change_point: where the drift began; data from here on is the new one.
        features: what drifted, the worst first; an output as ``output@revision``.
        healthy: the last window was read and held no broken data.
        unhealthy_windows: spans with broken data, which no training window should hold.
        episode: names the episode: the same number while it lasts, another one for the next; 0
            without one.
        window_end: end of the last window that was judged.
        message: what was found.
    """

    drifted: bool
    since: datetime | None = None
    change_point: datetime | None = None
    features: tuple[str, ...] = ()
    healthy: bool = False
    unhealthy_windows: tuple[tuple[datetime, datetime], ...] = ()
    episode: int = 0
    window_end: datetime | None = None
    message: str = ""

    def to_json(self) -> Json:
        return {
            "drifted": self.drifted,
            "since": _seconds(self.since),
            "changePoint": _seconds(self.change_point),
            "features": list(self.features),
            "healthy": self.healthy,
            "unhealthyWindows": [[_seconds(a), _seconds(b)] for a, b in self.unhealthy_windows],
            "episode": self.episode,
            "windowEnd": _seconds(self.window_end),
            "message": self.message,
        }

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> DriftFacts:
        """Reads ``to_json``; raises KeyError, TypeError or ValueError."""
        return DriftFacts(
            drifted=bool(raw["drifted"]),
            since=at(raw["since"]),
            change_point=at(raw["changePoint"]),
            features=tuple(str(name) for name in raw["features"]),
            healthy=bool(raw["healthy"]),
            unhealthy_windows=tuple(
                (datetime.fromtimestamp(a, UTC), datetime.fromtimestamp(b, UTC))
                for a, b in raw["unhealthyWindows"]
            ),
            episode=int(raw["episode"]),
            window_end=at(raw["windowEnd"]),
            message=str(raw["message"]),
        )


@dataclass(frozen=True, slots=True)
class Report:
    """What the last window came to.

    Attributes:
        drift: status.drift.
        conditions: DataHealthy and Drifted.
        facts: for retraining; None before a window was judged.
    """

    drift: Manifest
    conditions: Mapping[str, Finding] = field(default_factory=dict)
    facts: DriftFacts | None = None

    def to_text(self) -> str:
        return json.dumps(
            {
                "status": self.drift,
                "conditions": {
                    kind: {"status": one.status, "reason": one.reason, "message": one.message}
                    for kind, one in self.conditions.items()
                },
                "facts": self.facts.to_json() if self.facts is not None else None,
            },
            separators=(",", ":"),
            ensure_ascii=False,
        )

    @staticmethod
    def from_text(text: str) -> Report:
        """Reads ``to_text``; raises ValueError for anything else."""
        try:
            raw = json.loads(text)
            return Report(
                drift=dict(raw["status"]),
                conditions={
                    str(kind): Finding(str(one["reason"]), str(one["message"]), str(one["status"]))
                    for kind, one in raw["conditions"].items()
                    if kind in (DATA_HEALTHY, DRIFTED)
                },
                facts=DriftFacts.from_json(raw["facts"]) if raw["facts"] is not None else None,
            )
        except (AttributeError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(f"the report cannot be read: {error!r}") from error


NO_PROMETHEUS = Finding(
    "PrometheusNotConfigured",
    "spec.monitoring needs Prometheus: the administrator sets config.prometheus.url",
    "Unknown",
)


def unanswered(what: str, why: str = "it did not answer.") -> Finding:
    """Prometheus could not be read; ``why`` is a sentence."""
    text = f"Prometheus was asked for {what}: {why} It is judged as soon as it answers"
    return Finding("PrometheusUnavailable", text, "Unknown")


_FIRST = Finding("Starting", "no window is over yet", "Unknown")


def drift_name(deployment: str) -> str:
    """The ConfigMap that holds what is known about a deployment's data."""
    return f"{deployment}-drift"


def keeps(observed: Observed, spec: MonitoringSpec | None) -> frozenset[Ref]:
    """What the work on objects leaves alone: the ConfigMap, as long as there is monitoring."""
    if spec is None:
        return frozenset()
    return frozenset({Ref(kinds.CONFIG_MAP.name, drift_name(observed.name))})


def report(observed: Observed) -> Report | None:
    """What the last window came to; None where nothing is known, or it was damaged."""
    child = observed.child(kinds.CONFIG_MAP, drift_name(observed.name))
    data = (child or {}).get("data")
    if not isinstance(data, Mapping) or REPORT_KEY not in data:
        return None
    try:
        return Report.from_text(str(data[REPORT_KEY]))
    except ValueError:
        return None


def facts(observed: Observed) -> DriftFacts | None:
    """For retraining; None where monitoring is off or no window was judged."""
    if not (observed.resource.get("spec") or {}).get("monitoring"):
        return None
    found = report(observed)
    return found.facts if found is not None else None


def findings(observed: Observed, spec: MonitoringSpec | None) -> dict[str, Finding]:
    """The conditions DataHealthy and Drifted; none without monitoring."""
    if spec is None:
        return {}
    found = report(observed)
    known = found.conditions if found is not None else {}
    return {kind: known.get(kind, _FIRST) for kind in (DATA_HEALTHY, DRIFTED)}


def drift_status(observed: Observed, spec: MonitoringSpec | None) -> Manifest | None:
    """status.drift; None without monitoring."""
    if spec is None:
        return None
    found = report(observed)
    if found is None:
        return {"state": "NoData", "message": _FIRST.message}
    return found.drift


def turned(observed: Observed, now: Mapping[str, Finding]) -> tuple[Event, ...]:
    """Events: drift that began or ended, data that broke or was mended, what cannot be judged."""
    before = {c.get("type"): c for c in observed.status.get("conditions") or ()}
    told = []
    for kind, bad, reasons in (
        (DRIFTED, "True", ("Drifted", "DriftEnded")),
        (DATA_HEALTHY, "False", ("DataUnhealthy", "DataHealthy")),
    ):
        one, was = now.get(kind), before.get(kind) or {}
        if one is None:
            continue
        joins = one.reason == CONCEPT_DRIFTED != was.get("reason")
        if was.get("status") == one.status and not joins:
            continue
        if one.status == bad:
            told.append(Event(WARNING, one.reason if joins else reasons[0], one.message))
        elif was.get("status") == bad and one.status != "Unknown":
            told.append(Event(NORMAL, reasons[1], one.message))
    healthy, was = now.get(DATA_HEALTHY), before.get(DATA_HEALTHY) or {}
    if healthy is None or healthy.status != "Unknown" or healthy.reason not in _TOLD:
        return tuple(told)
    if was.get("reason") != healthy.reason:
        told.append(Event(WARNING, healthy.reason, healthy.message))
    return tuple(told)


#: Reasons not to judge that ask for somebody to act.
_TOLD = frozenset(
    {
        "PrometheusNotConfigured", "PrometheusUnavailable", "ReferenceMissing", "ReferenceInvalid",
        "ReferenceUnsuitable", "PatternInvalid", "NotScraped", "WrongGrid",
        "NothingCounted", "NoCopies",
    }
)  # fmt: skip


def at(seconds: float | None) -> datetime | None:
    """Unix seconds as a moment."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def shown(seconds: float | None) -> str | None:
    """Unix seconds as status has them."""
    return None if seconds is None else format_time(datetime.fromtimestamp(seconds, UTC))


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
