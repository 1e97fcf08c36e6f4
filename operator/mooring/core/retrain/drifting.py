"""Drift as retraining sees it: taken from what monitoring knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mooring.core import monitoring
from mooring.core.observed import Observed
from mooring.core.retrain.facts import DriftFacts

_STEADY = "Steady"
_DRIFTED = "Drifted"


def drift_facts(observed: Observed) -> DriftFacts | None:
    """What the last window showed; None where nobody has looked."""
    known = monitoring.facts(observed)
    report = monitoring.report(observed)
    if known is None or report is None:
        return None
    return DriftFacts(
        drifted=known.drifted,
        steady=report.drift.get("state") == _STEADY,
        since=known.since,
        change_point=known.change_point,
        features=known.features,
        healthy=known.healthy,
        unhealthy_windows=known.unhealthy_windows,
        message=known.message,
        evidence=_evidence(report.drift),
    )


def _evidence(drift: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """What has drifted, the score's meaning first, then the worst, as a request states it."""
    found = []
    concept = drift.get("concept") or {}
    if concept.get("state") == _DRIFTED and concept.get("pValue") is not None:
        stated = {
            "feature": str(concept.get("output"))[:253],
            "statistic": "conceptPValue",
            "value": f"{concept['pValue']:.6g}",
            "samples": concept.get("labels"),
        }
        found.append({k: v for k, v in stated.items() if v is not None})
    for one in drift.get("features") or ():
        if one.get("state") != _DRIFTED or one.get("psi") is None:
            continue
        stated = {
            "feature": str(one.get("feature") or "")[:253] or None,
            "statistic": "psi",
            "value": f"{one['psi']:.6g}",
            "samples": one.get("windowRows"),
            "referenceSamples": one.get("referenceRows"),
        }
        found.append({k: v for k, v in stated.items() if v is not None})
    return tuple(found)
