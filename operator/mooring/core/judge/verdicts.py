"""What the judge says: per metric, and of the rollout as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """Only Pass and Fail decide. Inconclusive and NoData hold."""

    PASS = "Pass"  # noqa: S105 - a verdict, no password
    FAIL = "Fail"
    INCONCLUSIVE = "Inconclusive"
    NO_DATA = "NoData"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with the interval that holds at every look; the ends may be 0 and infinity."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class MetricJudgement:
    """One metric at one tick.

    ``guaranteed``: its Fail is within alpha. ``evidence``: how far towards Fail, log E over what
    fails, 1 or more when it has failed; None where there is no such process. ``p_value``: the
    anytime p of the metric, the chance of so much evidence against a good candidate at any look.
    ``estimate``, ``baseline``: candidate and stable (a share of requests, or seconds); ``ratio``:
    one over the other. ``samples``, ``baseline_samples``: requests on both sides. ``needed``: about
    how many more of the candidate's requests Pass takes; None when unknown or not to be reached.
    ``log_evidence``: log E of the part of the metric that is nearest to Fail. ``dispersion``: what
    log-evidence is divided by, since errors come in bursts; None where it is not calibrated.
    """

    name: str
    verdict: Verdict
    reason: str
    guaranteed: bool = True
    evidence: float | None = None
    p_value: float | None = None
    estimate: Estimate | None = None
    baseline: Estimate | None = None
    ratio: Estimate | None = None
    samples: int = 0
    baseline_samples: int = 0
    needed: int | None = None
    log_evidence: float | None = None
    dispersion: float | None = None


@dataclass(frozen=True, slots=True)
class SplitCheck:
    """Whether attempts are split as the weights say; ``observed`` and ``wanted`` are percent."""

    ok: bool = True
    observed: float | None = None
    wanted: float | None = None


def overall(
    metrics: Sequence[MetricJudgement],
    *,
    failed: str | None = None,
    blocked: Sequence[str] = (),
    fresh: bool = True,
) -> tuple[Verdict, str]:
    """The verdict of a rollout with its reason, for the rollout table.

    ``failed``: a Fail that belongs to no metric, or an earlier one, which stays. ``blocked``: why
    Pass may not be given now. Any Fail fails. No fresh sample is NoData. Pass takes every metric;
    one that is not judged yet (by the drift tests, say) stands in ``metrics`` as Inconclusive.
    Without any metric nothing is judged: that is Pass, since nobody asked for evidence.
    """
    if failed is not None:
        return Verdict.FAIL, failed
    for metric in metrics:
        if metric.verdict is Verdict.FAIL:
            return Verdict.FAIL, f"{metric.name}: {metric.reason}"
    if not metrics and not blocked:
        return Verdict.PASS, "no analysis is asked for"
    if not fresh:
        return Verdict.NO_DATA, "no router pod gave a fresh sample for more than three ticks"
    for metric in metrics:
        if metric.verdict is Verdict.NO_DATA:
            return Verdict.NO_DATA, f"{metric.name}: {metric.reason}"
    if blocked:
        return Verdict.INCONCLUSIVE, "; ".join(blocked)
    waiting = [m for m in metrics if m.verdict is not Verdict.PASS]
    if waiting:
        return Verdict.INCONCLUSIVE, f"{waiting[0].name}: {waiting[0].reason}"
    return Verdict.PASS, "every metric passes"
