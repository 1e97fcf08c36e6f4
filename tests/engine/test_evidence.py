"""The tick: one question for all rollouts, evidence for each, and a look at every one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mooring.core.analysis import Query
from mooring.core.answers import Answer, NoAnswer, Reason, Sample
from mooring.core.examination import Examination, Phase
from mooring.core.halves import ERRORS, History, Sums
from mooring.core.judge import Analysis, ErrorRate, Metric, Pods, Threshold, Weights
from mooring.core.router_counters import Attempts, ClusterCounts, Reading, Source, Target
from mooring.core.signals import Group, Signals
from mooring.engine.evidence import Examiner
from mooring.engine.metrics import Metrics
from mooring.engine.queue import Key, KeyedQueue

START = datetime(2026, 1, 1, tzinfo=UTC)


class Counting:
    """A Prometheus whose routers count: of 100 attempts a look so many are ``failing``."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.failing = 0.0
        self.looks = 0
        self.down = False
        self.values: dict[str, float] = {}
        self.copied: datetime | None = None
        self.meanwhile: Callable[[], None] = lambda: None
        self.now = START
        self.looked_back: list[str] = []
        self.bursts = 0
        self.hangs = False

    async def read(self, text: str, *_: object, **__: object) -> Any:
        if "sum_over_time" in text:
            return await self.look_back(text)
        self.asked.append(text)
        self.meanwhile()
        if self.down:
            return NoAnswer(Reason.REFUSED, "Nobody listens.")
        self.looks += 1
        at, count = self.now.timestamp(), 100.0 * self.looks
        bad = self.failing * self.looks
        found = {}
        for name in ("a", "b"):
            clusters = {
                "new": ClusterCounts({"p": Attempts(count, count - bad, bad)}, ejected=0.0),
                "old": ClusterCounts({"q": Attempts(9 * count, 9 * count)}, ejected=0.0),
            }
            found["shop", name] = (Source(f"{name}-router-0", at, at, clusters),)
        return Reading(sources=found)

    async def look_back(self, text: str) -> Any:
        """What stable's halves counted: ``bursts`` errors at a time, in 100 windows."""
        self.looked_back.append(text)
        if self.hangs:
            await asyncio.Event().wait()
        if not self.bursts:
            return NoAnswer(Reason.TIMEOUT, "Prometheus gave up.")
        size = self.bursts
        # Each window has two bursts, both to one half or one to each, by turns.
        sums = Sums(100, 200 * size, 400 * size**2, 50 * 4 * size**2 + 50 * 2 * size**2)
        return {("shop", name): History({ERRORS: sums}) for name in ("a", "b")}

    async def query(self, text: str, **_: object) -> Any:
        self.asked.append(text)
        if text not in self.values:
            return NoAnswer(Reason.EMPTY, "The query finds no series.")
        at = (self.copied or self.now).timestamp()
        return Answer((Sample({}, at, self.values[text]),), at)


def examination(name: str, **changes: Any) -> Examination:
    found = Examination(
        attempt="new/0",
        asked="1:",
        phase=Phase.ROLLOUT,
        revision="new",
        against="old",
        analysis=Analysis((Metric("errors", ErrorRate(1.5, 0.05)),), tick=10.0),
        weights=Weights(10.0, START.timestamp() - 60),
        pods=Pods(1, 9),
        target=Target("shop", name, ("new", "old")),
        candidate=("new",),
        stable=("old",),
    )
    return replace(found, **changes)


class Setting:
    def __init__(self) -> None:
        self.prometheus = Counting()
        self.queue = KeyedQueue()
        self.metrics = Metrics()
        self.examiner = Examiner(
            self.prometheus,  # type: ignore[arg-type]
            self.queue,
            self.metrics,
            lambda: self.prometheus.now,
            interval=10.0,
        )

    def tick(self, times: int = 1) -> None:
        async def ticks() -> None:
            for _ in range(times):
                self.prometheus.now += timedelta(seconds=10)
                await self.examiner.tick()
                await asyncio.sleep(0)

        asyncio.run(ticks())

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


A, B = Key("shop", "a"), Key("shop", "b")


def test_all_rollouts_are_read_by_one_question_and_each_is_looked_at_again() -> None:
    setting = Setting()
    for key in (A, B):
        setting.examiner.want(key, examination(key.name))
    setting.tick()
    assert len(setting.prometheus.asked) == 1
    assert setting.queue.depth == 2
    assert setting.examiner.found(A) is not None
    assert setting.value("mooring_analysis_rollouts") == 2


def test_nothing_is_asked_while_nothing_is_under_judgement() -> None:
    setting = Setting()
    setting.tick(3)
    assert setting.prometheus.asked == []
    assert setting.queue.depth == 0


