"""RetrainingRequest: a durable, auditable, idempotent request for a new model.

The operator makes one per revision, trigger and episode; a person may make one by hand. Whoever
fulfils it writes `status.result`: a Job's pod by its last words, or any pipeline by a patch.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mooring.api.conditions import Condition
from mooring.api.metadata import ObjectMeta
from mooring.api.modeldeployment import Digest, ModelUri
from mooring.api.pod_fields import LocalObjectReference
from mooring.api.schema_types import (
    API_VERSION,
    ApiModel,
    ListMap,
    ObjectName,
    Rule,
    StatusMessage,
    StrictInt,
    Timestamp,
)

MAX_METRICS = 64
_Word = Annotated[str, Field(min_length=1, max_length=253)]
_Number = Annotated[
    str,
    Field(
        max_length=64,
        description='A number as text, since not every JSON reader keeps floats. Example: "0.93".',
    ),
]

DISPATCHED = "Dispatched"
"""Whoever trains knows of the request: there is a Job, the event was delivered, or a pipeline
watches."""
RESULT_ACCEPTED = "ResultAccepted"
"""The result may be served: it has a digest and lies under an allowed prefix."""
ADOPTED = "Adopted"
"""The result has a revision of its own."""


class TrainingWindow(ApiModel):
    """The span of data to train on."""

    start: Timestamp
    """Beginning of the span, in RFC 3339."""
    end: Timestamp
    """End of the span, in RFC 3339."""

    rules = (
        Rule(
            cel="self.start < self.end",
            message="start must be earlier than end: exchange or correct them",
            check=lambda w: w.start < w.end,
        ),
    )


_Spans = Annotated[
    tuple[TrainingWindow, ...],
    Field(max_length=50, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
]


class DataWindow(TrainingWindow):
    """The span of data to train on, and what to leave out of it."""

    exclude: _Spans | None = None
    """Spans in it in which the data was broken, in order: leave them out."""


class Trigger(ApiModel):
    """What made the request necessary."""

    type: Literal["Drift", "Performance", "Schedule", "NewData", "Manual"]
    """Kind of the trigger: Drift, Performance, Schedule, NewData or Manual."""
    episode: _Word | None = None
    """Which occasion it was: no two requests have the same revision, type and episode."""
    message: StatusMessage | None = None
    """What was seen, in a sentence."""


class Evidence(ApiModel):
    """What the trigger was judged by."""

    feature: _Word | None = None
    """The feature or metric. Example: amount."""
    statistic: _Word
    """Name of the statistic. Example: psi."""
    value: _Number
    """Its value, as text."""
    samples: Annotated[StrictInt, Field(ge=0)] | None = None
    """Number of samples that it was computed from."""
    reference_samples: Annotated[StrictInt, Field(ge=0)] | None = None
    """Number of samples in the reference."""


class RetrainingRequestSpec(ApiModel):
    """What is asked for, and why. It does not change after creation."""

    deployment_ref: LocalObjectReference
    """The ModelDeployment in the same namespace that needs a new model."""
    revision: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """Hash of the revision that was stable when the request was made; may be left out by hand."""
    trigger: Trigger | None = None
    """What made the request necessary; unset means that a person did."""
    idempotency_key: _Word | None = None
    """Same for every request of the same revision, trigger and episode: a pipeline that has seen
    it does nothing again. Unset means that the uid serves as such."""
    evidence: (
        Annotated[
            tuple[Evidence, ...],
            Field(max_length=100, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
        ]
        | None
    ) = None
    """What the trigger was judged by, the strongest first."""
    data_window: DataWindow | None = None
    """The span of data to train on; unset leaves it to the pipeline."""
    deadline: Timestamp | None = None
    """When the request counts as failed without a result; unset means by
    spec.retraining.deadline of the ModelDeployment."""


class RetrainingResult(ApiModel):
    """The new model."""

    uri: ModelUri
    """Where the new model is, as in spec.model.uri of a ModelDeployment; under one of its
    allowedPrefixes."""
    digest: Digest
    """Digest of the new model; required, so that what was trained is what gets served."""
    metrics: Annotated[dict[str, _Number], Field(max_length=MAX_METRICS)] | None = None
    """What the training measured, by name, as text. Example: {accuracy: "0.93"}."""


class RetrainingRequestStatus(ApiModel):
    """How far the request is; a pipeline that fulfils it writes result."""

    observed_generation: Annotated[StrictInt, Field(ge=0)] | None = None
    """The metadata.generation that this status was derived from."""
    conditions: (
        Annotated[tuple[Condition, ...], Field(max_length=16), ListMap(("type",))] | None
    ) = None
    """Dispatched (whoever trains knows of it), ResultAccepted (the result may be served) and
    Adopted (it has a revision of its own)."""
    phase: Literal["Pending", "Running", "Succeeded", "Failed"] | None = None
    """Pending, Running, Succeeded or Failed. A pipeline that gives up writes Failed."""
    message: StatusMessage | None = None
    """What is happening or what went wrong, in a sentence."""
    attempts: Annotated[StrictInt, Field(ge=0, le=100000)] | None = None
    """How often a sink was told of it, or the Job's pod was started."""
    last_attempt: Timestamp | None = None
    """When a sink was told of it last."""
    job_name: ObjectName | None = None
    """Name of the Job that trains, if one does."""
    result: RetrainingResult | None = None
    """The new model, once there is one."""
    revision: Annotated[str, Field(max_length=63)] | None = None
    """The revision that was made of the result."""


class RetrainingRequest(ApiModel):
    """Asks for a new model for a ModelDeployment, with the evidence for it. Whoever makes that
    model writes status.result.
    """

    api_version: Literal["mooring.dev/v1alpha1"] = API_VERSION
    """Version of this schema: mooring.dev/v1alpha1."""
    kind: Literal["RetrainingRequest"] = "RetrainingRequest"
    """Kind of the object: RetrainingRequest."""
    metadata: ObjectMeta
    """Standard metadata of the object."""
    spec: RetrainingRequestSpec
    """What is asked for, and why. It does not change after creation."""
    status: RetrainingRequestStatus | None = None
    """How far the request is; a pipeline that fulfils it writes result."""

    rules = (
        Rule(
            cel="self.spec == oldSelf.spec",
            message="spec cannot be changed: create another RetrainingRequest",
            check=lambda request: True,  # needs the stored object: the API server's alone
        ),
        Rule(
            cel="self.metadata.name.size() <= 52",
            message="must be at most 52 characters: the Job of the same name gets a suffix",
            check=lambda request: len(request.metadata.name) <= 52,
            field=".metadata.name",
        ),
    )
