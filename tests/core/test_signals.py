"""Without a router: a server's own counts are evidence about objectives, and about nothing else."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.core.given import ONNX_RUNTIME
from tests.core.test_evidence import MEASURING, STEPS
from tests.core.test_steps import start
from tests.core.world import World

from mooring.core import signals
from mooring.core.answers import Answer, NoAnswer, Reason, Sample
from mooring.core.observed import RuntimeSource
from mooring.core.router_counters import ScrapeLabels
from mooring.core.signals import Group, Lives, PodCounts, Pods, Question, Signals
from mooring.core.tribunal import Case, Measured, Remembered, weigh

LABELS = ScrapeLabels()
SIGNALS: dict[str, Any] = {
    "requests": "sum by ({{ by }}) (asked_total{{{ selector }}})",
    "errors": 'sum by ({{ by }}) (asked_total{code=~"5..",{{ selector }}})',
    "latency": {
        "unit": "milliseconds",
        "buckets": "sum by ({{ by }}, le) (took_bucket{{{ selector }}})",
    },
}
HAS = Signals.of(SIGNALS)
OBJECTIVE = {"name": "errors", "errorRate": {"max": 0.05}}
SLOW = {"name": "slow", "latency": {"quantile": 0.95, "max": "100ms"}}


def world_without_router(
    metrics: list[dict[str, Any]], has: dict[str, Any] | None = SIGNALS
) -> tuple[World, str, str]:
    """A candidate in its first step, with router ``replicas``."""
    world = World.with_spec(
        replicas=4,
        traffic={"router": "replicas"},
        rollout={"progressDeadline": "10m", "revisionHistoryLimit": 10, "steps": STEPS},
        analysis={"metrics": metrics},
    )
    runtime = {**ONNX_RUNTIME, **({"signals": has} if has else {})}
    world.runtimes["onnx"] = RuntimeSource("ClusterModelRuntime", "onnx", runtime)
    world.settings = MEASURING
    stable = world.serve()
    candidate = start(world)
    for _ in range(3):
        for revision in world.revisions():
            world.run_pods(revision)
        world.settle(40)
    return world, stable, candidate


def watch(
    world: World,
    rates: dict[str, float],
    ticks: int,
    edges: tuple[float, ...] = (0.1,),
    slow: float = 0.01,
) -> None:
    """Pods that answer 100 requests a look: so many fail, and of the candidate so many take longer
    than all edges.
    """
    remembered: Remembered | None = None
    for look in range(1, ticks + 1):
        world.wait(seconds=10)
        for revision in world.revisions():
            world.run_pods(revision)
        wanted = world.examination
        if wanted is not None:
            n = 100.0 * look
            candidate, stable = (
                {
                    f"fraud-{r}-5c8d9f7b9c-abcde": PodCounts(
                        n,
                        n * rates.get(r, 0.0),
                        dict.fromkeys(edges, (1 - late) * n) | {math.inf: n},
                    )
                }
                for r, late in ((wanted.revision, slow), (wanted.against, 0.01))
            )
            case = Case(wanted, Measured(pods=Pods(candidate, stable)), remembered)
            ((world.evidence, remembered),) = weigh([case], world.now)
        world.settle(40)
        if "candidate" not in world.status:
            return


def test_a_candidate_that_misses_its_objective_is_rolled_back_without_a_router() -> None:
    world, stable, candidate = world_without_router([OBJECTIVE])
    assert world.reason("Stalled") == ""
    began = world.now
    watch(world, {candidate: 0.3}, 40)
    assert world.reason("RolledBack") == "AnalysisFailed"
    assert world.now - began < timedelta(minutes=2)
    assert world.status["stable"]["revision"] == stable


def test_a_candidate_that_keeps_to_it_is_promoted() -> None:
    world, _, candidate = world_without_router([OBJECTIVE])
    watch(world, {candidate: 0.001}, 60)
    assert world.status["stable"]["revision"] == candidate


def test_an_outage_of_both_is_not_the_candidate_s_fault() -> None:
    world, stable, candidate = world_without_router([OBJECTIVE])
    watch(world, {candidate: 0.3, stable: 0.3}, 5)
    assert world.status["analysis"]["verdict"] == "Inconclusive"
    assert candidate in world.revisions()


def test_latency_is_judged_at_an_edge_of_the_server() -> None:
    world, _, _ = world_without_router([SLOW])
    watch(world, {}, 20, slow=0.2)
    assert world.reason("RolledBack") == "AnalysisFailed", "a fifth takes longer, not a twentieth"


def test_an_objective_between_two_edges_of_the_server_names_both() -> None:
    world, _, _ = world_without_router([SLOW])
    watch(world, {}, 6, edges=(0.05, 0.25))
    message = world.condition("Stalled")["message"]
    assert "no answers up to 0.1s: set max to one of its: 0.05s and 0.25s" in message


@pytest.mark.parametrize(
    ("metric", "has", "words"),
    [
        (OBJECTIVE, None, "spec.signals has no requests and errors"),
        (OBJECTIVE, {"requests": SIGNALS["requests"]}, "has no requests and errors"),
        (SLOW, {"requests": SIGNALS["requests"]}, "has no latency.buckets"),
        ({"name": "r", "errorRate": {"maxRatio": 2, "max": 0.1}}, SIGNALS, "maxRatio compares"),
    ],
)
def test_what_a_server_does_not_tell_stalls_and_names_what_could(
    metric: dict[str, Any], has: dict[str, Any] | None, words: str
) -> None:
    world, _, _ = world_without_router([metric], has)
    found = world.condition("Stalled")
    assert (found["status"], found["reason"]) == ("True", "NotMeasured")
    assert words in found["message"]
    assert "use router envoy" in found["message"]


def test_a_signal_that_is_no_promql_stalls_its_users_and_is_never_asked() -> None:
    broken = {**SIGNALS, "errors": "sum by ({{ by }}) (x{{{ selector }}}"}
    world, _, _ = world_without_router([OBJECTIVE], broken)
    assert world.condition("Stalled")["reason"] == "InvalidQuery"
    group = Group("shop", "fraud-aa", Signals.of(broken))
    assert len(signals.questions([group], LABELS)) == 2


def test_pods_that_nobody_scrapes_are_named() -> None:
    world, _, candidate = world_without_router([OBJECTIVE])
    remembered = None
    for _ in range(8):
        world.wait(seconds=10)
        assert world.examination is not None
        case = Case(world.examination, Measured(), remembered)
        ((world.evidence, remembered),) = weigh([case], world.now)
        world.settle(40)
    message = world.condition("Stalled")["message"]
    assert f"no samples of the pods shop/fraud-{candidate}-*" in message


# reading ------------------------------------------------------------------------------------------


def test_servers_of_one_kind_are_asked_at_once_and_bound_to_their_namespace() -> None:
    groups = [Group("shop", f"model-{i}", HAS) for i in range(20)] + [Group("bank", "model-1", HAS)]
    asked = signals.questions(groups, LABELS)
    assert len(asked) == 6
    assert all(f'namespace="{q.groups[0].namespace}"' in q.text for q in asked)
    many = signals.questions((Group("shop", f"model-{i:050}", HAS) for i in range(500)), LABELS)
    assert sum(len(q.groups) for q in many) == 1500
    assert max(len(q.text) for q in many) <= 4096


def test_answers_are_told_apart_by_pod_and_unit() -> None:
    group = Group("shop", "fraud-aa", HAS)
    pod = {"pod": "fraud-aa-5c8d9f7b9c-abcde"}
    told = {
        HAS.requests: [Sample(pod, 0.0, 10.0), Sample({"pod": "other"}, 0.0, 9.0)],
        HAS.errors: [Sample(pod, 0.0, 2.0), Sample(pod, 0.0, math.nan)],
        HAS.buckets: [
            Sample({**pod, "le": "250"}, 0.0, 7.0),
            Sample({**pod, "le": "+Inf"}, 0.0, 10.0),
            Sample({**pod, "le": "x"}, 0.0, 1.0),
        ],
    }
    asked = signals.questions([group], LABELS)
    answers: list[tuple[Question, Answer | NoAnswer]] = [
        (question, Answer(tuple(told[question.template]), 0.0)) for question in asked
    ]
    found = signals.read(answers, LABELS)[group]
    assert not isinstance(found, NoAnswer)
    assert found == {pod["pod"]: PodCounts(10.0, 2.0, {0.25: 7.0, math.inf: 10.0})}
    judged = signals.counters(found[pod["pod"]], (0.25,))
    assert (judged.attempts, judged.errors, judged.latency) == (10.0, 2.0, (7.0, 3.0))
    failed = NoAnswer(Reason.TIMEOUT, "late")
    assert signals.read([(question, failed) for question in asked], LABELS)[group] == failed


def test_a_pod_that_restarts_or_goes_stays_in_the_sum() -> None:
    one = signals.counters(PodCounts(100.0, 5.0, {0.1: 90.0, math.inf: 100.0}), (0.1,))
    lives = Lives().seen({"a": one, "b": one}).seen({"a": replace(one, attempts=10.0, errors=0.0)})
    assert (lives.sum.attempts, lives.sum.errors) == (210.0, 10.0)


# half of the answers ------------------------------------------------------------------------------


def pod(look: float, **changes: Any) -> PodCounts:
    """20 requests a look, of which one fails, all answered within a second."""
    n = 20.0 * look
    return replace(PodCounts(n, look, {0.1: n - look, math.inf: n}), **changes)


def looks(*shown: PodCounts, first: float = 1.0) -> list[tuple[float, float, float]]:
    """When, requests and errors, as the judge is given them at one look after the other."""
    memory, found = (Lives(), Lives()), []
    for look, one in enumerate(shown):
        at = 10.0 * (first + look)
        scrapes, memory = signals.take(Pods({"c": one}, {"s": pod(look)}), (0.1,), at, memory)
        scrape = scrapes.get("pods")
        if scrape is not None:
            found.append((scrape.time, scrape.candidate.attempts, scrape.candidate.errors))
    return found


@pytest.mark.parametrize(
    "half", [{"requests": None}, {"errors": None}, {"buckets": {}}, {"errors": 3.0}]
)
def test_a_pod_that_lacks_a_count_that_it_had_keeps_its_last_ones(half: dict[str, Any]) -> None:
    found = looks(pod(39), pod(40, **half), pod(41))
    assert found == [(10.0, 780.0, 39.0), (10.0, 780.0, 39.0), (30.0, 820.0, 41.0)]


def test_errors_without_requests_are_no_requests() -> None:
    assert looks(PodCounts(None, 30.0), pod(41)) == [(20.0, 820.0, 41.0)]
    assert signals.counters(PodCounts(None, 30.0), ()).errors == 0


def test_a_pod_that_begins_anew_counts_at_once_also_before_its_first_error() -> None:
    found = looks(pod(40), PodCounts(8.0, None, {0.1: 8.0, math.inf: 8.0}), pod(2))
    assert found == [(10.0, 800.0, 40.0), (20.0, 808.0, 40.0), (30.0, 840.0, 42.0)]


def test_counts_of_a_pod_that_contradict_its_last_for_a_minute_are_a_new_beginning() -> None:
    shown = [pod(40), *(PodCounts(900.0 + n, 0.0) for n in range(7))]
    assert [attempts for _, attempts, _ in looks(*shown)] == [800.0] * 6 + [1705.0, 1706.0]


def test_a_clock_that_was_set_back_holds_no_pod_to_its_last_counts() -> None:
    memory = (Lives(), Lives())
    _, memory = signals.take(Pods({"c": pod(40)}), (), 9000.0, memory)
    found, _ = signals.take(Pods({"c": PodCounts(900.0, 0.0)}), (), 5000.0, memory)
    assert found["pods"].candidate.attempts == 1700


def test_an_answer_with_warnings_is_none() -> None:
    group = Group("shop", "fraud-aa", HAS)
    sample = Sample({"pod": "fraud-aa-5c8d9f7b9c-abcde"}, 0.0, 10.0)
    asked = signals.questions([group], LABELS)
    part = Answer((sample,), 0.0, warnings=("a store did not answer",))
    found = signals.read([(asked[0], part), (asked[1], Answer((sample,), 0.0))], LABELS)[group]
    assert isinstance(found, NoAnswer)
    assert (found.reason, "a store did not answer" in found.message) == (Reason.INCOMPLETE, True)
