"""Status of the judging: per metric what was found, how sure it is, and what is missing.

Descriptions are short, since the CRD has a bound; docs/judging.md says more.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from mooring.api.analysis_spec import MAX_METRICS
from mooring.api.schema_types import (
    ATOMIC,
    ApiModel,
    ListMap,
    StatusMessage,
    StrictBool,
    StrictInt,
    Timestamp,
)

MAX_STATE = 65_536
MAX_BLOCKED = 8

Word = Annotated[str, Field(max_length=63)]


def _finite(value: Any) -> Any:
    """Status must always be writable: what JSON has no number for is left out."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


Measured = Annotated[float | None, BeforeValidator(_finite)]


class Interval(ApiModel):
    """A share of requests, seconds or a ratio, with an interval that holds at every look."""

    value: Measured = None
    """The estimate; unset when it lies beyond the router's largest bucket."""
    low: Measured = None
    """Lower end."""
    high: Measured = None
    """Upper end; unset while nothing bounds it."""


class MetricStatus(ApiModel):
    """One metric."""

    name: Annotated[str, Field(max_length=40)]
    """Its name in spec.analysis."""
    verdict: Word
    """Pass, Fail, Inconclusive or NoData."""
    reason: StatusMessage
    """Why, with numbers."""
    guaranteed: StrictBool | None = None
    """Whether its Fail is within alpha."""
    evidence: Measured = None
    """How far towards Fail, which is at 1."""
    p_value: Measured = None
    """The chance of so much evidence against a good candidate, however often one looks."""
    candidate: Interval | None = None
    """What the candidate shows: a share of requests, or seconds."""
    stable: Interval | None = None
    """The same of stable; in the bake of the revision before."""
    ratio: Interval | None = None
    """Candidate over stable."""
    samples: StrictInt | None = None
    """Requests of the candidate."""
    stable_samples: StrictInt | None = None
    """Requests of stable."""
    samples_needed: StrictInt | None = None
    """About how many more requests of the candidate Pass takes."""
    dispersion: Measured = None
    """How much errors come in bursts; evidence is divided by it. Unset: uncalibrated."""
    decided_at: Timestamp | None = None
    """When it came to Pass or Fail; unset while it has not."""
    query: StatusMessage | None = None
    """The query that was sent."""


class AnalysisStatus(ApiModel):
    """What the judge says of a revision."""

    revision: Word
    """Hash of the revision."""
    phase: Word | None = None
    """Rollout, or Bake after the promotion."""
    verdict: Word
    """Pass, Fail, Inconclusive or NoData, of all metrics. The first two decide."""
    message: StatusMessage | None = None
    """Why, and what is missing."""
    since: Timestamp | None = None
    """Since when it is this verdict."""
    observed_at: Timestamp | None = None
    """When it was last looked at."""
    scrape_interval: Annotated[str, Field(max_length=32)] | None = None
    """Time between samples, when longer than between looks."""
    metrics: (
        Annotated[tuple[MetricStatus, ...], Field(max_length=MAX_METRICS), ListMap(("name",))]
        | None
    ) = None
    """Each metric at the last look."""
    blocked: (
        Annotated[
            tuple[Annotated[StatusMessage, Field(description="A sentence.")], ...],
            Field(max_length=MAX_BLOCKED, json_schema_extra=ATOMIC),
        ]
        | None
    ) = None
    """What keeps it from passing."""
    state: Annotated[str, Field(max_length=MAX_STATE)] | None = None
    """What the judge remembers; opaque."""
