"""Each oracle finds the breach that it is there for, and says nothing about a good history."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
from tests.apiserver.cluster import Api
from tests.faults.history import Happening, History
from tests.faults.measuring import Measuring
from tests.faults.oracles import births_and_deaths, judge
from tests.faults.proxy import Proxy
from tests.faults.routers import FakeRouters
from tests.faults.runs import differences

from mooring.core import kinds

OLD, NEW = "bcdf", "ghjk"
SESSION = cast(aiohttp.ClientSession, None)  # nothing is asked here


class Story:
    """A history, told by hand."""

    def __init__(self) -> None:
        self.happenings: list[Happening] = []

    def tell(self, kind: str, name: str, change: str = "MODIFIED", **obj: Any) -> Story:
        version = len(self.happenings) + 1
        labels = {kinds.LABEL_DEPLOYMENT: "fraud", **obj.pop("labels", {})}
        meta = {"name": name, "labels": labels, "annotations": obj.pop("annotations", {})}
        managed = obj.pop("managedFields", [])
        meta |= {"generation": 1, "managedFields": managed}
        self.happenings.append(Happening(version, change, kind, {"metadata": meta, **obj}))
        return self

    def asks(self, replicas: int = 4, **more: Any) -> Story:
        return self.tell("ModelDeployment", "fraud", spec={"replicas": replicas}, **more)

    def pods(self, revision: str, asked: int, available: int, change: str = "MODIFIED") -> Story:
        return self.tell(
            "Deployment", f"fraud-{revision}", change, labels={kinds.LABEL_REVISION: revision},
            spec={"replicas": asked}, status={"availableReplicas": available},
        )  # fmt: skip

    def routes(self, **weights: int) -> Story:
        backends = [{"revision": r, "host": "h", "ports": []} for r in (OLD, NEW)]
        table = json.dumps({"route": {"weights": weights}, "backends": backends})
        annotations = {kinds.ANNOTATION_TABLE: table, kinds.ANNOTATION_VERSION: "v"}
        return self.tell("ConfigMap", "fraud-router", annotations=annotations)

    def record(self, revision: str, **annotations: str) -> Story:
        named = {f"{kinds.GROUP}/{key}": value for key, value in annotations.items()}
        labels = {kinds.LABEL_REVISION: revision}
        return self.tell(
            "ControllerRevision", f"fraud-{revision}", labels=labels, annotations=named
        )

    def sends(self, **weights: int) -> Story:
        """By an HTTPRoute."""
        refs = [{"name": f"fraud-{r}-gateway", "weight": w} for r, w in weights.items()]
        return self.tell("HTTPRoute", "fraud", spec={"rules": [{"backendRefs": refs}]})

    def judged(
        self, revision: str, verdict: str, at: str = "2026-01-01T00:00:00Z", **more: str
    ) -> Story:
        """A canary with an analysis, and what status says of it; ``more``: of further metrics."""
        verdicts = {"score": verdict, **more}
        metrics = [{"name": name, "verdict": one} for name, one in verdicts.items()]
        found = {"revision": revision, "verdict": verdict, "metrics": metrics, "observedAt": at}
        self.record(OLD, **{"promotion": "1", "promoted-at": "2026-01-01T00:00:00Z"})
        self.pods(OLD, 4, 4)
        spec = {"replicas": 4, "analysis": {"metrics": [{"name": name} for name in verdicts]}}
        return self.tell("ModelDeployment", "fraud", spec=spec, status={"analysis": found})

    def promotes(self, revision: str, at: str = "2026-01-01T00:00:02Z") -> Story:
        return self.record(revision, **{"promotion": "2", "promoted-at": at})

    def ready(self, revision: str, ready: int, desired: int, **condition: Any) -> Story:
        status = {
            "stable": {"revision": revision, "replicas": {"ready": ready, "desired": desired}},
            "conditions": [{"type": "Ready", "status": "True", **condition}],
        }
        return self.asks(status=status)

    @property
    def breaches(self) -> list[str]:
        return judge(self.happenings)


def _canary() -> Story:
    return Story().asks().pods(OLD, 4, 4).routes(bcdf=100).pods(NEW, 1, 1).routes(bcdf=80, ghjk=20)


def test_a_good_canary_breaks_nothing() -> None:
    told = _canary().ready(OLD, 4, 4, observedGeneration=1).pods(NEW, 4, 4).routes(ghjk=100)
    assert told.pods(OLD, 0, 0, "DELETED").breaches == []


BAD: dict[str, tuple[str, Callable[[], Story]]] = {
    "weights of 90": ("I3: weights sum to 90", lambda: _canary().routes(bcdf=70, ghjk=20)),
    "weight on nothing": (
        "I3: 30 % for ghjk",
        lambda: _canary().pods(NEW, 1, 0).routes(bcdf=70, ghjk=30),
    ),
    "stable cut before its traffic": ("I3: 1 of 4 pods", lambda: _canary().pods(OLD, 1, 4)),
    "stable removed before its traffic": (
        "I3: 0 of 4 pods",
        lambda: _canary().pods(OLD, 4, 4, "DELETED"),
    ),
    "without routers, too": (
        "I3: 2 available pods are left of 4",
        lambda: Story().asks().pods(OLD, 4, 4).pods(NEW, 4, 0).pods(OLD, 2, 4),
    ),
    "more traffic after a rejection": (
        "I4: ghjk is rejected, and its weight rises from 20 to 30",
        lambda: _canary().record(NEW, rejected="{}").routes(bcdf=70, ghjk=30),
    ),
    "more pods after a rejection": (
        "I4: ghjk is rejected, and its pods rise from 1 to 2",
        lambda: _canary().record(NEW, rejected="{}").pods(NEW, 2, 1),
    ),
    "more traffic after a rejection behind a Gateway": (
        "I4: ghjk is rejected, and its weight rises from 20 to 30",
        lambda: (
            Story()
            .asks()
            .pods(OLD, 4, 4)
            .pods(NEW, 1, 1)
            .sends(bcdf=80, ghjk=20)
            .record(NEW, rejected="{}")
            .sends(bcdf=70, ghjk=30)
        ),
    ),
    "a table that nobody can read": (
        "I3: the routers' table cannot be read",
        lambda: _canary().tell("ConfigMap", "fraud-router", annotations={}),
    ),
    "ready of nothing": (
        "I7: Ready=True without",
        lambda: _canary().ready(OLD, 4, 4),
    ),
    "ready of the future": (
        "I7: Ready=True of a generation that is not there yet",
        lambda: _canary().ready(OLD, 4, 4, observedGeneration=2),
    ),
    "ready with too few": (
        "I7: Ready=True with {'ready': 3",
        lambda: _canary().ready(OLD, 3, 4, observedGeneration=1),
    ),
    "ready with pods that are not": (
        "I7: Ready=True with 4 pods, and the API server knows of 2",
        lambda: _canary().pods(OLD, 4, 2).ready(OLD, 4, 4, observedGeneration=1),
    ),
    "a spec that we wrote": (
        "I10: spec was written by mooring",
        lambda: Story().asks(managedFields=[{"manager": "mooring", "fieldsV1": {"f:spec": {}}}]),
    ),
    "weight on nothing behind a Gateway": (
        "I3: 30 % for ghjk",
        lambda: Story().asks().pods(OLD, 4, 4).sends(bcdf=100).sends(bcdf=70, ghjk=30),
    ),
    "weights of 90 behind a Gateway": (
        "I3: weights sum to 90",
        lambda: Story().asks().pods(OLD, 4, 4).sends(bcdf=90),
    ),
    "promoted without a Pass": (
        "I5: ghjk was promoted on Inconclusive",
        lambda: Story().judged(NEW, "Inconclusive").promotes(NEW),
    ),
    "promoted on what was said of another": (
        "I5: ghjk was promoted on Pass of bcdf",
        lambda: Story().judged(OLD, "Pass").promotes(NEW),
    ),
    "promoted though nothing is known of one metric": (
        "I5: ghjk was promoted on {'score': 'Pass', 'latency': 'Inconclusive'}",
        lambda: Story().judged(NEW, "Pass", latency="Inconclusive").promotes(NEW),
    ),
    "promoted on old evidence": (
        "I5: ghjk was promoted on evidence of 3600 s ago",
        lambda: Story().judged(NEW, "Pass").promotes(NEW, "2026-01-01T01:00:00Z"),
    ),
    "a second request": (
        "I6: 2 requests",
        lambda: (
            Story()
            .tell("RetrainingRequest", "a", "ADDED", spec={"idempotencyKey": "k"})
            .tell("RetrainingRequest", "b", "ADDED", spec={"idempotencyKey": "k"})
        ),
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_breach_is_found(name: str) -> None:
    words, told = BAD[name]
    (breach,) = told().breaches
    assert breach.startswith(words)


def test_a_promotion_on_fresh_evidence_that_passed_breaks_nothing() -> None:
    assert Story().judged(NEW, "Pass").promotes(NEW).breaches == []


def test_a_revision_that_may_try_again_may_have_more() -> None:
    told = _canary().record(NEW, rejected="{}").record(NEW).routes(bcdf=70, ghjk=30)
    assert told.breaches == []


def test_what_is_deleted_needs_no_pods() -> None:
    gone = _canary().tell("ModelDeployment", "fraud", "DELETED", spec={})
    assert gone.pods(OLD, 4, 4, "DELETED").breaches == []


def test_births_and_deaths_are_counted_by_object() -> None:
    told = Story().pods(OLD, 1, 1, "ADDED").pods(OLD, 2, 1).pods(OLD, 2, 1, "DELETED")
    births, deaths = births_and_deaths(told.pods(OLD, 1, 0, "ADDED").happenings)
    assert births == {f"Deployment fraud-{OLD}": 2}
    assert deaths == {f"Deployment fraud-{OLD}": 1}


def test_a_history_that_is_kept_is_judged_alike(tmp_path: Path) -> None:
    told = _canary().routes(bcdf=70, ghjk=20)
    # Several watches tell in no order.
    History(list(reversed(told.happenings))).save(tmp_path / "kept.jsonl")
    with (tmp_path / "kept.jsonl").open() as lines:
        assert judge(History.load(lines).in_order()) == told.breaches


@pytest.mark.parametrize(("answers", "breaches"), [(2, 1), (3, 0)])
def test_a_promotion_on_fewer_good_answers_than_it_takes_is_found(
    answers: int, breaches: int
) -> None:
    """I5, by what Prometheus has really said, whatever status tells."""
    measuring = Measuring(Proxy(SESSION, ""), lambda revision: True)
    measuring.good[NEW] = answers
    told = Story().judged(NEW, "Pass").promotes(NEW)
    found = list(measuring.breaches(told.happenings))
    assert found == [f"I5: {NEW} was promoted after 2 good answers"] * breaches


@pytest.mark.parametrize(("available", "breaches"), [(0, 1), (1, 0)])
def test_a_router_that_sends_to_a_revision_without_a_pod_is_found(
    available: int, breaches: int
) -> None:
    """I3, by what routers have taken, which may be later than what they were told."""
    routers = FakeRouters(
        Api(SESSION, "", Path()), "n", known={OLD: 4, NEW: available}, served=True
    )
    routers._take({"metadata": {"name": "r"}}, {OLD: 80, NEW: 20}, "v1")
    said = f"I3: r sends 20 % to {NEW}, which has no available pod"
    assert routers.breaches == [said] * breaches


def test_another_end_another_birth_and_another_value_are_found_down_to_what_differs() -> None:
    """I1 and I2."""
    end = {"Service fraud": {"spec": {"port": 80}, "labels": None}, "status": {"phase": "Ready"}}
    assert differences("I1", end, json.loads(json.dumps(end))) == []
    other = {"Service fraud": {"spec": {"port": 81}, "labels": None}}
    assert differences("I1", end, other) == [
        "I1 at /Service fraud/spec/port: 80 became 81",
        "I1 at /status: {'phase': 'Ready'} became None",
    ]
    assert differences("I2", {"Service fraud": 1}, {"Service fraud": 2, "Pod a": 1}) == [
        "I2 at /Pod a: None became 1",
        "I2 at /Service fraud: 1 became 2",
    ]


def test_a_proxy_counts_the_writes_that_come_by_and_no_reads_or_events() -> None:
    proxy = Proxy(SESSION, "")
    for verb, target in (
        ("list", "Service"), ("watch", "Service"), ("get", "Pod a"), ("query", "Prometheus x"),
        ("create", "Event"), ("patch", "Event fraud.1"),
    ):  # fmt: skip
        proxy.count(verb, target)
    assert proxy.writes == 0
    for verb in ("apply", "scale", "create", "delete", "patch", "patch-status", "put"):
        proxy.count(verb, "Service fraud")
    assert proxy.writes == 7
