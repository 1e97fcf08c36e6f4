"""What one deployment asks to be watched, and whether a reference fits that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mooring.api import MonitoringSpec, parse_duration
from mooring.core.conditions import Finding
from mooring.core.drift import patterns
from mooring.core.drift.health import Expectations
from mooring.core.drift.reference import FeatureReference, Reference
from mooring.core.drift.settings import DriftSettings, FeatureSettings
from mooring.core.telemetry import Counted

_NAMED = 5
#: The router that copies requests to a collector.
_COPYING = "envoy"
#: What becomes of requests that are counted into no feature.
_LOST = {
    "unparsed": "could not be read as what the runtime's protocol says",
    "failed": "had no answer of 2xx",
    "dropped": "were dropped, since the collector was behind or a body too large",
    "sampled_out": "were left out by spec.monitoring.sample",
    "answered": "held no rows",
}


@dataclass(frozen=True, slots=True)
class Watch:
    """What a deployment asks for.

    Attributes:
        spec: ``spec.monitoring``.
        stable: the revision whose answers count as its own.
        retrained: whether its model came of a RetrainingRequest.
        router: ``spec.traffic.router``.
    """

    spec: MonitoringSpec
    stable: str | None = None
    retrained: bool = False
    router: str = _COPYING

    @property
    def window(self) -> float:
        """Length of a window in seconds."""
        return parse_duration(self.spec.window).total_seconds()

    @property
    def season(self) -> float | None:
        """Length of a season in seconds; None without a seasonal reference."""
        seasonal = self.spec.reference.seasonal
        return None if seasonal is None else parse_duration(seasonal.offset).total_seconds()

    @property
    def captured(self) -> float | None:
        """How much of the first traffic is compared with, in seconds; None without that."""
        captured = self.spec.reference.captured
        return None if captured is None else parse_duration(captured.window).total_seconds()

    @property
    def settings(self) -> DriftSettings:
        drift = self.spec.drift
        return DriftSettings(
            window=self.window,
            min_effect_psi=drift.min_effect_psi,
            false_alarms_per_quarter=drift.false_alarms_per_quarter,
            method=drift.method,
            features={
                one.name: FeatureSettings(one.min_effect_psi, one.method)
                for one in drift.features or ()
            },
        )

    def watched(self, reference: Reference) -> tuple[FeatureReference, ...]:
        """The features that are judged, in the reference's order."""
        named = {one.name: bool(one.exclude) for one in self.spec.features or ()}
        only = {name for name, excluded in named.items() if not excluded}
        return tuple(
            one
            for one in reference.features
            if not named.get(one.name, False) and (not only or one.name in only)
        )

    def unknown(self, reference: Reference) -> tuple[str, ...]:
        """What the spec names and the reference does not know."""
        known = {one.name for one in (*reference.features, *reference.outputs)}
        named = [one.name for one in self.spec.features or () if not one.exclude]
        named += [one.name for one in self.spec.outputs or ()]
        named += [one.name for one in self.spec.drift.features or ()]
        return tuple(dict.fromkeys(name for name in named if name not in known))

    def expectations(self, reference: Reference) -> Expectations:
        """As the spec says, else as the reference says, else the defaults."""
        stated = self.spec.expectations.as_dict() if self.spec.expectations is not None else {}
        return Expectations.from_json({**(reference.expectations or {}), **stated})


def unsuitable(watch: Watch, reference: Reference) -> Finding | None:
    """Why nothing can be judged by this reference."""
    unknown = watch.unknown(reference)
    name = watch.spec.reference.config_map
    if unknown:
        more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        named = ", ".join(unknown[:_NAMED])
        return Finding(
            "ReferenceUnsuitable",
            f"ConfigMap {name} does not know {named}{more}, which spec.monitoring names: is it "
            "the reference of another model? Build one that does, or remove the names",
            "Unknown",
        )
    for one in watch.spec.features or ():
        problem = patterns.problem(one.pattern or "")
        if problem:
            return Finding(
                "PatternInvalid",
                f"the pattern of feature {one.name} is no regular expression of RE2: {problem}",
                "Unknown",
            )
    if not watch.watched(reference) and not reference.outputs:
        return Finding(
            "ReferenceUnsuitable",
            f"ConfigMap {name} holds nothing that spec.monitoring does not exclude",
            "Unknown",
        )
    return None


def nothing_to_judge(watch: Watch, grid: str, counted: Counted) -> Finding | None:
    """Why a window shows nothing that could be compared."""
    if counted.scrapes == 0 and watch.router != _COPYING:
        return Finding(
            "NoCopies",
            f"router {watch.router} copies no requests to a collector, so there is nothing to "
            f"judge: spec.monitoring needs spec.traffic.router: {_COPYING}",
            "Unknown",
        )
    if counted.scrapes == 0:
        return Finding(
            "NotScraped",
            "Prometheus has no scrape of the collector in the last window: does the collector run, "
            "and is it scraped?",
            "Unknown",
        )
    if counted.gap:
        return Finding(
            "NotScraped",
            "Prometheus did not scrape the collector in the window before, so what was counted "
            "since cannot be told apart; the next window can be",
            "Unknown",
        )
    grids = {*counted.features, *counted.outputs}
    if grids and grid not in grids:
        return Finding(
            "WrongGrid",
            f"the collector counts on grid {min(grids)}, but ConfigMap "
            f"{watch.spec.reference.config_map} holds {grid}: if that was just named, the next "
            "window can be judged; if it was made anew under its old name, the collector keeps "
            "the old one: build it under a new name, and set spec.monitoring.reference.configMap "
            "to that",
            "Unknown",
        )
    if counted.rows <= 0:
        return _nothing_counted(counted.requests)
    return None


def _nothing_counted(requests: Mapping[str, float]) -> Finding:
    """Why a collector that was scraped has counted no row."""
    said = [
        f"{requests[kind]:.0f} {words}"
        for kind, words in _LOST.items()
        if requests.get(kind, 0) > 0
    ]
    if not said:
        return Finding("NoTraffic", "no row was counted in the last window", "Unknown")
    total = sum(requests.values())
    text = f"of {total:.0f} requests in the last window no row was counted: {', '.join(said)}"
    return Finding("NothingCounted", text, "Unknown")