def test_evidence_gathers_from_tick_to_tick_and_is_shown_as_a_gauge_until_it_is_over() -> None:
    setting = Setting()
    setting.prometheus.failing = 40.0
    setting.examiner.want(A, examination("a"))
    setting.tick(4)
    found = setting.examiner.found(A)
    assert found is not None
    assert found.judgement.verdict == "Fail"
    labels = {"namespace": "shop", "deployment": "a", "metric": "errors"}
    assert (setting.value("mooring_analysis_evidence", **labels) or 0) >= 1
    assert setting.value("mooring_analysis_verdicts", verdict="Fail") == 1
    setting.examiner.want(A, None)
    setting.tick()
    assert setting.value("mooring_analysis_evidence", **labels) is None
    assert setting.value("mooring_analysis_verdicts", verdict="Fail") == 0


def test_what_is_decided_otherwise_during_a_tick_gets_no_evidence_of_before() -> None:
    setting = Setting()
    setting.examiner.want(A, examination("a"))
    setting.prometheus.meanwhile = lambda: setting.examiner.want(
        A, examination("a", attempt="new/1")
    )
    setting.tick()
    assert setting.examiner.found(A) is None


def test_a_prometheus_that_is_down_is_said_in_evidence_and_nothing_raises() -> None:
    setting = Setting()
    setting.examiner.want(A, examination("a"))
    setting.prometheus.down = True
    setting.tick(5)
    found = setting.examiner.found(A)
    assert found is not None
    assert (found.judgement.verdict, found.missing) == ("NoData", "Nobody listens.")
    assert found.overdue


def test_a_free_query_is_asked_once_however_many_rollouts_ask_it() -> None:
    setting = Setting()
    setting.prometheus.values["up"] = 3.0
    free = {
        "analysis": Analysis((Metric("up", Threshold(min=1.0)),)),
        "queries": (Query("up", "up"),),
    }
    for key in (A, B):
        setting.examiner.want(key, examination(key.name, **free))
    setting.tick()
    assert setting.prometheus.asked == ["up"]
    for key in (A, B):
        found = setting.examiner.found(key)
        assert found is not None
        (metric,) = found.judgement.metrics
        assert metric.estimate is not None
        assert metric.estimate.value == 3.0


def free_value() -> Setting:
    """A free query whose value is outside its limit."""
    setting = Setting()
    setting.prometheus.values["late"] = 0.9
    analysis = Analysis((Metric("late", Threshold(max=0.5, consecutive=3)),), tick=10.0)
    queries = (Query("late", "late"),)
    setting.examiner.want(A, examination("a", analysis=analysis, queries=queries))
    return setting


def verdict(setting: Setting) -> str:
    found = setting.examiner.found(A)
    assert found is not None
    return found.judgement.verdict


def test_one_measurement_is_counted_once_however_often_a_cache_answers_with_it() -> None:
    setting = free_value()
    setting.prometheus.copied = START
    setting.tick(4)
    assert verdict(setting) == "Inconclusive"
    setting.tick(20)
    assert verdict(setting) == "NoData", "no news for longer than three ticks"
    found = setting.examiner.found(A)
    assert found is not None
    assert "a cache in front of Prometheus answers" in found.missing


