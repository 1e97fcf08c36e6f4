"""Two canaries: a good model promoted on evidence, a bad one rolled back by itself.

The example auto-rollback with steps of seconds. The evidence is what the routers counted, read from
Prometheus; the requests are counted here once more, by those who sent them.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from mooring_dev.demo_client import StreamResult, service_url
from mooring_dev.demo_model import condition, is_true, read_manifests
from mooring_dev.demo_setup import NAMESPACE, Story
from mooring_dev.demo_store import BUCKET, example, example_file, expected
from mooring_dev.errors import DevError

STEPS = [{"weight": 20, "duration": "6s"}, {"weight": 50, "duration": "6s"}]
#: Seconds between an answer and the next request, in each of two streams.
_PAUSE = 0.01
#: Requests of the candidate that have been judged when its numbers are shown.
_SHOWN_AT = 20
_PATIENCE = 240.0
_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Tally:
    """What became of the requests about one kind of payment.

    ``versions``: how many answers are those of each version of the model; v2 and v3 answer alike.
    """

    sent: int
    failed: int
    failures: tuple[str, ...]
    versions: Mapping[str, int]


class Customers:
    """They pay near home and far away for as long as a block runs; both are counted after it."""

    def __init__(self, told: Story) -> None:
        payments = example().PAYMENTS
        self._near = payments[:1]
        self._far = payments[2:]
        self._near_stream, self._far_stream = (
            told.client.stream(
                service_url("fraud", NAMESPACE), example().request(asked), pause=_PAUSE
            )
            for asked in (self._near, self._far)
        )
        self._running = ExitStack()

    def __enter__(self) -> Self:
        """Begin, and return when both have a first answer."""
        with ExitStack() as begun:
            begun.enter_context(self._near_stream)
            begun.enter_context(self._far_stream)
            self._running = begun.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End both."""
        self._running.__exit__(kind, error, trace)

    @property
    def near(self) -> Tally:
        """Payments near home."""
        return tally(self._near_stream.result, self._near)

    @property
    def far(self) -> Tally:
        """Payments from farther away than v3's table goes."""
        return tally(self._far_stream.result, self._far)


def tally(result: StreamResult, payments: Sequence[Sequence[float]]) -> Tally:
    """Counts of a stream about ``payments``, by the version that answered."""
    versions: Counter[str] = Counter()
    for answer, count in result.answers.items():
        versions[version_of(answer, payments)] += count
    return Tally(result.sent, result.failed, result.failures, versions)


def version_of(answer: str, payments: Sequence[Sequence[float]]) -> str:
    """Which version of the example gave this answer (the outputs' data, as JSON) to ``payments``.

    Raises:
        DevError: none does.
    """
    given = json.loads(answer)[0]
    for version in example().WEIGHTS:
        wanted = expected(version, payments)
        if all(abs(got - want) < _TOLERANCE for got, want in zip(given, wanted, strict=True)):
            return str(version)
    raise DevError(f"No version of the model answers {answer}: that is a bug.")


def first_model(told: Story) -> None:
    """The model that serves; its spec says how another takes over, and by what it is judged."""
    path = example_file("auto-rollback", "modeldeployment.yaml")
    manifest = read_manifests(path)[0]
    # Minutes in the example, seconds here: nobody wants to watch an hour.
    manifest["spec"]["rollout"] = {"steps": STEPS, "progressDeadline": "2m"}
    manifest["spec"]["model"]["uri"] = told.uris["v1"]
    told.timeline.shell(f"cat {path.relative_to(path.parents[2])}", path.read_text())
    shown = ", ".join(f"{step['weight']} % for {step['duration']}" for step in STEPS)
    told.timeline.say(f"(here with shorter steps: {shown}, then all, without a bake)")
    fraud = told.model("fraud")
    begin = time.monotonic()
    fraud.apply(manifest)
    told.show("wait", "--for=condition=Ready", "mdep/fraud", "--timeout=120s")
    status = fraud.wait_serving(told.uris["v1"])
    told.timeline.good(f"Ready {time.monotonic() - begin:.1f} s after it was applied:")
    told.timeline.quote(status["message"])
    told.timeline.say("The first pod fixed what the URI stands for; every later one must match:")
    told.timeline.quote(status["stable"]["modelDigest"])


