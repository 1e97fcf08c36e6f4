"""What the judge found of one metric, in words and numbers: from ``status.analysis`` alone.

What a number is (a share, a time, a value of somebody else's) is told by the kind of the metric in
``spec.analysis``. A field that is missing is left out, since an older operator fills less of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mooring.cli.cluster import Json
from mooring.cli.snapshot import Snapshot
from mooring.cli.words import count, plain

#: Of a metric that is not in the spec any more nobody knows what its numbers are.
_KINDS = ("errorRate", "latency", "predictionShift", "prometheus")


def share(value: float) -> str:
    """0.0041 → ``0.41 %``."""
    return f"{100 * value:.3g} %"


def seconds(value: float) -> str:
    """0.3 → ``300 ms``."""
    return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.4g} s"


def number(value: float) -> str:
    """1.25 → ``1.25``."""
    return f"{value:.3g}"


#: Below it, over-dispersion is hardly more than the width of its own bound.
_BURSTS = 1.3
_FORMATS: dict[str, Callable[[float], str]] = {"errorRate": share, "latency": seconds}


@dataclass(frozen=True, slots=True)
class Reading:
    """One metric at the last look: the record in status, its kind in the spec, and the phase."""

    record: Json
    kind: str
    bake: bool

    @property
    def name(self) -> str:
        return plain(self.record.get("name"))

    @property
    def verdict(self) -> str:
        return plain(self.record.get("verdict"))

    @property
    def reason(self) -> str:
        return plain(self.record.get("reason"))

    @property
    def guaranteed(self) -> bool:
        return self.record.get("guaranteed") is not False

    @property
    def evidence(self) -> float | None:
        """How far towards Fail, which is at 1."""
        found = self.record.get("evidence")
        return float(found) if isinstance(found, int | float) else None

    def sides(self) -> Iterator[tuple[str, str]]:
        """Whose it is, and the estimate with its interval and the number of requests."""
        shown = _FORMATS.get(self.kind, number)
        if self.kind == "prometheus":
            value = (self.record.get("candidate") or {}).get("value")
            if value is not None:
                yield "value", number(value)
            return
        # In the bake the candidate is what was promoted, and stable what was before.
        names = ("promoted", "previous") if self.bake else ("candidate", "stable")
        for name, part, of in zip(
            names, ("candidate", "stable"), ("samples", "stableSamples"), strict=True
        ):
            text = interval(self.record.get(part), shown)
            samples = self.record.get(of)
            if samples is not None:
                text += f"{' of ' if text else ''}{samples:,} request{'' if samples == 1 else 's'}"
            if text:
                yield name, text
        ratio = interval(self.record.get("ratio"), number)
        if ratio:
            yield "ratio", ratio

    @property
    def bursts(self) -> str:
        """What bursts take away from the evidence; empty where it is nothing worth saying."""
        found = self.record.get("dispersion")
        if not isinstance(found, int | float) or found < _BURSTS:
            return ""
        return f"evidence counts 1/{found:.2g}, as errors come in bursts"

    @property
    def needed(self) -> str:
        """What Pass takes; empty when it is not known, or said by the reason already."""
        more = self.record.get("samplesNeeded")
        if not more or self.verdict == "Pass" or "more requests" in self.reason:
            return ""
        return f"about {more:,} more requests until Pass"


def interval(record: Json | None, shown: Callable[[float], str]) -> str:
    """``0.41 % (0.2 % to 0.77 %)``: the estimate, and what it lies between at every look."""
    if not record:
        return ""
    value, low, high = (record.get(end) for end in ("value", "low", "high"))
    if value is None:
        return f"more than {shown(low)}" if low is not None else ""
    if low is None and high is None:
        return shown(value)
    if high is None:
        return f"{shown(value)} (at least {shown(low or 0.0)})"
    return f"{shown(value)} ({shown(low or 0.0)} to {shown(high)})"


def readings(snapshot: Snapshot) -> tuple[Reading, ...]:
    """Every metric of ``status.analysis``, in the order of the spec."""
    analysis = snapshot.part("analysis")
    asked = (snapshot.resource.get("spec") or {}).get("analysis") or {}
    kinds = {
        plain(metric.get("name")): next((kind for kind in _KINDS if kind in metric), "")
        for metric in asked.get("metrics") or ()
    }
    order = list(kinds)
    found = [
        Reading(record, kinds.get(plain(record.get("name")), ""), analysis.get("phase") == "Bake")
        for record in analysis.get("metrics") or ()
    ]
    return tuple(
        sorted(found, key=lambda r: order.index(r.name) if r.name in kinds else len(order))
    )


def sentence(reading: Reading) -> str:
    """All of it in a sentence, for people who asked why."""
    parts = [reading.reason] if reading.reason else []
    parts += [f"{name} {text}" for name, text in reading.sides()]
    if reading.evidence is not None:
        parts.append(f"{reading.evidence:.0%} of the evidence for a Fail".replace("%", " %", 1))
    parts += [text for text in (reading.bursts, reading.needed) if text]
    if not reading.guaranteed and "no guarantee" not in reading.reason:
        parts.append("no guarantee")
    return "; ".join(parts)


def ongoing(status: Json) -> bool:
    """Whether something is judged now; else what is told is what decided the last rollout.

    The judge's memory is kept for as long as it is needed, and no longer.
    """
    return bool((status.get("analysis") or {}).get("state"))


def told(snapshot: Snapshot) -> str:
    """Why the verdict of all is what it is, unless what is said of the metrics says so."""
    if snapshot.part("analysis").get("verdict") == "Pass":
        return ""
    message = plain(snapshot.part("analysis").get("message"))
    said = {f"{reading.name}: {reading.reason}" for reading in readings(snapshot)}
    blocked = [plain(text) for text in snapshot.part("analysis").get("blocked") or ()]
    return "" if message in said or message == "; ".join(blocked) else message


def summary(snapshot: Snapshot) -> str:
    """The verdict with how many metrics pass: ``Inconclusive (1 of 2 metrics pass)``.

    Empty while nothing is judged.
    """
    if not ongoing(snapshot.status):
        return ""
    analysis = snapshot.part("analysis")
    verdict = plain(analysis.get("verdict"))
    found = readings(snapshot)
    if not verdict or verdict in ("Pass", "Fail") or len(found) < 2:
        return verdict
    passing = sum(reading.verdict == "Pass" for reading in found)
    return f"{verdict} ({passing} of {count(len(found), 'metric')} pass)"