def test_a_cache_that_gives_each_value_twice_only_takes_twice_as_long() -> None:
    setting = free_value()
    seen = []
    for look in range(5):
        setting.prometheus.copied = START + timedelta(seconds=20 * (look // 2))
        setting.tick()
        seen.append(verdict(setting))
    assert seen == [*["Inconclusive"] * 4, "Fail"]


def test_a_clock_of_prometheus_that_was_set_back_costs_one_look() -> None:
    setting = free_value()
    setting.prometheus.copied = START
    setting.tick()
    for seconds in (10, 20, 30):
        assert verdict(setting) == "Inconclusive"
        setting.prometheus.copied = START + timedelta(seconds=seconds, hours=-1)
        setting.tick()
    assert verdict(setting) == "Fail"


@pytest.mark.parametrize("then", [10, -3590])
def test_a_first_answer_of_an_hour_ago_is_not_counted_and_what_follows_is(then: int) -> None:
    """Also where Prometheus' clock is an hour behind: that costs one look."""
    setting = free_value()
    setting.prometheus.copied = START - timedelta(hours=1)
    setting.tick()
    assert verdict(setting) == "NoData"
    for look in range(3):
        assert verdict(setting) != "Fail", "three values in a row decide"
        setting.prometheus.copied = START + timedelta(seconds=then + 10 * look)
        setting.tick()
    assert verdict(setting) == "Fail"


def test_an_old_copy_between_new_values_is_never_counted() -> None:
    setting = free_value()
    for seconds in (0, -3600, -3600, 10, -3600):
        setting.prometheus.copied = START + timedelta(seconds=seconds)
        setting.tick()
        assert verdict(setting) == "Inconclusive"
    setting.prometheus.copied = START + timedelta(seconds=20)
    setting.tick()
    assert verdict(setting) == "Fail"


def test_queries_that_nobody_asks_any_more_are_forgotten() -> None:
    setting = free_value()
    setting.tick()
    assert set(setting.examiner._evaluated) == {"late"}
    setting.examiner.want(A, examination("a"))
    setting.tick()
    assert not setting.examiner._evaluated
    setting = free_value()
    setting.tick()
    setting.examiner.want(A, None)
    setting.tick()
    assert not setting.examiner._evaluated


def test_a_tick_that_fails_is_counted_and_the_next_one_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setting = Setting()
    setting.examiner.interval = 0.01
    setting.examiner.want(A, examination("a"))
    calls = []

    async def failing(*arguments: object) -> Reading:
        calls.append(arguments)
        raise RuntimeError("a defect")

    monkeypatch.setattr("mooring.engine.evidence.read_counters", failing)

    async def run() -> None:
        task = asyncio.create_task(setting.examiner.run())
        while len(calls) < 3:
            await asyncio.sleep(0)
        task.cancel()

    asyncio.run(run())
    assert (setting.value("mooring_analysis_ticks_total", result="error") or 0) >= 2


# what stable's halves showed before ---------------------------------------------------------------


def phi(setting: Setting, key: Key = A) -> float | None:
    found = setting.examiner.found(key)
    assert found is not None
    return found.judgement.metrics[0].dispersion


def test_over_dispersion_is_asked_for_once_for_all_and_frozen_when_judging_begins() -> None:
    setting = Setting()
    setting.prometheus.bursts = 4
    for key in (A, B):
        setting.examiner.want(key, examination(key.name))
    setting.tick()
    assert len(setting.prometheus.looked_back) == 1
    assert 4 < (phi(setting) or 0) < 6
    first = phi(setting)
    setting.prometheus.bursts = 9
    setting.tick(200)
    assert phi(setting) == first
    assert len(setting.prometheus.looked_back) == 1


def test_a_restarted_operator_has_it_from_status_and_asks_no_more() -> None:
    setting = Setting()
    setting.prometheus.bursts = 4
    setting.examiner.want(A, examination("a"))
    setting.tick()
    found = setting.examiner.found(A)
    assert found is not None
    again = Setting()
    again.examiner.want(A, examination("a", state=found.judgement.state.dump()))
    again.tick()
    assert again.prometheus.looked_back == []
    assert phi(again) == phi(setting)


def test_what_the_halves_do_not_tell_yet_is_asked_again_now_and_then() -> None:
    setting = Setting()
    setting.examiner.want(A, examination("a"))
    setting.tick(61)
    assert len(setting.prometheus.looked_back) == 2
    assert phi(setting) is None
    setting.prometheus.bursts = 3
    setting.tick(61)
    assert (phi(setting) or 0) > 3


def test_a_question_about_the_past_that_hangs_holds_up_nobody_but_the_rollout_that_is_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mooring.engine.calibration._PATIENCE", 0.0)
    setting = Setting()
    setting.prometheus.bursts = 4
    setting.examiner.want(A, examination("a"))

    async def ticks() -> None:
        await setting.examiner.tick()
        await asyncio.sleep(0)
        await setting.examiner.tick()
        setting.prometheus.hangs = True
        setting.examiner.want(B, examination("b"))
        await setting.examiner.tick()
        assert setting.examiner.found(A) is not None
        assert setting.examiner.found(B) is None

    asyncio.run(ticks())


# a server's own counts ----------------------------------------------------------------------------

KINDS = ("asked_total", "failed_total")


def test_servers_are_asked_once_for_all_and_no_router_is() -> None:
    setting = Setting()
    asked, failed = (f"sum by ({{{{ by }}}}) ({name}{{{{{{ selector }}}}}})" for name in KINDS)
    has = Signals(requests=asked, errors=failed)
    names = {key: (f"{key.name}-new", f"{key.name}-old") for key in (A, B)}
    for key, (new, old) in names.items():
        groups = (Group("shop", new, has), Group("shop", old, has))
        setting.examiner.want(key, examination(key.name, groups=groups))

    async def query(text: str, **_: object) -> Answer:
        setting.prometheus.asked.append(text)
        new, old = (0.5, 0.0) if KINDS[1] in text else (1.0, 1.0)
        shares = {pair[0]: new for pair in names.values()} | {p[1]: old for p in names.values()}
        samples = (
            Sample(
                {"pod": f"{name}-5c8d9f7b9c-abcde"},
                0.0,
                10.0 * len(setting.prometheus.asked) * share,
            )
            for name, share in shares.items()
        )
        return Answer(tuple(samples), 0.0)

    setting.prometheus.query = query  # type: ignore[method-assign]
    setting.tick(5)
    assert len(setting.prometheus.asked) == 5 * 2, "two kinds of counts, however many rollouts"
    assert setting.prometheus.looked_back == []
    for key in (A, B):
        found = setting.examiner.found(key)
        assert found is not None
        assert found.judgement.verdict == "Fail"
