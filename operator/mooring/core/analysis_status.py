"""``status.analysis``: what the judge says, in numbers that a person can weigh."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mooring.core.clock import format_time
from mooring.core.examination import Evidence, pack, unpack
from mooring.core.judge import MetricJudgement, Verdict
from mooring.core.judge.verdicts import Estimate
from mooring.core.observed import Manifest, Observed
from mooring.core.sentences import bounded
from mooring.core.situation import Situation

_DECIDED = (Verdict.PASS, Verdict.FAIL)
_BLOCKED_LIMIT = 8


def analysis_status(observed: Observed, situation: Situation) -> Manifest | None:
    """What is known of the revision under judgement.

    Without news it stays as it is: after a rollout it tells what decided it, until the next.
    """
    before = observed.status.get("analysis")
    before = before if isinstance(before, dict) else None
    if situation.evidence is not None:
        return _told(observed, situation.evidence, before or {})
    if before is None:
        return None
    if situation.examination is not None:
        revision, attempt = situation.examination.revision, situation.examination.attempt
        state = before.get("state")
        known = unpack(state) if isinstance(state, str) else None
        same = before.get("revision") == revision and (known or {}).get("attempt") == attempt
        return before if same else None
    return {key: value for key, value in before.items() if key != "state"}


def _told(observed: Observed, evidence: Evidence, before: Mapping[str, Any]) -> Manifest:
    wanted, judgement = evidence.examination, evidence.judgement
    verdict = judgement.verdict
    same = before.get("revision") == wanted.revision
    metrics = {
        one["name"]: one
        for one in before.get("metrics") or ()
        if same and isinstance(one, dict) and "name" in one
    }
    queries = {query.metric: query.text for query in wanted.queries}
    unchanged = same and before.get("verdict") == verdict.value
    message = judgement.reason
    if evidence.missing and verdict is not Verdict.FAIL:
        message = evidence.missing
    found: dict[str, Any] = {
        "revision": wanted.revision,
        "phase": wanted.phase.value,
        "verdict": verdict.value,
        "message": bounded(message),
        "since": (unchanged and before.get("since")) or format_time(evidence.at),
        "observedAt": format_time(evidence.at),
        "scrapeInterval": f"{evidence.interval:.0f}s"
        if evidence.interval > wanted.analysis.tick + 1
        else None,
        "metrics": [
            _metric(one, evidence, metrics.get(one.name, {}), queries.get(one.name))
            for one in judgement.metrics
        ],
        "blocked": [bounded(text) for text in judgement.blocked[:_BLOCKED_LIMIT]],
        "state": pack(wanted.attempt, judgement.state),
    }
    return {key: value for key, value in found.items() if value is not None and value != []}


def _metric(
    one: MetricJudgement, evidence: Evidence, before: Mapping[str, Any], query: str | None
) -> Manifest:
    decided = None
    if one.verdict in _DECIDED:
        decided = before.get("decidedAt") if before.get("verdict") == one.verdict.value else None
        decided = decided or format_time(evidence.at)
    found: dict[str, Any] = {
        "name": one.name,
        "verdict": one.verdict.value,
        "reason": bounded(one.reason),
        "guaranteed": one.guaranteed,
        "evidence": _number(one.evidence),
        "pValue": _number(one.p_value),
        "candidate": _interval(one.estimate),
        "stable": _interval(one.baseline),
        "ratio": _interval(one.ratio),
        "samples": one.samples,
        "stableSamples": one.baseline_samples,
        "samplesNeeded": one.needed,
        "dispersion": _number(one.dispersion),
        "decidedAt": decided,
        "query": bounded(query) if query else None,
    }
    return {key: value for key, value in found.items() if value is not None}


def _interval(estimate: Estimate | None) -> Manifest | None:
    if estimate is None:
        return None
    ends = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    found = {name: _number(value) for name, value in ends.items()}
    return {name: value for name, value in found.items() if value is not None} or None


def _number(value: float | None) -> float | None:
    """Four digits, so that status changes only where one can see it. JSON has no infinity."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.4g}")
