"""When a new model is asked for, who makes it, and what may come of it."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, Strict

from mooring.api.schema_types import (
    ATOMIC,
    ApiModel,
    Duration,
    Rule,
    StrictInt,
    matcher,
    pattern_rule,
)

_CRON_ITEM = r"(\*|[0-9]{1,2}(-[0-9]{1,2})?)(/[1-9][0-9]?)?"
SCHEDULE_PATTERN = rf"^{_CRON_ITEM}(,{_CRON_ITEM})*( {_CRON_ITEM}(,{_CRON_ITEM})*){{4}}$"
"""Five fields of cron. Numbers that a field does not have are found by whoever reads it."""

Schedule = Annotated[
    str,
    Field(max_length=100),
    pattern_rule(
        SCHEDULE_PATTERN,
        "must be five numeric fields of cron, one blank apart: minute, hour, day of month, month, "
        "day of week",
    ),
]

_PREFIX_PATTERN = (
    r"^((s3|gs|https|pvc)://[A-Za-z0-9][A-Za-z0-9.:_-]*"
    r"|(az|abfss?)://[$a-z0-9][a-z0-9-]*(@[a-z0-9.]+)?)/([^\s?#%\\]+/)?$"
)
_ODD_PATTERN = r"^[^:]*://[^/]*/(.*/)?\.{0,2}/"
_odd = matcher(_ODD_PATTERN)

Prefix = Annotated[
    str,
    Field(max_length=1024, description="A folder."),
    pattern_rule(
        _PREFIX_PATTERN,
        "must be a folder that ends with '/', such as s3://models/fraud/, without blanks, '?', "
        "'#', '%' and backslashes",
    ),
    Rule(
        cel=f"!self.matches(r'{_ODD_PATTERN}')",
        message="must not contain '//', '/./' or '/../' in its path",
        check=lambda prefix: not _odd(prefix),
    ),
]
"""A folder of a model store. That it ends with a slash keeps ``…/fraud`` from meaning
``…/fraud-2``."""


class DriftTrigger(ApiModel):
    """Asks when the data has drifted."""

    for_: Duration | None = Field(default=None, alias="for")
    """How long drift must have lasted. Example: 3h."""


MAE: Final = "mae"
RMSE: Final = "rmse"
ERRORS: Final = (MAE, RMSE)
"""Metrics of which less is better."""


class PerformanceTrigger(ApiModel):
    """Asks when the model does worse than it should."""

    metric: Annotated[str, Field(min_length=1, max_length=63)]
    """accuracy, precision, recall, auc, estimatedAccuracy, mae or rmse."""
    below: Annotated[float, Strict(), Field(allow_inf_nan=False)] | None = None
    """The least that is good enough. Example: 0.9."""
    above: Annotated[float, Strict(), Field(ge=0, allow_inf_nan=False)] | None = None
    """The largest mae or rmse that is good enough, in the output's unit."""

    rules = (
        Rule(
            cel="self.metric in ['mae', 'rmse'] ? has(self.above) && !has(self.below) : "
            "has(self.below) && !has(self.above)",
            message="mae and rmse are errors and need above; all other metrics need below",
            check=lambda t: (
                (t.above is not None, t.below is not None)
                == (t.metric in ERRORS, t.metric not in ERRORS)
            ),
        ),
    )


class NewDataTrigger(ApiModel):
    """Asks when there is enough data that the model has not seen."""

    query: Annotated[str, Field(min_length=1, max_length=2048)]
    """PromQL of one number; {{ window }} is the time since the last request or promotion.
    Example: sum(increase(rows_total[{{ window }}]))."""
    at_least: Annotated[StrictInt, Field(ge=1)]
    """The number to ask at. Example: 100000."""


class RetrainingTrigger(ApiModel):
    """Exactly one of drift, performance, schedule and newData."""

    drift: DriftTrigger | None = None
    """The data has drifted."""
    performance: PerformanceTrigger | None = None
    """The model does worse than it should."""
    schedule: Schedule | None = None
    """Cron in UTC; 0 is Sunday. Times missed are made up for once. Example: 0 3 * * 0."""
    new_data: NewDataTrigger | None = None
    """There is enough new data."""

    rules = (
        Rule(
            cel="[has(self.drift), has(self.performance), has(self.schedule), "
            "has(self.newData)].filter(x, x).size() == 1",
            message="set exactly one of drift, performance, schedule and newData",
            check=lambda t: (
                sum(x is not None for x in (t.drift, t.performance, t.schedule, t.new_data)) == 1
            ),
        ),
    )


class ActionRef(ApiModel):
    """Something by name."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Its name."""


class JobAction(ApiModel):
    """A Job trains."""

    template_ref: ActionRef
    """The PodTemplate (core/v1) in this namespace for the Job's pods."""


class NoAction(ApiModel):
    """A pipeline watches the requests; has no fields."""


class RetrainingAction(ApiModel):
    """Exactly one of job, sink and none."""

    job: JobAction | None = None
    """A Job trains."""
    sink: ActionRef | None = None
    """A CloudEvent to a sink that the operator's administrator has set up."""
    none: NoAction | None = None
    """A pipeline watches RetrainingRequests; written as {}."""

    rules = (
        Rule(
            cel="[has(self.job), has(self.sink), has(self.none)].filter(x, x).size() == 1",
            message="set exactly one of job, sink and none",
            check=lambda a: sum(x is not None for x in (a.job, a.sink, a.none)) == 1,
        ),
    )


class RetrainingBudget(ApiModel):
    """How much retraining there may be."""

    per_month: Annotated[StrictInt, Field(ge=0, le=100)] = 4
    """Requests by triggers in a calendar month (UTC)."""
    max_in_flight: Annotated[StrictInt, Field(ge=1, le=10)] = 1
    """Unfinished requests."""
    max_ineffective: Annotated[StrictInt, Field(ge=1, le=100)] = 3
    """Retrainings in a row that did not help, after which triggers ask no more."""


class RetrainingSpec(ApiModel):
    """When a new model is asked for, who makes it, and what may come of it."""

    triggers: (
        Annotated[tuple[RetrainingTrigger, ...], Field(max_length=8, json_schema_extra=ATOMIC)]
        | None
    ) = None
    """Reasons to ask; unset: only a person does."""
    action: RetrainingAction
    """Who trains."""
    min_data_window: Duration = "168h"
    """The least span of data to train on: a season, such as a week."""
    allowed_prefixes: (
        Annotated[tuple[Prefix, ...], Field(max_length=16, json_schema_extra=ATOMIC)] | None
    ) = None
    """Where a new model may come from; unset: the folder that spec.model.uri is in."""
    cooldown: Duration = "24h"
    """The least time between requests by triggers."""
    deadline: Duration = "24h"
    """When a request without a result has failed."""
    history_limit: Annotated[StrictInt, Field(ge=0, le=100)] = 10
    """Finished requests that are kept."""
    budget: RetrainingBudget = Field(
        default_factory=RetrainingBudget, json_schema_extra={"default": {}}
    )
    """How much retraining there may be."""
    on_success: Literal["Rollout", "None"] = "Rollout"
    """Rollout sends a new model through the steps, spec untouched, until spec.model changes; None
    leaves that to people."""
