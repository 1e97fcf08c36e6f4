"""Conditions of a status, with the fields and meaning of `metav1.Condition`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mooring.api.schema_types import ApiModel, StatusMessage, StrictInt, Timestamp

READY = "Ready"
"""Serving with the capacity asked for; `Unknown` on first touch."""
RECONCILING = "Reconciling"
"""Abnormal-true: work is under way (kstatus). A rollout waiting in a step is not."""
STALLED = "Stalled"
"""Abnormal-true: cannot go on without a change by somebody; the reason says what."""
ROLLING_OUT = "RollingOut"
"""A candidate revision is on its way to becoming stable."""
ROLLED_BACK = "RolledBack"
"""The newest candidate was taken back; see rejectedRevisions."""
DATA_HEALTHY = "DataHealthy"
"""The data meets its expectations; `Unknown` while nothing was counted."""
DRIFTED = "Drifted"
"""Abnormal-true: the data has moved away from the reference; see status.drift."""

RETRAINING_REQUESTED = "RetrainingRequested"
"""A RetrainingRequest is in flight."""
RETRAIN_INEFFECTIVE = "RetrainIneffective"
"""So many retrainings in a row did not help that triggers ask no more."""


MODEL_RESOLVED = "ModelResolved"
"""The model registry was asked what mlflow:// names; False while it is away or knows nothing."""


class Condition(ApiModel):
    """One observed fact about the object, with the reason for it and since when it holds."""

    type: Annotated[str, Field(max_length=316)]
    """What the condition is about, such as Ready, Reconciling or Stalled."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds: True, False or Unknown."""
    reason: Annotated[str, Field(min_length=1, max_length=1024)]
    """One word in CamelCase for programs that says why."""
    message: StatusMessage
    """A sentence for people that says why, and what to do when something is wrong."""
    last_transition_time: Timestamp
    """When status last changed."""
    observed_generation: Annotated[StrictInt, Field(ge=0)] | None = None
    """The metadata.generation that this condition was derived from."""
