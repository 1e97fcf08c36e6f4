"""What a model server itself tells about its answers: PromQL that the operator can group.

Declared per runtime, so that a rollout without a router can still be judged, and so that what
cannot be known from a server is known not to be known.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mooring.api.schema_types import ApiModel, Rule, matcher

SIGNAL_PLACEHOLDERS: tuple[str, ...] = ("selector", "by")
"""The names that may stand between `{{` and `}}` in a signal's query."""

_SELECTOR = r"\{\{\s*selector\s*\}\}"
_BY = r"\{\{\s*by\s*\}\}"
_ANY = r"\{\{[^{}]*\}\}"
# One brace before a placeholder is PromQL's own: metric{{{ selector }}}.
_ONLY_KNOWN = rf"^(\{{?({_SELECTOR}|{_BY})|[^{{]|\{{[^{{])*$"
_any_placeholder = matcher(_ANY)
_only_known = matcher(_ONLY_KNOWN)
_has_selector = matcher(_SELECTOR)
_has_by = matcher(_BY)

CounterQuery = Annotated[
    str,
    Field(max_length=1024),
    Rule(
        cel=f"!self.matches(r'{_ANY}') || self.matches(r'{_ONLY_KNOWN}')",
        message="has a placeholder that does not exist: use {{ selector }} and {{ by }}",
        check=lambda text: not _any_placeholder(text) or _only_known(text),
    ),
    Rule(
        cel=f"self.matches(r'{_SELECTOR}') && self.matches(r'{_BY}')",
        message=(
            "must have {{ selector }} between the braces of each metric and be grouped by "
            "{{ by }}, as in sum by ({{ by }}) (requests_total{{{ selector }}})"
        ),
        check=lambda text: _has_selector(text) and _has_by(text),
    ),
]
"""PromQL whose value is a count since the server started, one series per pod.

Never a rate: the operator takes the differences itself, so that restarts and windows are exact.
"""


class LatencySignal(ApiModel):
    """How long answers take: a mean from sum and count, quantiles from the buckets of a histogram.
    What is unset cannot be had from this server.
    """

    unit: Literal["seconds", "milliseconds", "microseconds"]
    """Unit of sum and of the label le: seconds, milliseconds or microseconds."""
    sum: CounterQuery | None = None
    """PromQL of the time spent on answers since the start, per pod; with count it gives a mean."""
    count: CounterQuery | None = None
    """PromQL of the answers counted in sum since the start, per pod."""
    buckets: CounterQuery | None = None
    """PromQL of the cumulative buckets of a histogram since the start, per pod and le; it gives
    quantiles."""

    rules = (
        Rule(
            cel="has(self.sum) == has(self.count)",
            message="a mean needs both sum and count: set the other one, too",
            check=lambda s: (s.sum is None) == (s.count is None),
        ),
        Rule(
            cel="has(self.sum) || has(self.count) || has(self.buckets)",
            message="set sum and count, or buckets, or leave latency out",
            check=lambda s: not (s.sum is None and s.count is None and s.buckets is None),
        ),
    )


class RuntimeSignals(ApiModel):
    """What the server exports about its own answers, as PromQL. What is unset cannot be had from
    it. Placeholders: {{ selector }} (the pods that are asked about) and {{ by }} (the labels to
    group by).
    """

    requests: CounterQuery | None = None
    """PromQL of the predictions asked for since the start, per pod, failed ones too.
    Example: sum by ({{ by }}) (requests_total{{{ selector }}})."""
    errors: CounterQuery | None = None
    """PromQL of those that failed by the server's or the model's fault since the start, per pod.
    Refusals of bad input are not among them where the server tells them apart."""
    latency: LatencySignal | None = None
    """How long answers take."""
    caveat: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """What these signals do not show, in a sentence for people.
    Example: Latency is of successful answers only."""

    rules = (
        Rule(
            cel="!has(self.errors) || has(self.requests)",
            message="errors need requests, or they have no rate: set requests",
            check=lambda s: s.errors is None or s.requests is not None,
        ),
    )
