"""What drift is judged by; the fields follow ``spec.monitoring.drift``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from mooring.core.drift.multiplicity import Correction

Method = Literal[
    "minimumEffect", "chiSquare", "kolmogorovSmirnov", "andersonDarling", "wasserstein", "psi",
    "jensenShannon", "hellinger",
]  # fmt: skip
METHODS: tuple[Method, ...] = (
    "minimumEffect", "chiSquare", "kolmogorovSmirnov", "andersonDarling", "wasserstein", "psi",
    "jensenShannon", "hellinger",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FeatureSettings:
    """What differs for one feature.

    Attributes:
        min_effect_psi: PSI₀, the shift that is tolerated for ever; None takes the general one.
        method: the test; None takes the general one.
    """

    min_effect_psi: float | None = None
    method: Method | None = None


@dataclass(frozen=True, slots=True)
class DriftSettings:
    """How a deployment's drift is judged.

    Attributes:
        window: length of a window in seconds; windows are disjoint.
        min_effect_psi: PSI₀ of the test of a minimum effect.
        false_alarms_per_quarter: how many false alarms a quarter are accepted, over all features.
        alpha: level of a single window, for ranking within it; alarms are CUSUM's.
        correction: over the features of one window.
        method: the test; only minimumEffect, jensenShannon and hellinger have a floor.
        bins: tested bins per feature.
        threshold: h when it was calibrated on dependent windows; None takes Siegmund's.
        features: what differs for single ones.
    """

    window: float = 3600.0
    min_effect_psi: float = 0.02
    false_alarms_per_quarter: float = 1.0
    alpha: float = 0.01
    correction: Correction = "BH"
    method: Method = "minimumEffect"
    bins: int = 10
    threshold: float | None = None
    features: Mapping[str, FeatureSettings] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("window", "min_effect_psi", "false_alarms_per_quarter", "alpha"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0")
        asked = [self.method, *(one.method for one in self.features.values() if one.method)]
        unknown = sorted({str(method) for method in asked if method not in METHODS})
        if unknown:
            raise ValueError(f"method {unknown[0]!r} is none of {', '.join(METHODS)}")

    def floor_of(self, name: str) -> float:
        """PSI₀ of a feature."""
        own = self.features.get(name)
        return self.min_effect_psi if own is None or own.min_effect_psi is None else (
            own.min_effect_psi
        )  # fmt: skip

    def method_of(self, name: str) -> Method:
        """The test of a feature."""
        own = self.features.get(name)
        return self.method if own is None or own.method is None else own.method

    @property
    def hash(self) -> str:
        """Names what evidence was gathered by: another PSI₀ or window starts it anew.

        How many false alarms are accepted is a threshold upon the evidence and no part of it.
        """
        gathered = ("window", "min_effect_psi", "method", "bins", "features")
        text = json.dumps({k: v for k, v in asdict(self).items() if k in gathered}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
