"""Stable in two halves: how they come and go, and what they make of evidence."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from tests.core.test_evidence import ERRORS, MEASURING, STEPS, judged, passes
from tests.core.test_steps import behind_routers, in_step, run
from tests.core.world import World
from tests.engine.test_evidence import examination

from mooring.core import halves, kinds
from mooring.core.answers import Keyed
from mooring.core.halves import Halved, History, Sums, channels_of, edges_of
from mooring.core.judge import Analysis, ErrorRate, Latency, Metric, State, Verdict, Weights
from mooring.core.kinds import Ref
from mooring.core.render.router.table import read_table, table_text
from mooring.core.router_counters import Attempts, ClusterCounts, Source
from mooring.core.traffic import Backend, Table
from mooring.core.tribunal import Case, Measured, Remembered, weigh

ROUTED = Ref("ConfigMap", "fraud-router")
#: 720 minutes in which errors came five at a time, all to one half.
BURSTS = History({halves.ERRORS: Sums(500, 5000, 75_000, 50_000)})


def table(world: World) -> Table:
    found = read_table(world.children[ROUTED])
    assert found is not None
    return found[0]


def clusters(world: World) -> set[str]:
    found = json.loads(world.children[ROUTED]["data"]["cds.json"])
    return {cluster["name"] for cluster in found["resources"]}


def targets(world: World) -> dict[str, int]:
    """The clusters that the last route names with their weights."""
    (routes,) = json.loads(world.children[ROUTED]["data"]["rds-http.json"])["resources"]
    route = routes["virtual_hosts"][0]["routes"][-1]["route"]
    if "cluster" in route:
        return {route["cluster"].partition("@")[0]: 100}
    split = route["weighted_clusters"]["clusters"]
    return {one["name"].partition("@")[0]: one["weight"] for one in split}


# how they come and go -----------------------------------------------------------------------------


def test_stable_is_halved_while_there_is_an_analysis_and_weights_stay_exact() -> None:
    world, stable, candidate, _ = judged()
    assert world.halved() == [stable]
    assert targets(world) == {f"{stable}-a": 90, f"{stable}-b": 90, candidate: 20}


def test_nobody_is_halved_without_an_analysis() -> None:
    world, stable, _ = in_step()
    assert world.halved() == []
    assert f"{stable}-a" not in clusters(world)


def test_the_halves_are_there_a_write_before_traffic_goes_to_them_and_a_write_after() -> None:
    world, stable = behind_routers(STEPS)
    world.settings = MEASURING
    seen: list[tuple[bool, bool]] = []

    def watch(**spec: object) -> None:
        world.edit(**spec)
        for _ in range(20):
            world.round()
            now = (f"{stable}-a" in clusters(world), f"{stable}-a" in targets(world))
            if not seen or seen[-1] != now:
                seen.append(now)
            assert stable in clusters(world)
            assert set(targets(world)) <= clusters(world)
            world.wait(seconds=1)

    watch(analysis={"metrics": [ERRORS]})
    assert seen == [(True, False), (True, True)]
    seen.clear()
    watch(analysis=None)
    assert seen == [(True, False), (False, False)]


def test_traffic_waits_until_every_router_knows_the_pods_of_the_halves() -> None:
    world, stable = behind_routers(STEPS)
    world.settings = MEASURING
    world.routers_follow = False
    world.edit(analysis={"metrics": [ERRORS]})
    world.settle()
    for name, report in world.routers.items():
        version = world.children[ROUTED]["metadata"]["annotations"][kinds.ANNOTATION_VERSION]
        world.routers[name] = replace(report, taken=version, endpoints={stable: 0})
    for _ in range(20):
        world.round()
        world.wait(seconds=1)
    assert world.halved() == []
    for name, report in world.routers.items():
        world.routers[name] = replace(report, endpoints={stable: 4})
    world.wait(seconds=6)
    world.round()
    assert world.halved() == [stable]


def test_who_is_promoted_is_halved_in_its_bake_beside_the_one_before() -> None:
    world, stable, candidate, traffic = judged(bake={"duration": "10m", "previousWeight": 5})
    passes(world, traffic)
    run(world)
    traffic.tick(3)
    assert world.status["phase"] == "Baking"
    assert sorted(world.halved()) == sorted([stable, candidate])
    assert world.route() == {candidate: 95, stable: 5}
    traffic.errors[candidate] = 0.3
    traffic.tick(12)
    assert world.status["stable"]["revision"] == stable


def test_evidence_is_not_broken_when_stable_is_halved_amid_a_rollout() -> None:
    world, _, candidate, traffic = judged()
    traffic.errors = dict.fromkeys(world.revisions(), 0.01)
    traffic.tick(3)
    whole = world.status["analysis"]["metrics"][0]["stableSamples"]
    live = table(world)
    assert any(backend.halved for backend in live.backends)
    # As an operator that did not halve left it.
    plain = tuple(Backend(b.revision, b.host, b.ports) for b in live.backends)
    annotations = world.children[ROUTED]["metadata"]["annotations"]
    annotations[kinds.ANNOTATION_TABLE] = table_text(replace(live, backends=plain))
    traffic.tick(6)
    assert sorted(world.halved()) != []
    analysis = world.status["analysis"]
    assert analysis["verdict"] in ("Pass", "Inconclusive")
    assert analysis["metrics"][0]["stableSamples"] > whole
    assert candidate in world.route()


# what they say ------------------------------------------------------------------------------------


def test_each_metric_is_divided_by_what_tells_of_it() -> None:
    edges = (0.05, 0.1, 0.2)
    analysis = Analysis(
        (Metric("errors", ErrorRate(1.5)), Metric("slow", Latency(0.95, max=0.09))), edges=edges
    )
    assert edges_of(analysis) == (100.0,)
    assert channels_of(analysis) == {"errors": (halves.ERRORS,), "slow": ("100",)}
    relative = Analysis((Metric("slower", Latency(max_ratio=1.3)),), edges=edges)
    assert len(edges_of(relative)) >= 5, "slow and fast have no edge of their own"


def test_an_answer_is_read_by_rollout_and_channel_and_nonsense_passed_over() -> None:
    pod = "fraud-router-5c8d9f7b9c-abcde"
    answer = Keyed(
        {
            f"shop|{pod}|n": 10.0, f"shop|{pod}|m": 30.0, f"shop|{pod}|mm": 100.0,
            f"shop|{pod}|hh": 60.0, f"shop|{pod}2|m": 5.0, f"shop|{pod}|m|100.0": 7.0,
            f"bank|{pod}|m": 99.0, "shop|other|m": 99.0, f"shop|{pod}|odd": 1.0,
            "shop|fraud-router-5c8d9f7b9c-fghij|m": float("nan"),
        },
        0.0,
    )  # fmt: skip
    found = halves.read(answer, [Halved("shop", "fraud", (100.0,))])
    assert set(found) == {("shop", "fraud")}
    channels = found["shop", "fraud"].channels
    assert channels[halves.ERRORS] == Sums(10, 30, 100, 60)
    assert channels["100"] == Sums(both=7)


def test_status_says_what_evidence_is_divided_by() -> None:
    world, _, _, traffic = judged()
    traffic.tick()
    assert "dispersion" not in world.status["analysis"]["metrics"][0], "uncalibrated"
    traffic.history = BURSTS
    traffic.tick()
    assert 4.5 < world.status["analysis"]["metrics"][0]["dispersion"] < 6.5
    before = world.status["analysis"]["metrics"][0]["dispersion"]
    traffic.history, traffic.remembered = None, None  # the operator is restarted
    traffic.tick()
    assert world.status["analysis"]["metrics"][0]["dispersion"] == before


def test_what_was_found_before_calibration_is_divided_too_and_never_grows() -> None:
    analysis = Analysis((Metric("errors", ErrorRate(1.5, 0.05)),))
    rng = np.random.default_rng(3)
    row = tuple(rng.normal(0, 5, len(State.begin(analysis).rows[0])).tolist())
    state = replace(State.begin(analysis), rows=(row,))
    after = state.calibrated(analysis, {"errors": 4.0, "unknown": 9.0})
    assert after.phi == {"errors": 4.0}
    changed = [(a, b) for a, b in zip(row, after.rows[0], strict=True) if a != b]
    assert changed
    assert all(abs(b) <= abs(a) + 1e-6 for a, b in changed)
    assert after.calibrated(analysis, {"errors": 9.0}) is after, "frozen"
    assert state.calibrated(analysis, {"errors": 0.5}) is state
    assert state.calibrated(analysis, {"errors": float("nan")}) is state


# bursts, through all of it ------------------------------------------------------------------------

SIZE = 6
RATE = 0.005


def observed_halves(random: np.random.Generator, windows: int = 720) -> History:
    """Twelve hours of two halves with bursts of SIZE, as Prometheus sums them up."""
    a, b = (SIZE * random.poisson(1.5 / SIZE, windows).astype(float) for _ in range(2))
    m = a + b
    sums = Sums(
        float((m > 0).sum()), float(m.sum()), float((m**2).sum()), float((a**2 + b**2).sum())
    )
    return History({halves.ERRORS: sums})


def rolled_back(worse: float, runs: int, *, calibrated: bool, seed: int = 5) -> float:
    """How many of the runs fail in 20 minutes, when errors come in bursts: a connection breaks, and
    all that was on it, candidate or one half of stable.
    """
    random = np.random.default_rng(seed)
    names = ("new", "old-a", "old-b")
    wanted = examination(
        "fraud",
        analysis=Analysis((Metric("errors", ErrorRate(max_ratio=1.0)),), tick=60.0),
        candidate=names[:1],
        stable=names[1:],
        weights=Weights(25.0, 0.0),
    )
    histories = [observed_halves(random) if calibrated else None for _ in range(runs)]
    totals = np.zeros((runs, 3, 2))
    remembered: list[Remembered | None] = [None] * runs
    failed = np.zeros(runs, dtype=bool)
    mean = 1200 * np.array([0.25, 0.375, 0.375])
    rates = RATE * np.array([worse, 1.0, 1.0])
    for minute in range(20):
        counts = random.poisson(np.broadcast_to(mean, (runs, 3)))
        bad = SIZE * random.poisson(np.broadcast_to(mean * rates / SIZE, (runs, 3)))
        totals += np.stack([counts, np.minimum(bad, counts)], axis=2)
        at = 60.0 * (minute + 1)
        cases = [
            Case(wanted, Measured((router(names, totals[run], at),), history=histories[run]),
                 remembered[run])
            for run in range(runs)
        ]  # fmt: skip
        found = weigh(cases, datetime.fromtimestamp(at, UTC))
        remembered = [one for _, one in found]
        failed |= [evidence.judgement.verdict is Verdict.FAIL for evidence, _ in found]
    return float(failed.mean())


def router(names: tuple[str, ...], totals: np.ndarray, at: float) -> Source:
    clusters = {
        name: ClusterCounts({"10.0.0.1:80": Attempts(count, count - bad, bad)}, ejected=0.0)
        for name, (count, bad) in zip(names, totals.tolist(), strict=True)
    }
    return Source("fraud-router-0", at, at, clusters, born=0.0)


@pytest.mark.parametrize("runs", [40, pytest.param(400, marks=pytest.mark.slow)])
def test_bursts_roll_a_good_candidate_back_within_alpha_and_a_bad_one_still(runs: int) -> None:
    assert rolled_back(1.0, runs, calibrated=False) >= 0.2
    assert rolled_back(1.0, runs, calibrated=True) <= 0.05
    assert rolled_back(8.0, runs, calibrated=True) >= 0.9