def good_model(told: Story, *, meanwhile: Callable[[Story], None]) -> None:
    """v2 goes through the steps to the end, and no request fails.

    ``meanwhile`` is called once it has its first share of the traffic.
    """
    fraud = told.model("fraud")
    with Customers(told) as customers:
        begin = time.monotonic()
        _change_model(told, told.uris["v2"])
        v2 = told.uris["v2"]
        fraud.wait("its share of the traffic", _or_serves(v2, _has_traffic), seconds=_PATIENCE)
        meanwhile(told)
        fraud.wait("evidence", _or_serves(v2, _judged), seconds=_PATIENCE)
        told.plugin("get", "fraud")
        status = fraud.wait_serving(told.uris["v2"], seconds=_PATIENCE)
        took = time.monotonic() - begin
    analysis = status["analysis"]
    if analysis["verdict"] != "Pass":
        raise DevError(f"Promoted, and the verdict is {analysis['verdict']}: that is a bug.")
    told.timeline.good(f"Promoted after {took:.0f} s, on evidence:")
    told.timeline.quote(
        "; ".join(f"{m['name']} {m['verdict']}: {m['reason']}" for m in analysis["metrics"])
    )
    answers = _none_failed(customers)
    split = ", ".join(f"{answers[version]:,} by {version}" for version in sorted(answers))
    told.timeline.good(f"{answers.total():,} requests meanwhile, none failed: {split}.")


def bad_model(told: Story) -> None:
    """v3 fails for payments from far away; it gets its first share and loses it again."""
    uri = told.store.put(BUCKET, "fraud/v3/model.onnx", example().build("v3"))
    fraud = told.model("fraud")
    stable = fraud.status()["stable"]["revision"]
    told.timeline.say(f"v3 looks distances up in a table that ends at {example().ZONES * 100} km.")
    with Customers(told) as customers:
        begin = time.monotonic()
        _change_model(told, uri)
        fraud.wait("its share of the traffic", _has_traffic, seconds=_PATIENCE)
        began = time.monotonic()
        told.timeline.say(f"it has {STEPS[0]['weight']} % of the requests")
        status = fraud.wait("the rollback", _taken_back, seconds=_PATIENCE)
        ended = time.monotonic()
    if status["stable"]["revision"] != stable:
        raise DevError("Another revision is stable: that is a bug.")
    told.timeline.good(
        f"Back at 0 %, {ended - began:.0f} s after it first got traffic "
        f"({ended - begin:.0f} s after it was applied):"
    )
    told.timeline.quote(condition(status, "RolledBack")["message"])
    near, far = customers.near, customers.far
    if near.failed or not far.failed:
        shown = "\n".join(near.failures) or "none of those from far away"
        raise DevError(f"Other requests failed than those that v3 cannot answer:\n{shown}")
    told.timeline.say(
        f"Of {near.sent + far.sent:,} requests meanwhile {far.failed:,} failed, all about payments "
        "from far away."
    )
    with Customers(told) as customers:
        told.plugin("explain", "fraud")
        told.timeline.say("The good model again, as Git would have it after a revert:")
        _change_model(told, told.uris["v2"])
        fraud.wait_ready()
    answers = _none_failed(customers)
    told.timeline.good(f"{answers.total():,} requests since the rollback, none failed.")


def _none_failed(customers: Customers) -> Counter[str]:
    """Answers by version; raises DevError where a request failed."""
    near, far = customers.near, customers.far
    if near.failed or far.failed:
        sent, shown = near.sent + far.sent, "\n".join((*near.failures, *far.failures))
        raise DevError(f"{near.failed + far.failed} of {sent} requests failed:\n{shown}")
    return Counter(near.versions) + Counter(far.versions)


def _change_model(told: Story, uri: str) -> None:
    """Let fraud be the model at ``uri``, as a person would."""
    change = json.dumps({"spec": {"model": {"uri": uri}}}, separators=(",", ":"))
    told.show("patch", "mdep", "fraud", "--type=merge", "-p", change)


def _or_serves(
    uri: str, moment: Callable[[dict[str, Any]], bool]
) -> Callable[[dict[str, Any]], bool]:
    """Whether a moment of the rollout of ``uri`` has come, or was over before anybody looked."""
    return lambda status: moment(status) or status["stable"].get("modelUri") == uri


def _has_traffic(status: dict[str, Any]) -> bool:
    # On a machine that is busy enough it may be gone before anybody looks.
    return bool(status.get("candidate", {}).get("weight")) or _taken_back(status)


def _judged(status: dict[str, Any]) -> bool:
    found = status.get("analysis", {}).get("metrics") or [{}]
    return "candidate" in status and found[0].get("samples", 0) >= _SHOWN_AT


def _taken_back(status: dict[str, Any]) -> bool:
    """Rolled back, and every router knows."""
    router = status.get("router", {})
    told = status["stable"].get("weight") == 100 and router.get("version") == router.get("taken")
    return told and is_true(status, "RolledBack")
