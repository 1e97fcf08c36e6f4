"""Faults that come again and again, an API server that is away, and a second operator."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from tests.apiserver.cluster import Api, Json, Operator, deploy, install, settings, until
from tests.apiserver.pods import Pods
from tests.faults.audit import Audit, judge_writes
from tests.faults.history import History, end_state
from tests.faults.oracles import births_and_deaths, judge
from tests.faults.proxy import Point, Proxy
from tests.faults.routers import FakeRouters
from tests.faults.runs import RESYNC, WRITES
from tests.faults.stories import STORIES, V1, V2, Stage

from mooring.core import kinds
from mooring_dev.control_plane import ControlPlane

# Fake routers answer at loopback addresses of their own.
pytestmark = [pytest.mark.faults, pytest.mark.allow_hosts(["127.0.0.0/8", "::1", "localhost"])]

_SEED = 3


def _every_third_write() -> Callable[[Point], str | None]:
    """409 for each third write of an object, status included; never twice in a row."""
    return lambda p: "conflict" if p.verb in WRITES and p.occurrence % 3 == 1 else None


def _some(*what: str, share: float) -> Callable[[Point], str | None]:
    """One of these for a share of all requests."""
    chance = random.Random(_SEED)

    def rule(point: Point) -> str | None:
        if point.verb == "watch" or chance.random() > share:
            return None
        return chance.choice(what)

    return rule


def _at_every_third_event(what: str) -> Callable[[Point], str | None]:
    """Done to every watch again and again, from its second event on."""
    return lambda p: what if p.verb == "watch" and p.occurrence % 3 == 2 else None


def _deaf() -> Callable[[Point], str | None]:
    """No watch tells of anything, of no kind: the resync alone does."""
    return lambda p: "drop" if p.verb == "watch" else None


LASTING: dict[str, Callable[[], Callable[[Point], str | None]]] = {
    "409 on every third write": _every_third_write,
    "429 on 20 %": partial(_some, "throttled", share=0.2),
    "500, 503 and resets on 10 %": partial(_some, "error", "unavailable", "reset", share=0.1),
    "half of the JSON on 10 %": partial(_some, "truncated", share=0.1),
    "all of them on 30 %": partial(
        _some, "error", "unavailable", "reset", "truncated", "lost", share=0.3
    ),
    "every event of every watch lost": _deaf,
    "watches that end cleanly": partial(_at_every_third_event, "close"),
    "410 in every watch": partial(_at_every_third_event, "gone"),
}


async def _tell(
    api: Api, folder: Path, story: str, rule: Callable[[Point], str | None] = lambda p: None
) -> tuple[Json, list[str]]:
    """A story behind a proxy with a rule; its end without one, and what is wrong."""
    namespace = await api.namespace("l")
    await install(api, namespace)
    audit = Audit.of(api, namespace)
    proxy = Proxy(api.session, api.server, rule=rule)
    history = History()
    async with (
        proxy.run(folder) as kubeconfig,
        history.watch(api, namespace),
        Pods(api, namespace) as pods,
        FakeRouters(api, namespace) as routers,
        Operator.run(kubeconfig, settings(namespace, resync=RESYNC)) as operator,
    ):
        await STORIES[story](Stage(api, namespace, pods, routers))
        proxy.rule = lambda point: None
        await operator.settled()
        rested = datetime.now(UTC)
        before, passed = operator.writes, proxy.writes
        for _ in range(3):
            await operator.round()
        more = max(operator.writes - before, proxy.writes - passed)
        found = [f"I1: {more:.0f} writes"] if more else []
        end = await end_state(api, namespace)
    births, deaths = births_and_deaths(history.in_order())
    found += judge_writes(audit.writes(), rested)
    return {**end, "births": births, "deaths": deaths}, [
        *found, *judge(history.in_order()), *routers.breaches
    ]  # fmt: skip


@pytest.mark.parametrize("name", LASTING)
async def test_a_fault_that_comes_again_and_again_changes_nothing_of_the_end(
    api: Api, tmp_path: Path, name: str
) -> None:
    expected, _ = await _tell(api, tmp_path, "update")
    end, found = await _tell(api, tmp_path, "update", LASTING[name]())
    assert found == []
    assert end == expected


async def test_every_watch_that_is_begun_is_refused_with_410_for_a_while(
    cluster: ControlPlane, api: Api, tmp_path: Path
) -> None:
    """Meanwhile the resync is what tells of changes."""
    namespace = await api.namespace("l")
    await install(api, namespace)
    proxy = Proxy(api.session, api.server)
    async with proxy.run(tmp_path) as kubeconfig, Pods(api, namespace):
        proxy.watches_refused = True
        async with Operator.run(kubeconfig, settings(namespace, resync=RESYNC)) as operator:
            await deploy(api, namespace)
            await until(lambda: api.ready(namespace, "fraud"), "Ready without any watch")
            assert proxy.refused
            proxy.watches_refused = False
            seen = operator.metric("mooring_watch_events_total", kind="ModelDeployment")
            await deploy(api, namespace, "other")
            await until(lambda: api.ready(namespace, "other"), "the other is Ready")

            def heard() -> bool:
                now = operator.metric("mooring_watch_events_total", kind="ModelDeployment")
                return now > seen

            await until(heard, "watches tell again")


async def test_an_api_server_that_is_away_amid_a_canary_is_waited_for(
    api: Api, tmp_path: Path
) -> None:
    """It comes back to the very weights that it was left at, and goes on from there."""
    namespace = await api.namespace("l")
    await install(api, namespace)
    proxy = Proxy(api.session, api.server)
    rollout = {"steps": [{"weight": 20}, {"pause": {}}, {"weight": 60}]}
    history = History()
    async with (
        proxy.run(tmp_path) as kubeconfig,
        history.watch(api, namespace),
        Pods(api, namespace) as pods,
        FakeRouters(api, namespace) as routers,
        Operator.run(kubeconfig, settings(namespace, resync=RESYNC)),
    ):
        stage = Stage(api, namespace, pods, routers)
        await stage.apply(V1, routers=True, rollout=rollout)
        await stage.serves(V1)
        await stage.apply(V2, routers=True, rollout=rollout)
        candidate = await stage.waits()
        before = dict(routers.weights)
        proxy.cut_off()
        await stage.act("promote", candidate)
        await asyncio.sleep(3)  # what would be done without an API server would be done by now
        assert routers.weights == before
        proxy.down = False
        await stage.serves(V2)
    assert judge(history.in_order()) == []
    assert routers.breaches == []


async def test_two_installations_on_the_same_objects_come_to_the_same_end(
    cluster: ControlPlane, api: Api, tmp_path: Path
) -> None:
    """Nobody should do that; when somebody does, the two agree instead of fighting, and no pod is
    lost by it. That each child is made once alone (I2) is promised of one installation: of two, one
    may make a Service again that the other has just removed, and then they remove it.
    """
    expected, _ = await _tell(api, tmp_path, "update")
    namespace = await api.namespace("l")
    await install(api, namespace)
    history = History()
    wanted = settings(namespace, resync=RESYNC)
    async with (
        history.watch(api, namespace),
        Pods(api, namespace) as pods,
        FakeRouters(api, namespace) as routers,
        Operator.run(cluster.kubeconfig, wanted) as first,
        _second(cluster, namespace) as second,
    ):
        await STORIES["update"](Stage(api, namespace, pods, routers))
        for operator in (first, second, first):
            await operator.settled()
        before = await api.versions(namespace)
        for operator in (first, second):
            for _ in range(3):
                await operator.round()
        assert await api.versions(namespace) == before
        end = await end_state(api, namespace)
    births, deaths = births_and_deaths(history.in_order())
    assert judge(history.in_order()) == []
    expected |= {"births": _of_pods(expected["births"]), "deaths": _of_pods(expected["deaths"])}
    assert {**end, "births": _of_pods(births), "deaths": _of_pods(deaths)} == expected


def _of_pods(counts: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if name.startswith("Deployment ")}


def _second(
    cluster: ControlPlane, namespace: str
) -> contextlib.AbstractAsyncContextManager[Operator]:
    return Operator.run(cluster.kubeconfig, settings(namespace, resync=RESYNC))


@pytest.mark.parametrize("moment", range(3))
async def test_deleted_at_any_moment_nothing_is_made_for_it_any_more(
    api: Api, tmp_path: Path, moment: int
) -> None:
    """The watch loses the deletion, and the children go one by one."""
    namespace = await api.namespace("l")
    await install(api, namespace)
    proxy = Proxy(api.session, api.server)
    history = History()
    async with (
        proxy.run(tmp_path) as kubeconfig,
        history.watch(api, namespace),
        Pods(api, namespace) as pods,
        FakeRouters(api, namespace) as routers,
        Operator.run(kubeconfig, settings(namespace)),
    ):
        stage = Stage(api, namespace, pods, routers)
        rollout = {"steps": [{"weight": 20}, {"pause": {}}]}
        await stage.apply(V1, routers=True, rollout=rollout)
        if moment > 0:
            await stage.serves(V1)
            await stage.apply(V2, routers=True, rollout=rollout)
            candidate = await stage.waits()
        if moment > 1:
            await stage.act("promote", candidate)
        proxy.rule = lambda p: "drop" if (p.verb, p.target) == _OF_DEPLOYMENTS else None
        await api.delete(kinds.MODEL_DEPLOYMENT, namespace, "fraud")
        gone = len(history.happenings)
        await stage.delete()
        made = [str(h) for h in history.happenings[gone:] if h.change == "ADDED"]
        assert made == []
        assert await api.children(namespace) == {}


_OF_DEPLOYMENTS = ("watch", "ModelDeployment")
