"""What is found about a model's data: status.drift."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mooring.api.schema_types import ATOMIC, ApiModel, StatusMessage, StrictInt, Timestamp

WORST = 20
#: Characters of a feature's name.
NAME_LENGTH = 253
_Word = Annotated[str, Field(max_length=NAME_LENGTH)]
_Count = Annotated[StrictInt, Field(description="Features.")]


class FeatureDriftStatus(ApiModel):
    """One feature, or one output of a revision."""

    feature: _Word
    """Name of the feature or output."""
    revision: Annotated[str, Field(max_length=63)] | None = None
    """Whose answers; unset for features."""
    state: _Word
    """How it stands."""
    psi: float | None = None
    """Population stability index."""
    reference_rows: StrictInt | None = None
    """Rows compared with."""
    window_rows: StrictInt | None = None
    """Rows compared."""
    q_value: float | None = None
    """Of this window alone."""
    score: float | None = None
    """Evidence over the windows."""
    threshold: float | None = None
    """Evidence that alarms."""
    message: StatusMessage | None = None
    """What was found, or the least shift that would alarm."""


class ConceptStatus(ApiModel):
    """What labels that came later say, beside the reference's at the same scores."""

    state: _Word
    """InsufficientData, Steady or Drifted."""
    output: _Word
    """The score."""
    revision: Annotated[str, Field(max_length=63)] | None = None
    """Whose labels."""
    labels: StrictInt | None = None
    """Labels that were judged."""
    since: Timestamp | None = None
    """When the alarm began."""
    p_value: float | None = None
    """Of all windows together."""
    score: float | None = None
    """Evidence over the windows."""
    threshold: float | None = None
    """Evidence that alarms."""
    message: StatusMessage | None = None
    """What was found."""


class DriftStatus(ApiModel):
    """What the last window showed."""

    state: _Word
    """NoData, InsufficientData, Steady, Drifted (while an alarm lasts) or Unhealthy (broken data,
    and no drift)."""
    since: Timestamp | None = None
    """When the episode began to alarm."""
    change_point: Timestamp | None = None
    """Where the drift began."""
    episode: StrictInt | None = None
    """Names the episode."""
    window_end: Timestamp | None = None
    """End of the last window that was judged."""
    reference: _Word | None = None
    """Hash of the reference."""
    rows: StrictInt | None = None
    """Rows in that window."""
    counts: Annotated[dict[str, _Count], Field(max_length=8)] | None = None
    """Features by state."""
    features: (
        Annotated[tuple[FeatureDriftStatus, ...], Field(max_length=WORST, json_schema_extra=ATOMIC)]
        | None
    ) = None
    """The 20 worst."""
    concept: ConceptStatus | None = None
    """What labels say, where the reference has some."""
    message: StatusMessage | None = None
    """What was found."""
