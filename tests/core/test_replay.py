"""The judge over what was counted before: what is derived from the routers' counters alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from mooring.api import AnalysisSpec, ModelDeploymentSpec
from mooring.core.analysis import Standard, standard
from mooring.core.examination import Evidence
from mooring.core.observed import RenderSettings
from mooring.core.promql_tokens import parse
from mooring.core.replay import (
    Playing,
    Trial,
    clusters_query,
    look,
    revisions_of,
    spans,
    split_clusters_of,
)
from mooring.core.router_counters import Attempts, ClusterCounts, Source
from mooring.core.tribunal import Measured

BEGAN = 1_000_000.0
TICK = 10.0
POD = "fraud-router-5c8d9f7b9c-abcde"


def held_to(*metrics: dict[str, object]) -> Standard:
    spec = ModelDeploymentSpec.model_validate({
        "model": {"uri": "s3://models/fraud"},
        "runtime": {"name": "onnx"},
        "rollout": {"steps": [{"weight": 10, "duration": "10m"}]},
        "analysis": {"metrics": list(metrics)},
    })  # fmt: skip
    assert isinstance(spec.analysis, AnalysisSpec)
    settings = RenderSettings(prometheus=True)
    found = standard(spec, settings, namespace="shop", name="fraud", revision="cand")
    assert found is not None
    return found


ERRORS = {"name": "errors", "errorRate": {"maxRatio": 1.5, "max": 0.05}}


def trial(*metrics: dict[str, object], weights: tuple[tuple[float, float], ...] = ()) -> Trial:
    return Trial(
        "shop", "fraud", "cand", "stab", held_to(*(metrics or (ERRORS,))),
        candidate=("cand",), stable=("stab-a", "stab-b"), began=BEGAN,
        weights=tuple(spans(weights, BEGAN)),
    )  # fmt: skip


def counts(total: float, errors: float, endpoints: int = 1) -> ClusterCounts:
    part = Attempts(total / endpoints, (total - errors) / endpoints, errors / endpoints)
    return ClusterCounts({f"10.0.0.{n}:80": part for n in range(endpoints)})


def history(
    failing: float, *, rate: float = 20.0, weight: float = 0.1, looks: int = 60, seed: int = 1
) -> Iterator[tuple[float, Measured]]:
    """Looks at one router whose candidate fails with this probability, stable with 0.5 %."""
    rng = np.random.default_rng(seed)
    totals = {name: [0.0, 0.0] for name in ("cand", "stab-a", "stab-b")}
    shares = {"cand": weight, "stab-a": (1 - weight) / 2, "stab-b": (1 - weight) / 2}
    for n in range(looks):
        at = BEGAN + n * TICK
        clusters = {name: counts(both[0], both[1]) for name, both in totals.items()}
        yield at, Measured(sources=(Source(POD, at, at, clusters, BEGAN - 3600),))
        for name, both in totals.items():
            asked = float(rng.poisson(rate * TICK * shares[name]))
            both[0] += asked
            both[1] += float(rng.binomial(int(asked), failing if name == "cand" else 0.005))


def played(one: Trial, looks: Iterator[tuple[float, Measured]]) -> list[tuple[Evidence, Playing]]:
    found, playing = [], Playing()
    for at, measured in looks:
        evidence, playing = look(one, playing, at, measured)
        found.append((evidence, playing))
    return found


def test_a_candidate_that_fails_a_third_of_its_requests_fails_within_a_minute() -> None:
    verdicts = [e.judgement.verdict.value for e, _ in played(trial(), history(0.3))]

    assert verdicts.index("Fail") <= 6
    assert set(verdicts[verdicts.index("Fail") :]) == {"Fail"}


def test_a_good_candidate_passes() -> None:
    assert played(trial(), history(0.005))[-1][0].judgement.verdict.value == "Pass"


def test_the_weight_is_the_share_of_the_attempts_of_the_last_minute() -> None:
    *_, (_, playing) = played(trial(), history(0.005, rate=200))

    assert playing.weight == pytest.approx(10, abs=1)


def test_a_weight_that_somebody_knows_is_taken_from_when_it_began() -> None:
    found = played(trial(weights=((0, 100), (25, 300))), history(0.005))
    weights = [playing.weight for _, playing in found]

    assert weights[:10] == [0.0] * 10
    assert set(weights[10:]) == {25.0}
    assert found[10][0].examination.weights.since == BEGAN + 100


def test_before_the_candidate_gets_requests_nothing_is_judged() -> None:
    found = played(trial(), history(0.005, weight=0.0, looks=20))

    assert {e.judgement.verdict.value for e, _ in found} == {"Inconclusive"}
    assert not any(e.examination.weights.random for e, _ in found)


def test_pods_are_the_endpoints_that_the_router_knows_each_once() -> None:
    def sources(at: float, stable: int) -> Measured:
        halves = {"stab-a": counts(at, 0, stable), "stab-b": counts(at, 0, stable)}
        return Measured(sources=(Source(POD, at, at, {"cand": counts(at, 0), **halves}),))

    looks = [(BEGAN, sources(BEGAN, 2)), (BEGAN + TICK, sources(BEGAN + TICK, 3))]
    (before, _), (after, _) = played(trial(), iter(looks))

    assert (before.examination.pods.candidate, before.examination.pods.stable) == (1, 2)
    # Those of the first look may be old, the one that came later is new.
    assert before.examination.pods.newest is None
    assert after.examination.pods.stable == 3
    assert after.examination.pods.newest == BEGAN + TICK


def test_a_look_without_an_answer_keeps_the_weight_and_says_what_is_missing() -> None:
    looks = list(history(0.005, looks=10))
    silent = [(BEGAN + n * TICK, Measured()) for n in range(10, 20)]
    *_, (evidence, playing) = played(trial(), iter([*looks, *silent]))

    assert evidence.judgement.verdict.value == "NoData"
    assert "Prometheus has no samples of the router pods" in evidence.missing
    assert playing.weight == pytest.approx(10, abs=5)


@pytest.mark.parametrize(
    ("names", "clusters"),
    [
        (("abc", "abc-match", "abc-shadow", "abd"), ("abc",)),
        (("abc-a", "abc-b", "abc-shadow"), ("abc-a", "abc-b")),
        (("abc", "abc_grpc", "abc-a_grpc", "abc-shadow_grpc"), ("abc", "abc-a_grpc", "abc_grpc")),
        (("@admin", ""), ()),
    ],
)
def test_only_clusters_with_randomly_split_traffic_are_evidence(
    names: tuple[str, ...], clusters: tuple[str, ...]
) -> None:
    assert split_clusters_of("abc", names) == clusters


def test_revisions_are_told_by_their_clusters() -> None:
    assert revisions_of(("abc-a", "abc-b", "abd", "abd-match", "@admin")) == ("abc", "abd")


def test_the_question_for_clusters_is_one_that_prometheus_can_read() -> None:
    text = clusters_query("shop", "my-model", 3599.5)

    parse(text)
    assert 'pod=~"my-model-router-.+"}[3600s]' in text
