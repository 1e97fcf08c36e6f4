"""What of ``spec.monitoring`` and ``spec.retraining`` could not be carried out.

The operator would say it in a condition, or nobody would ever ask; it is found here as it is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mooring.cli.lint_query import REVISION, namespace_of

if TYPE_CHECKING:
    from mooring.api.modeldeployment import ModelDeployment
    from mooring.api.retraining_spec import RetrainingTrigger


def data_problems(resource: ModelDeployment) -> Iterator[tuple[str, str]]:
    """The path of each field that nothing could come of, and why."""
    from mooring.core.drift import patterns

    spec = resource.spec
    if spec.monitoring is not None:
        if spec.traffic.router != "envoy":
            yield (
                "spec.monitoring",
                f"router {spec.traffic.router} copies no requests: use traffic.router envoy",
            )
        for index, feature in enumerate(spec.monitoring.features or ()):
            problem = patterns.problem(feature.pattern or "", built=True)
            if problem:
                at = f"spec.monitoring.features[{index}].pattern"
                yield at, f"no regular expression of RE2: {problem}"
    for index, trigger in enumerate(spec.retraining.triggers or () if spec.retraining else ()):
        found = _of_trigger(resource, trigger)
        if found is not None:
            name, message = found
            yield f"spec.retraining.triggers[{index}].{name}", message


def _of_trigger(resource: ModelDeployment, trigger: RetrainingTrigger) -> tuple[str, str] | None:
    """The field of a trigger that would never ask, and why."""
    from mooring.core.retrain.measuring import KNOWN
    from mooring.core.retrain.schedule import parse_schedule

    watched = resource.spec.monitoring is not None
    if trigger.drift is not None and not watched:
        return "drift", "nobody looks for drift: set spec.monitoring"
    if trigger.performance is not None:
        if not watched:
            return "performance", "nobody counts predictions: set spec.monitoring"
        if trigger.performance.metric not in KNOWN:
            return "performance.metric", f"there is no such metric: use one of {', '.join(KNOWN)}"
    if trigger.schedule is not None:
        try:
            parse_schedule(trigger.schedule)
        except ValueError as error:
            return "schedule", str(error)
    if trigger.new_data is not None:
        return _of_query(resource, trigger.new_data.query)
    return None


def _of_query(resource: ModelDeployment, query: str) -> tuple[str, str] | None:
    from datetime import timedelta

    from mooring.core.promql import Bound, prepare
    from mooring.core.promql_tokens import BadQuery

    namespace, name = namespace_of(resource), resource.metadata.name
    try:
        prepare(query, Bound(namespace, name, REVISION, timedelta(minutes=5)))
    except (BadQuery, ValueError) as error:
        return "newData.query", str(error)
    return None
