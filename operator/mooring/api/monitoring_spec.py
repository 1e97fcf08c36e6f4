"""What is watched of a model's data: features, what they are compared with, and how strictly."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, Strict

from mooring.api.schema_types import (
    ATOMIC,
    DURATION_PATTERN,
    ApiModel,
    Duration,
    ListMap,
    ObjectName,
    Rule,
    StrictBool,
    StrictInt,
    parse_duration,
)

MAX_FEATURES = 500
SHORTEST_WINDOW = timedelta(seconds=10)
LONGEST_WINDOW = timedelta(hours=168)

WindowLength = Annotated[
    Duration,
    Rule(
        cel=(
            f"!self.matches(r'{DURATION_PATTERN}') || self == '' || "
            "duration(self) >= duration('10s') && duration(self) <= duration('168h')"
        ),
        message="must be 10s to 168h",
        check=lambda text: SHORTEST_WINDOW <= parse_duration(text) <= LONGEST_WINDOW,
    ),
]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Share = Annotated[Number, Field(ge=0, le=1)]
FeatureName = Annotated[str, Field(max_length=128)]
Tensor = Annotated[str, Field(max_length=128)]
Category = Annotated[str, Field(max_length=128, description="As text.")]
MinEffect = Annotated[Number, Field(ge=0.0001, le=10)]
Method = Literal[
    "minimumEffect", "chiSquare", "kolmogorovSmirnov", "andersonDarling", "wasserstein", "psi",
    "jensenShannon", "hellinger",
]  # fmt: skip


class ValueRange(ApiModel):
    """The values that are right; others are violations."""

    min: Number | None = None
    """The least; unset means none."""
    max: Number | None = None
    """The greatest; unset means none."""

    rules = (
        Rule(
            cel="!has(self.min) || !has(self.max) || self.min <= self.max",
            message="min exceeds max",
            check=lambda r: r.min is None or r.max is None or r.min <= r.max,
        ),
    )


class MonitoredFeature(ApiModel):
    """One feature: where it stands in a request, and what its values must be."""

    name: FeatureName
    """Name, as in the reference."""
    input: Tensor | None = None
    """Its tensor, or a column of one as x[3]; unset: the tensor of its name."""
    type: Literal["integer", "number", "boolean", "string"] | None = None
    """Other values are violations. Unset: as in the reference."""
    range: ValueRange | None = None
    """The numbers that are right."""
    domain: (
        Annotated[tuple[Category, ...], Field(max_length=64, json_schema_extra=ATOMIC)] | None
    ) = None
    """The texts that are right."""
    pattern: Annotated[str, Field(max_length=256)] | None = None
    """A regular expression (RE2) for the whole text."""
    exclude: StrictBool | None = None
    """Nothing of it is counted or kept."""
    hash: StrictBool | None = None
    """Only a hash of its texts is counted."""

    rules = (
        Rule(
            cel="!has(self.range) || !has(self.domain) && !has(self.pattern)",
            message="range is for numbers, domain and pattern are for texts",
            check=lambda f: f.range is None or (f.domain is None and f.pattern is None),
        ),
    )


class MonitoredOutput(ApiModel):
    """One output of the model: a class, a score or a value."""

    name: FeatureName
    """Name, as in the reference."""
    output: Tensor | None = None
    """Its tensor, or a column of one as p[1]; unset: the tensor of its name."""


class CapturedReference(ApiModel):
    """The first traffic, without broken windows."""

    window: Literal["1h", "24h", "168h"] = "168h"
    """How much of it."""


class SeasonalReferenceSpec(ApiModel):
    """The same hours of earlier seasons and their neighbours."""

    offset: Literal["24h", "168h"] = "168h"
    """Length of a season."""
    weeks: Annotated[StrictInt, Field(ge=1, le=8)] = 4
    """Seasons to go back; Prometheus must keep them."""


class ReferenceSpec(ApiModel):
    """What the data is compared with."""

    config_map: ObjectName
    """The ConfigMap that `mooring reference build` made: bins, and counts of a time when all was
    well."""
    captured: CapturedReference | None = None
    """Compares with the first traffic once there is enough; the ConfigMap gives the bins, and is
    used until then."""
    seasonal: SeasonalReferenceSpec | None = None
    """Compares with earlier seasons; the ConfigMap stays the anchor, and is used until there are
    any."""


class FeatureDrift(ApiModel):
    """What differs for one feature or output."""

    name: FeatureName
    """Its name."""
    method: Method | None = None
    """Its test."""
    min_effect_psi: MinEffect | None = Field(default=None, alias="minEffectPSI")
    """Its floor."""


class DriftSpec(ApiModel):
    """How strictly drift is judged."""

    method: Method = "minimumEffect"
    """The test. minimumEffect, jensenShannon and hellinger tolerate what is below minEffectPSI."""
    min_effect_psi: MinEffect = Field(default=0.02, alias="minEffectPSI")
    """The shift that is tolerated for ever: .02 is a mean that moves by .14 standard deviations, .1
    by .33."""
    false_alarms_per_quarter: Annotated[Number, Field(ge=0.001, le=1000)] = 1
    """False alarms accepted over all features."""
    features: (
        Annotated[tuple[FeatureDrift, ...], Field(max_length=MAX_FEATURES), ListMap(("name",))]
        | None
    ) = None
    """What differs for single ones."""


class ExpectationsSpec(ApiModel):
    """Tolerated shares of a window's rows, beyond the reference's own. Unset: as the reference
    says, else .01.
    """

    missing: Share | None = None
    """Missing or NaN."""
    out_of_range: Share | None = None
    """Beyond the reference's range."""
    unseen_category: Share | None = None
    """Not in the reference."""


class GroundTruth(ApiModel):
    """Labels that come later, by POST to the collector's /feedback."""

    maturity: Duration = "1h"
    """How long after its request a label may come."""


class SampleStore(ApiModel):
    """Rows of live requests with their answers, for GET /sample of the collector."""

    rows: Annotated[StrictInt, Field(ge=1, le=10_000)] = 500
    """How many of each revision; the collector keeps fewer when they would take more than 16
    MiB."""


class MonitoringSpec(ApiModel):
    """Watches the model's data."""

    features: (
        Annotated[tuple[MonitoredFeature, ...], Field(max_length=MAX_FEATURES), ListMap(("name",))]
        | None
    ) = None
    """Unset: those of the reference, each in a tensor of its name."""
    outputs: (
        Annotated[tuple[MonitoredOutput, ...], Field(max_length=32), ListMap(("name",))] | None
    ) = None
    """Unset: those of the reference, each in a tensor of its name."""
    reference: ReferenceSpec
    """What the data is compared with."""
    window: WindowLength = "1h"
    """Length of a window, 10s to 168h."""
    drift: DriftSpec = Field(default_factory=DriftSpec, json_schema_extra={"default": {}})
    """How strictly drift is judged."""
    expectations: ExpectationsSpec | None = None
    """Broken data that is tolerated. More blocks retraining."""
    sample: Annotated[Number, Field(gt=0, le=1)] = 1
    """Share of the requests that is looked at."""
    ground_truth: GroundTruth | None = None
    """Labels that come later."""
    sample_store: SampleStore | None = None
    """Keeps a few rows, which whoever reaches the collector can read: raw values, but for features
    with exclude or hash. Unset: no value leaves the pod."""
