"""What Prometheus answered, read strictly: samples, or the one reason why there are none.

The HTTP API wraps every result in ``{"status", "data": {"resultType", "result"}, "warnings"}``.
Most clients look at ``result`` alone. Here everything that could make a number wrong is looked at:
the status, the warnings (a partial answer carries one), the type, the timestamps, values that are
not finite, several series where one is expected. What is wrong becomes a :class:`NoAnswer` with one
sentence for people. It never holds a body or a header of the answer; Prometheus' own words about a
query (its field ``error``) are cut to one short line.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple

_WORDS_LIMIT: Final = 300
_NOTES_LIMIT: Final = 5
_PIECE: Final = 256 * 1024
_RESULT: Final = b'"result":['
_SERIES: Final = b',{"metric":'
#: Seconds. Clocks that differ by ten minutes are none of our business.
_OF_ANOTHER_TIME: Final = 900.0
_NUMBERS: Final = (float, int)  # and not bool, which is one of its kind
_UNPRINTABLE: Final = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


class Reason(StrEnum):
    """Why there is no answer; also the label of the operator's own metrics."""

    REFUSED = "refused"
    """Nobody listens, the name does not resolve, or the connection broke."""
    TLS = "tls"
    """The certificate is not one of the configured authority, or the handshake failed."""
    TIMEOUT = "timeout"
    """Not answered in full by the deadline."""
    BUSY = "busy"
    """All threads still wait for earlier questions."""
    HTTP = "http"
    """Another HTTP status than 200, without an explanation from Prometheus."""
    DENIED = "denied"
    """401 or 403."""
    REDIRECTED = "redirected"
    """3xx; redirects are never followed."""
    CREDENTIALS = "credentials"
    """A mounted file with credentials cannot be used."""
    TOO_LARGE = "too-large"
    """The body exceeds the limit."""
    NOT_JSON = "not-json"
    """HTML, a truncated body, or anything else that is not the API's JSON."""
    QUERY = "query"
    """Prometheus says status: error; its words follow."""
    INCOMPLETE = "incomplete"
    """It came with warnings where a complete answer is needed."""
    SHAPE = "shape"
    """Of another type than expected, or of several series where one is needed."""
    EMPTY = "empty"
    """No series at all."""
    NOT_FINITE = "not-finite"
    """NaN or infinite."""
    STALE = "stale"
    """Not newer than the last answer."""
    INTERNAL = "internal"
    """A defect of the operator; its log has more."""


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """There is nothing to judge by. ``message`` is one sentence that says what to do."""

    reason: Reason
    message: str


_ODD: Final = NoAnswer(
    Reason.SHAPE,
    "The result is not of numbers at one moment (native histograms are not: wrap them in "
    "histogram_quantile or another function that gives a number).",
)


class Sample(NamedTuple):
    """One series at one moment. A tuple, since there are tens of thousands of them per tick.

    ``at``: seconds on Prometheus' clock: of evaluation, not of the scrape.
    """

    labels: Mapping[str, str]
    at: float
    value: float


@dataclass(frozen=True, slots=True)
class Keyed:
    """A large vector whose series have one label: its value to the number.

    One dictionary of texts and numbers, since a hundred thousand small objects keep the garbage
    collector busy for longer than it takes to read them.
    """

    values: Mapping[str, float]
    evaluated_at: float | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of an instant query, a vector or a scalar.

    ``samples``: values may be NaN or infinite here; whoever uses one must look. ``evaluated_at``:
    when Prometheus evaluated it, on its clock; None when the result is empty. ``asked_at`` and
    ``answered_at``: the operator's clock, so that the two can be compared. ``warnings`` and
    ``infos``: Prometheus' own, shortened.
    """

    samples: tuple[Sample, ...]
    evaluated_at: float | None
    warnings: tuple[str, ...] = ()
    infos: tuple[str, ...] = ()
    asked_at: float = 0.0
    answered_at: float = 0.0

    @property
    def clock_ahead(self) -> float | None:
        """Seconds by which Prometheus' clock is ahead of ours, give or take the time it took."""
        if self.evaluated_at is None:
            return None
        return self.evaluated_at - (self.asked_at + self.answered_at) / 2


