"""What one deployment asks to be watched, and whether a reference fits that."""

from __future__ import annotations

from dataclasses import dataclass

from mooring.api import MonitoringSpec, parse_duration
from mooring.core.conditions import Finding
from mooring.core.drift.health import Expectations
from mooring.core.drift.reference import FeatureReference, Reference
from mooring.core.drift.settings import DriftSettings, FeatureSettings

_NAMED = 5


@dataclass(frozen=True, slots=True)
class Watch:
    """What a deployment asks for.

    Attributes:
        spec: ``spec.monitoring``.
        stable: the revision whose answers count as its own.
        retrained: whether its model came of a RetrainingRequest.
    """

    spec: MonitoringSpec
    stable: str | None = None
    retrained: bool = False

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
    if not watch.watched(reference) and not reference.outputs:
        return Finding(
            "ReferenceUnsuitable",
            f"ConfigMap {name} holds nothing that spec.monitoring does not exclude",
            "Unknown",
        )
    return None
