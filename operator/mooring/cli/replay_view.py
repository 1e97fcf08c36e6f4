"""What a replay found, for people and for programs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mooring.cli.estimates import Reading, sentence
from mooring.cli.words import clock, span
from mooring.core.clock import format_time

if TYPE_CHECKING:
    from rich.console import Console

    from mooring.api import ModelDeploymentSpec
    from mooring.cli.replay_subject import Period
    from mooring.core.examination import Evidence
    from mooring.core.replay import Trial

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """A look at which a verdict became another: of all metrics, and of each by name."""

    at: datetime
    weight: float
    verdict: str
    reason: str
    metrics: dict[str, str]
    reasons: dict[str, str]

    @classmethod
    def of(cls, evidence: Evidence, weight: float, before: Change | None) -> Change | None:
        """None when every verdict is as it was."""
        judgement = evidence.judgement
        verdict = judgement.verdict.value
        reason = evidence.missing if evidence.missing and verdict != "Fail" else judgement.reason
        metrics = {one.name: one.verdict.value for one in judgement.metrics}
        if before is not None and (before.verdict, before.metrics) == (verdict, metrics):
            return None
        reasons = {one.name: one.reason for one in judgement.metrics}
        return cls(evidence.at, weight, verdict, reason, metrics, reasons)


@dataclass(frozen=True, slots=True)
class Played:
    """A replay to its end, or to the Fail that ended it."""

    trial: Trial
    spec: ModelDeploymentSpec
    period: Period
    looks: int
    changes: tuple[Change, ...]
    last: Evidence

    @property
    def ended(self) -> datetime:
        return self.last.at

    @property
    def verdict(self) -> str:
        """Of all metrics, at the last look."""
        return self.last.judgement.verdict.value

    @property
    def since(self) -> datetime:
        """Since when the verdict is what it is at the end."""
        at = self.ended
        for change in reversed(self.changes):
            if change.verdict != self.verdict:
                break
            at = change.at
        return at

    def readings(self) -> list[Reading]:
        """Every metric at the last look."""
        kinds = {
            metric.name: next(
                kind
                for kind, value in (
                    ("errorRate", metric.error_rate),
                    ("latency", metric.latency),
                    ("predictionShift", metric.prediction_shift),
                    ("prometheus", metric.prometheus),
                )
                if value is not None
            )
            for metric in (self.spec.analysis.metrics if self.spec.analysis else ())
        }
        bake = self.trial.phase.value == "Bake"
        return [
            Reading(_record(one), kinds.get(one.name, ""), bake)
            for one in self.last.judgement.metrics
        ]


def _record(one: Any) -> Json:
    """As in status.analysis, through the schema of which what has no number is left out."""
    from mooring.api import Interval, MetricStatus

    def interval(found: Any) -> Interval | None:
        return found and Interval(value=found.value, low=found.low, high=found.high)

    return MetricStatus(
        name=one.name,
        verdict=one.verdict.value,
        reason=one.reason,
        guaranteed=one.guaranteed,
        evidence=one.evidence,
        p_value=one.p_value,
        candidate=interval(one.estimate),
        stable=interval(one.baseline),
        ratio=interval(one.ratio),
        samples=one.samples,
        stable_samples=one.baseline_samples,
        samples_needed=one.needed,
    ).as_dict()


def as_data(played: Played) -> Json:
    """What ``-o json`` prints; times are RFC 3339, weights percent."""
    trial = played.trial
    return {
        "namespace": trial.namespace,
        "name": trial.deployment,
        "candidate": trial.revision,
        "stable": trial.against,
        "phase": trial.phase.value,
        "start": format_time(played.period.began),
        "end": format_time(played.ended),
        "tickSeconds": played.period.tick.total_seconds(),
        "looks": played.looks,
        "weights": "given" if played.period.weights else "counted",
        "alpha": trial.standard.analysis.alpha,
        "verdict": played.verdict,
        "since": format_time(played.since),
        "message": played.changes[-1].reason if played.changes else "",
        "notJudged": [gap.message for gap in trial.standard.gaps],
        "changes": [
            {
                "at": format_time(change.at),
                "weight": round(change.weight, 1),
                "verdict": change.verdict,
                "message": change.reason,
                "metrics": change.metrics,
            }
            for change in played.changes
        ],
        "metrics": [reading.record for reading in played.readings()],
    }


def show(played: Played, out: Console) -> None:
    """A line for each change, what it means, and the numbers at the end."""
    from rich.text import Text

    from mooring.cli.analysis_view import VERDICTS

    trial = played.trial
    out.print(
        Text(
            f"{trial.deployment} in {trial.namespace}: {trial.revision} against {trial.against}, "
            f"{format_time(played.period.began)} to {format_time(played.ended)}, "
            f"{played.looks:,} looks {span(played.period.tick)} apart, "
            f"alpha {trial.standard.analysis.alpha:g}"
        )
    )
    for gap in trial.standard.gaps:
        out.print(Text(f"not judged: {gap.message}", "yellow"))
    before: Change | None = None
    for change in played.changes:
        text = Text.assemble(
            (f"{clock(format_time(change.at), change.at)} ", "dim"),
            (f"+{span(change.at - played.period.began):<7} {change.weight:>5.1f} %  ", "dim"),
            (f"{change.verdict:<13}", VERDICTS.get(change.verdict, "")),
            _news(change, before),
        )
        out.print(text)
        before = change
    out.print(Text(f"\n{_meaning(played)}", VERDICTS.get(played.verdict, "")))
    for reading in played.readings():
        out.print(Text.assemble((reading.name, "bold"), f" {reading.verdict}: {sentence(reading)}"))


def _news(change: Change, before: Change | None) -> str:
    """Which metrics changed, with their reasons; what is missing, when that is the news."""
    known = before.metrics if before is not None else {}
    told = [
        f"{name} {verdict}: {change.reasons[name]}"
        for name, verdict in change.metrics.items()
        if known.get(name) != verdict
    ]
    if change.verdict == "NoData" or not told:
        return change.reason
    return "; ".join(told)


def _meaning(played: Played) -> str:
    after = span(played.since - played.period.began)
    match played.verdict:
        case "Fail":
            return f"Fail after {after}: it would have been rolled back then."
        case "Pass":
            return (
                f"Pass since {after} after the start: at the end of its last step it would have "
                "been promoted."
            )
        case "NoData":
            return "NoData at the end: nothing would have moved until there is data again."
        case verdict:
            then = played.spec.rollout.on_inconclusive
            return f"{verdict} at the end: the end of the last step does onInconclusive, {then}."