def words(text: object) -> str:
    """Foreign text as one short printable line."""
    line = _UNPRINTABLE.sub(" ", str(text)).strip()
    return line if len(line) <= _WORDS_LIMIT else line[: _WORDS_LIMIT - 1] + "…"


def parse_body(body: bytes, piece: int = _PIECE) -> object:
    """JSON from bytes, ``piece`` of them at a time. Raises ValueError or RecursionError."""
    series: list[object] = []
    whole = _in_pieces(body, piece, series.extend)
    if whole is None:
        return json.loads(body)
    whole["data"]["result"] = series
    return whole


def _in_pieces(body: bytes, piece: int, take: Callable[[list[Any]], object]) -> Any:
    """Hands a large result to ``take`` part by part, and gives the rest; None for any other body.

    One call of the parser holds the interpreter for all of its input, and with it the event loop,
    for 100 ms from about 5 MB on. The parts end where a series begins. That text cannot stand
    inside a string, where its quotes would be escaped. After None what was taken is void.
    """
    opening = body.find(_RESULT, 0, _PIECE)
    if len(body) <= 2 * piece or opening < 0:
        return None
    start = opening + len(_RESULT)
    head = body[: start - 1].decode()
    while (end := body.find(_SERIES, start + piece)) >= 0:
        take(json.loads(b"[" + body[start:end] + b"]"))
        start = end + 1
    rest = (b"[" + body[start:]).decode()
    last, end = json.JSONDecoder().raw_decode(rest)
    take(last)
    whole = json.loads(head + "[]" + rest[end:])
    data = whole.get("data") if isinstance(whole, dict) else None
    return whole if isinstance(data, dict) and data.get("result") == [] else None


def read_keyed(body: bytes, label: str, piece: int = _PIECE) -> Keyed | NoAnswer:
    """A vector whose series are told apart by ``label`` alone. Raises ValueError for no JSON."""
    values: dict[str, float] = {}
    moments: set[float] = set()

    def take(result: list[Any]) -> None:
        for series in result:
            pair = series["value"]
            if len(pair) != 2:
                raise TypeError("a time and a value")
            at, value = pair
            if type(value) is not str or type(at) not in _NUMBERS:
                raise TypeError("a time and a value as text")
            values[series["metric"][label]] = _number(value)
            moments.add(at)

    try:
        whole = _in_pieces(body, piece, take)
        if whole is None:
            values.clear()
            moments.clear()
            whole = json.loads(body)
            checked = read_envelope(_without_series(whole))
            if isinstance(checked, NoAnswer):
                return checked
            take(whole["data"]["result"])
        if not all(map(math.isfinite, moments)):
            return _ODD
    except (KeyError, TypeError, OverflowError):  # a time of a thousand digits
        return _ODD
    found = read_envelope(_without_series(whole))
    if isinstance(found, NoAnswer):
        return found
    return Keyed(values, max(moments, default=None), found.warnings)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise TypeError("a value is a number") from None


def _without_series(body: object) -> object:
    data = body.get("data") if isinstance(body, dict) else None
    if (
        not isinstance(body, dict)
        or not isinstance(data, dict)
        or data.get("resultType") != "vector"
    ):
        return body
    return {**body, "data": {**data, "result": []}}


