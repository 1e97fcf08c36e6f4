"""How a new revision takes over from the stable one: steps, bake, surge and deadlines."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from mooring.api.schema_types import (
    ATOMIC,
    ApiModel,
    Duration,
    ListMap,
    PositiveDuration,
    Rule,
    StrictInt,
    matcher,
)
from mooring.api.traffic_spec import HeaderName

MAX_REPLICAS = 1000


class Pause(ApiModel):
    """Waits until somebody says promote; has no fields."""


class HeaderMatch(ApiModel):
    """Requests with this header and value go to the candidate."""

    header: HeaderName
    """Name of the header, in any case. Example: x-tester."""
    exact: Annotated[str, Field(max_length=1024)]
    """The value that it must have, in quotes. Example: "yes"."""


STEP_KINDS = ("weight", "mirror", "match", "pause", "replicas")


class RolloutStep(ApiModel):
    """One step of a rollout: exactly one of weight, mirror, match, pause and replicas."""

    weight: Annotated[StrictInt, Field(ge=1, le=100)] | None = None
    """Percent of the traffic that goes to the candidate, 1 to 100; rises from step to step. It
    holds until the next step with a weight."""
    mirror: Annotated[StrictInt, Field(ge=1, le=100)] | None = None
    """Percent of the requests of which the candidate gets a copy, during this step; its answers are
    dropped."""
    match: (
        Annotated[tuple[HeaderMatch, ...], Field(min_length=1, max_length=8), ListMap(("header",))]
        | None
    ) = None
    """Headers that send a request to the candidate during this step; all must match."""
    pause: Pause | None = None
    """Waits until somebody says promote; written as {}."""
    replicas: Annotated[StrictInt, Field(ge=1, le=MAX_REPLICAS)] | None = None
    """Number of candidate pods from this step on, without a change of traffic. Later steps may need
    more, and never get fewer."""
    duration: Duration | None = None
    """How long the step lasts once its traffic is taken, such as 10m or 1h30m; unset means that the
    next step follows at once. Not with pause."""

    rules = (
        Rule(
            cel="["
            + ", ".join(f"has(self.{kind})" for kind in STEP_KINDS)
            + "].filter(given, given).size() == 1",
            message=(
                "set exactly one of weight, mirror, match, pause and replicas: write the others "
                "as steps of their own"
            ),
            check=lambda s: sum(getattr(s, kind) is not None for kind in STEP_KINDS) == 1,
        ),
        Rule(
            cel="!has(self.pause) || !has(self.duration)",
            message=(
                "pause waits for promote and takes no duration: remove duration, or replace pause "
                "by a weight"
            ),
            check=lambda s: s.pause is None or s.duration is None,
        ),
    )


def _weights_rise(rollout: RolloutSpec) -> bool:
    weights = [step.weight for step in rollout.steps or () if step.weight is not None]
    return all(earlier < later for earlier, later in itertools.pairwise(weights))


class Bake(ApiModel):
    """The time after a promotion in which the previous revision stays ready to take over again."""

    duration: PositiveDuration
    """How long the previous revision's pods are kept after the promotion. Example: 30m."""
    previous_weight: Annotated[StrictInt, Field(ge=0, le=50)] = 5
    """Percent of the traffic that stays with the previous revision meanwhile, so that the two can
    still be compared; 0 to 50."""


MAX_SURGE_PATTERN = r"^[0-9]{1,3}%$"
_MAX_SURGE_MESSAGE = (
    "must be a number of pods such as 1, or a percentage of them such as 25%: 0 is for clusters "
    "without room for one more pod"
)
_is_percentage = matcher(MAX_SURGE_PATTERN)


def _surge_text(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value


def _is_surge(text: str) -> bool:
    if text.isascii() and text.isdigit():
        return int(text) <= MAX_REPLICAS
    return _is_percentage(text)


_MAX_SURGE_RULE = Rule(
    cel=(
        f"type(self) == int ? self >= 0 && self <= {MAX_REPLICAS} : "
        f"type(self) == string && self.matches(r'{MAX_SURGE_PATTERN}')"
    ),
    message=_MAX_SURGE_MESSAGE,
    check=_is_surge,
)

MaxSurge = Annotated[
    str,
    BeforeValidator(_surge_text),
    Field(max_length=8),
    _MAX_SURGE_RULE,
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "maxLength": 8,
            "x-kubernetes-validations": [_MAX_SURGE_RULE.schema()],
        }
    ),
]
"""A number of pods or a percentage, as text."""


class RolloutSpec(ApiModel):
    """How a new revision takes over from the stable one. A change here starts no rollout."""

    steps: (
        Annotated[tuple[RolloutStep, ...], Field(max_length=32, json_schema_extra=ATOMIC)] | None
    ) = None
    """The steps by which traffic moves to a new revision; unset means that it takes over once all
    its pods are ready. A rollout keeps the steps that it began with."""
    bake: Bake | None = None
    """Keeps the previous revision after a promotion, ready to take the traffic back at once; unset
    means that its pods go when the traffic has left them."""
    max_surge: MaxSurge | None = None
    """How many pods beyond spec.replicas a rollout may run: a number, or a percentage of them,
    rounded up. Unset means as many again (100%), so that the stable revision stays whole until the
    promotion. 0 replaces pod by pod, with one fewer serving meanwhile, for clusters without room
    for one more. Not below 100% together with autoscaling."""
    advance: Literal["OnTime", "OnPass"] = "OnTime"
    """When a step with a duration ends: OnTime, when that is over; OnPass, as soon as spec.analysis
    passes, and when it is over at the latest."""
    on_inconclusive: Literal["Hold", "Promote", "Rollback"] = "Hold"
    """When the last step is over and spec.analysis neither passes nor fails: Hold waits for
    evidence or a person, Promote takes over, Rollback gives up. Without fresh data, always Hold."""
    progress_deadline: PositiveDuration = "10m"
    """How long no further pod may become ready before the candidate is given up, such as 10m or
    1h. A model that takes long to load needs more."""
    revision_history_limit: Annotated[StrictInt, Field(ge=0, le=100)] = 10
    """How many old revisions are kept to go back to."""

    rules = (
        Rule(
            cel="!has(self.steps) || self.steps.size() > 0",
            message=(
                "steps is empty: remove steps to take over as soon as the new revision is ready, "
                "or give at least one step"
            ),
            check=lambda r: r.steps is None or len(r.steps) > 0,
            field=".steps",
        ),
        Rule(
            cel=(
                "!has(self.steps) || self.steps.filter(s, has(s.weight)).map(s, s.weight)"
                ".isSorted() && self.steps.filter(s, has(s.weight)).all(s, "
                "self.steps.exists_one(t, has(t.weight) && t.weight == s.weight))"
            ),
            message=(
                "weights must rise from step to step: put them in rising order, and make two steps "
                "of the same weight one with a longer duration"
            ),
            check=_weights_rise,
            field=".steps",
        ),
    )
