"""Status of a ModelDeployment: what is served, what is rolling out, and why.

Nothing in it is needed to decide what is served; losing it costs timers and explanations only.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mooring.api.analysis_status import AnalysisStatus
from mooring.api.conditions import Condition
from mooring.api.monitoring_status import DriftStatus
from mooring.api.schema_types import (
    ApiModel,
    ListMap,
    StatusMessage,
    StrictInt,
    Timestamp,
)


class RevisionReplicas(ApiModel):
    """Pods of a revision."""

    desired: StrictInt
    """How many there should be."""
    ready: StrictInt
    """How many are ready to answer."""


Percent = Annotated[StrictInt, Field(ge=0, le=100)]
_Revision = Annotated[str, Field(max_length=63)]
_Word = Annotated[str, Field(max_length=253)]


class RevisionStatus(ApiModel):
    """One live revision."""

    revision: _Revision
    """Hash of the revision: the label mooring.dev/revision of its pods."""
    model_uri: Annotated[str, Field(max_length=2048)]
    """Where its model comes from."""
    model_digest: Annotated[str, Field(max_length=128)] | None = None
    """Digest of its model, as declared or as the first pod found it."""
    runtime: _Word | None = None
    """The runtime that it was rendered from."""
    replicas: RevisionReplicas | None = None
    """Pods of the revision: wanted and ready."""
    weight: Percent | None = None
    """Percent of the traffic that the router was told to send here."""
    measured_weight: Percent | None = None
    """Percent of the traffic that it got, as the router counted over the last minute; unset where
    nobody counts."""
    since: Timestamp | None = None
    """Since when it is what it is: stable or candidate."""


class RejectedRevision(ApiModel):
    """A revision that was taken back and is not tried again by itself."""

    revision: _Revision
    """Hash of the revision."""
    reason: _Word
    """Why, in one word."""
    message: StatusMessage | None = None
    """Why, in a sentence, with the way to try again."""
    at: Timestamp | None = None
    """When it was taken back."""


class RolloutStatus(ApiModel):
    """How far the candidate is."""

    revision: _Revision | None = None
    """Hash of the candidate."""
    stage: _Word | None = None
    """What is under way: Scaling (pods of this step are starting), Routing (routers take their
    routes), Waiting (the step lasts), Promoting (all traffic moves), Returning (the traffic goes
    back), Baking (the previous revision is kept), ScaledToZero (it has no pods, or stable's come
    first) or Paused."""
    step: StrictInt | None = None
    """Number of the step, from 1."""
    steps: StrictInt | None = None
    """How many steps there are."""
    doing: Annotated[str, Field(max_length=1024)] | None = None
    """The step in words. Example: weight 25 for 20m."""
    since: Timestamp | None = None
    """Since when the step's traffic is taken."""
    until: Timestamp | None = None
    """When the step ends by itself; unset while it waits for something else."""
    next: Annotated[str, Field(max_length=1024)] | None = None
    """What follows, in words."""
    max_available: StrictInt | None = None
    """The most pods of the candidate that were ever ready; the deadline restarts when it rises."""
    progressed_at: Timestamp | None = None
    """When the last progress was seen, put off by the time in which no pod was missing."""
    staffed_since: Timestamp | None = None
    """Since when no pod is missing."""
    deadline: Timestamp | None = None
    """When the candidate is given up unless there is progress."""
    waiting_for: StatusMessage | None = None
    """What the rollout waits for."""


class RouterStatus(ApiModel):
    """The routers and what they have taken."""

    kind: _Word | None = None
    """Which router: envoy, gateway or replicas."""
    version: Annotated[str, Field(max_length=128)] | None = None
    """The version of the routes that stand in their configuration."""
    taken: Annotated[str, Field(max_length=128)] | None = None
    """The last version that every ready router was seen to have taken."""
    taken_at: Timestamp | None = None
    """When that was first seen."""
    routers: RevisionReplicas | None = None
    """Pods of the router: wanted and ready."""
    message: StatusMessage | None = None
    """What keeps a router from taking its routes, in its own words; or what it cannot tell."""


class LastAction(ApiModel):
    """The last verb that somebody gave by the annotation mooring.dev/action."""

    verb: _Word
    """What was asked for: promote, promote-full, abort, retry, undo, pause, resume,
    restart or retrain."""
    revision: Annotated[str, Field(max_length=253)] | None = None
    """The revision that it named."""
    token: Annotated[str, Field(max_length=253)] | None = None
    """Its token: each one acts once."""
    result: _Word | None = None
    """What came of it: Accepted or Refused."""
    message: StatusMessage | None = None
    """What was done, or why not."""
    at: Timestamp | None = None
    """When it was acted on."""


class RetrainingStatus(ApiModel):
    """What was asked for last, and what the next request waits for."""

    request: _Word | None = None
    """The last RetrainingRequest."""
    outcome: _Word | None = None
    """What came of it; unset while it is in flight."""
    in_flight: StrictInt | None = None
    """Unfinished requests."""
    this_month: StrictInt | None = None
    """Requests by triggers in this month."""
    ineffective: StrictInt | None = None
    """Retrainings in a row that did not help."""
    message: StatusMessage | None = None
    """What is under way, or what a request waits for."""


class AdoptedModel(ApiModel):
    """The model of a RetrainingRequest in place of spec.model."""

    request: _Word
    """The RetrainingRequest."""
    revision: _Revision
    """The revision made of it."""
    uri: Annotated[str, Field(max_length=2048)]
    """Where the model is."""


class ModelDeploymentStatus(ApiModel):
    """What is served, what is rolling out, and why. Written by the operator alone."""

    observed_generation: Annotated[StrictInt, Field(ge=0)] | None = None
    """The metadata.generation that this status was derived from."""
    conditions: (
        Annotated[tuple[Condition, ...], Field(max_length=32), ListMap(("type",))] | None
    ) = None
    """Ready (serving with the capacity asked for), Reconciling and Stalled (abnormal-true),
    RolledBack (the last revision was taken back), with monitoring DataHealthy and Drifted, with
    retraining RetrainingRequested and RetrainIneffective."""
    phase: _Word | None = None
    """One word for people: Starting, Serving, RollingOut, Paused, Baking, RollingBack, Degraded,
    ScaledToZero or Stalled. Programs read the conditions."""
    message: StatusMessage | None = None
    """What is being done, why, and what happens next."""
    replicas: StrictInt | None = None
    """Number of pods of the revision that serves, as its Deployment was told."""
    selector: Annotated[str, Field(max_length=1024)] | None = None
    """Label selector of those pods, for the scale subresource."""
    stable: RevisionStatus | None = None
    """The revision that serves."""
    candidate: RevisionStatus | None = None
    """The revision that is to take over, while one is rolling out."""
    previous: RevisionStatus | None = None
    """The revision that was stable before, while it is kept to take the traffic back."""
    router: RouterStatus | None = None
    """The routers and what they have taken."""
    rejected_revisions: (
        Annotated[tuple[RejectedRevision, ...], Field(max_length=100), ListMap(("revision",))]
        | None
    ) = None
    """Revisions that were taken back, the newest first."""
    rollout: RolloutStatus | None = None
    """How far the candidate is, while one is rolling out."""
    analysis: AnalysisStatus | None = None
    """What the judge says, while something is judged."""
    drift: DriftStatus | None = None
    """What the last window of monitored data showed."""
    retraining: RetrainingStatus | None = None
    """Requests for a new model."""
    adopted_model: AdoptedModel | None = None
    """The retrained model in place of spec.model, until that changes."""
    last_action: LastAction | None = None
    """The last verb that was given, and what came of it."""