def read_envelope(
    body: object, *, asked_at: float = 0.0, answered_at: float = 0.0
) -> Answer | NoAnswer:
    """Reads the parsed body of ``/api/v1/query``."""
    if not isinstance(body, dict) or body.get("status") not in ("success", "error"):
        return NoAnswer(
            Reason.NOT_JSON,
            "The answer is JSON, but not of the Prometheus API (no status): is prometheus.url the "
            "address of the API, without /api/v1?",
        )
    if body["status"] == "error":
        return query_error(body)
    data = body.get("data")
    kind = data.get("resultType") if isinstance(data, dict) else None
    if not isinstance(data, dict) or kind not in ("vector", "scalar"):
        shown = words(kind) if isinstance(kind, str) else "nothing known"
        return NoAnswer(
            Reason.SHAPE, f"The query gives a {shown} where numbers at one moment are needed."
        )
    try:
        samples = _samples(kind, data["result"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return _ODD
    return Answer(
        samples=samples,
        evaluated_at=max((sample.at for sample in samples), default=None),
        warnings=_partial(body) + _notes(body.get("warnings")),
        infos=_notes(body.get("infos")),
        asked_at=asked_at,
        answered_at=answered_at,
    )


def _partial(body: Mapping[str, Any]) -> tuple[str, ...]:
    """VictoriaMetrics' way of saying that some of its storage did not answer."""
    return ("some of the storage did not answer",) if body.get("isPartial") is True else ()


def query_error(body: Mapping[str, Any]) -> NoAnswer:
    """Prometheus' own refusal; also found in the bodies of 400, 422 and 503."""
    kind = body.get("errorType")
    said = words(body.get("error") or "no reason given")
    if kind in ("timeout", "canceled"):
        return NoAnswer(Reason.TIMEOUT, f"Prometheus gave up on the query: {said}")
    return NoAnswer(Reason.QUERY, f"Prometheus refuses the query: {said}")


def _samples(kind: str, result: Any) -> tuple[Sample, ...]:
    """Raises KeyError, TypeError or ValueError for what is not exactly as documented."""
    if not isinstance(result, list):
        raise TypeError("result is a list")
    if kind == "scalar":
        result = [{"metric": {}, "value": result}]
    found: list[Sample] = []
    keep = found.append
    for series in result:  # tens of thousands a tick: nothing is called that need not be
        labels = series["metric"]
        at, value = series["value"]
        if type(value) is not str or type(at) not in _NUMBERS or type(labels) is not dict:
            raise TypeError("labels, a time and a value as text")
        keep(Sample(labels, at, float(value)))
    if not all(map(math.isfinite, {sample.at for sample in found})):
        raise ValueError("a time is finite")
    return tuple(found)


def _notes(value: object) -> tuple[str, ...]:
    """Warnings or infos; anything in their place counts as one."""
    if not value:
        return ()
    found = value if isinstance(value, list) else [value]
    return tuple(words(note) for note in found[:_NOTES_LIMIT])


def incomplete(answer: Answer) -> NoAnswer | None:
    """Why an answer is not used where a whole one is needed; None when nothing was warned of."""
    if not answer.warnings:
        return None
    return NoAnswer(
        Reason.INCOMPLETE, f"Prometheus warns, so the number is not used: {answer.warnings[0]}"
    )


def single_value(
    answer: Answer | NoAnswer, after: float | None = None, now: float | None = None
) -> Sample | NoAnswer:
    """The one finite number of a free query.

    ``after``: when the last answer to the same query was evaluated, on Prometheus' clock. An answer
    that is not newer is a copy of it, from a cache or from a Prometheus whose clock stands.
    Prometheus' clock is compared with itself, so a clock that differs from ours does no harm.
    ``now``: by our own clock. It alone can tell that a first answer is of another time, so that one
    is not counted yet; clocks that differ by minutes do no harm here either.
    """
    if isinstance(answer, NoAnswer):
        return answer
    warned = incomplete(answer)
    if warned is not None:
        return warned
    if not answer.samples:
        return NoAnswer(
            Reason.EMPTY, "The query finds no series: nothing is measured under these labels."
        )
    if len(answer.samples) > 1:
        return NoAnswer(
            Reason.SHAPE,
            f"The query gives {len(answer.samples)} series or more, not one: aggregate them, with "
            "sum() for instance.",
        )
    sample = answer.samples[0]
    if not math.isfinite(sample.value):
        return NoAnswer(
            Reason.NOT_FINITE,
            f"The query gives {sample.value}: it divides by zero, perhaps for lack of requests.",
        )
    if after is None and now is not None and sample.at < now - _OF_ANOTHER_TIME:
        return NoAnswer(
            Reason.STALE,
            f"The first answer was evaluated {now - sample.at:.0f} s ago by the operator's clock: "
            "a cache answers, or one of the clocks is wrong. The next one that is newer counts.",
        )
    if after is not None and sample.at <= after:
        return NoAnswer(
            Reason.STALE,
            f"The answer is not newer than the last one (by {after - sample.at:.0f} s): a cache "
            "in front of Prometheus answers, or its clock stands.",
        )
    return sample
