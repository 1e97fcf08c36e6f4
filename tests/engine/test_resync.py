"""The resync: what the watches missed is found, counted and mended; what they did not is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.engine.objects import Json, child, model

from mooring.adapters.kube import ApiError
from mooring.core import kinds
from mooring.core.kinds import CHILD_KINDS, Kind, Ref
from mooring.engine import resync as resync_module
from mooring.engine.metrics import Metrics
from mooring.engine.queue import Key, KeyedQueue
from mooring.engine.resync import Resync, watched
from mooring.engine.store import Store

FRAUD = Key("shop", "fraud")


class Server:
    """Lists and gets from a dictionary; ``before_get`` runs between the list and the get."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Json] = {}
        self.errors: list[ApiError] = []
        self.listed: list[tuple[str, str | None, str]] = []
        self.before_get: Any = lambda: None
        self.hidden: list[Kind] = []

    async def serves(self, kind: Kind) -> bool:
        """Each kind that is hidden is shown the next time."""
        shown = kind not in self.hidden
        self.hidden = [one for one in self.hidden if one != kind]
        return shown

    def put(self, obj: Json) -> Json:
        self.objects[obj["kind"], obj["metadata"]["name"]] = obj
        return obj

    async def list(
        self, kind: Kind, namespace: str | None, *, label_selector: str = "", **_: Any
    ) -> AsyncIterator[list[Json]]:
        self.listed.append((kind.name, namespace, label_selector))
        found = [
            obj
            for (name, _), obj in sorted(self.objects.items())
            if name == kind.name and namespace in (None, obj["metadata"].get("namespace"))
        ]
        yield found[:1]
        if self.errors and kind is kinds.SERVICE:
            raise self.errors.pop()
        yield found[1:]

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Json | None:
        self.before_get()
        return self.objects.get((kind.name, name))


class Setting:
    def __init__(self, *namespaces: str, interval: float = 1000.0) -> None:
        self.server = Server()
        self.store = Store()
        self.queue = KeyedQueue()
        self.metrics = Metrics()
        self.done: list[float] = []
        self.resync = Resync(
            self.server,  # type: ignore[arg-type]
            self.store,
            self.queue,
            self.metrics,
            namespaces,
            interval,
            self.done.append,
        )

    def findings(self, kind: str, finding: str) -> float:
        labels = {"kind": kind, "finding": finding}
        found = self.metrics.registry.get_sample_value("mooring_resync_findings_total", labels)
        return found or 0.0


@pytest.fixture
def setting() -> Setting:
    return Setting()


async def test_an_object_that_the_watch_never_showed_is_taken_in_and_its_key_looked_at(
    setting: Setting,
) -> None:
    setting.server.put(model("fraud", 5))
    assert await setting.resync.compare() == 1
    assert setting.findings("ModelDeployment", "added") == 1
    assert await setting.queue.get() == FRAUD
    assert setting.store.get(kinds.MODEL_DEPLOYMENT, "shop", "fraud") is not None


async def test_a_missed_change_is_found_by_its_version(setting: Setting) -> None:
    setting.store.put(kinds.SERVICE, child(kinds.SERVICE, "fraud", 5))
    setting.server.put(child(kinds.SERVICE, "fraud", 6, spec={"clusterIP": "None"}))
    assert await setting.resync.compare() == 1
    assert setting.findings("Service", "changed") == 1
    assert setting.store.children(FRAUD)[Ref("Service", "fraud")]["spec"] == {"clusterIP": "None"}


async def test_a_missed_deletion_is_found(setting: Setting) -> None:
    """After a 410 kopf lists anew and says nothing of what went meanwhile."""
    setting.store.put(kinds.DEPLOYMENT, child(kinds.DEPLOYMENT, "fraud-a", 5))
    assert await setting.resync.compare() == 1
    assert setting.findings("Deployment", "deleted") == 1
    assert setting.store.children(FRAUD) == {}
    assert await setting.queue.get() == FRAUD


async def test_an_object_replaced_under_its_name_is_found_by_its_uid(setting: Setting) -> None:
    setting.store.put(kinds.SERVICE, child(kinds.SERVICE, "fraud", 5, uid="c1"))
    setting.server.put(child(kinds.SERVICE, "fraud", 9, uid="c2"))
    assert await setting.resync.compare() == 1
    assert setting.store.versions(kinds.SERVICE) == {("shop", "fraud"): ("c2", "9")}


async def test_nothing_missed_is_no_finding(setting: Setting) -> None:
    setting.store.put(kinds.SERVICE, setting.server.put(child(kinds.SERVICE, "fraud", 5)))
    assert await setting.resync.compare() == 0
    assert setting.queue.depth == 0


async def test_a_watch_that_was_faster_is_no_finding(setting: Setting) -> None:
    setting.store.put(kinds.SERVICE, child(kinds.SERVICE, "fraud", 5))
    late = setting.server.put(child(kinds.SERVICE, "fraud", 6))
    setting.server.before_get = lambda: setting.store.put(kinds.SERVICE, late)
    assert await setting.resync.compare() == 0
    assert setting.findings("Service", "changed") == 0


async def test_a_watch_that_reported_the_deletion_first_is_no_finding(setting: Setting) -> None:
    gone = child(kinds.SERVICE, "fraud", 5)
    setting.store.put(kinds.SERVICE, gone)
    setting.server.before_get = lambda: setting.store.remove(kinds.SERVICE, gone)
    assert await setting.resync.compare() == 0


async def test_an_object_that_is_new_since_the_list_is_not_taken_for_deleted(
    setting: Setting,
) -> None:
    """The store is ahead of a list that was read before."""
    setting.store.put(kinds.SERVICE, child(kinds.SERVICE, "fraud", 9))

    def appears() -> None:
        setting.server.put(child(kinds.SERVICE, "fraud", 9))

    setting.server.before_get = appears
    assert await setting.resync.compare() == 0
    assert Ref("Service", "fraud") in setting.store.children(FRAUD)


async def test_only_the_namespaces_served_are_compared_and_no_cluster_kinds() -> None:
    setting = Setting("shop", "bank")
    elsewhere = child(kinds.SERVICE, "fraud", 5)
    elsewhere["metadata"]["namespace"] = "elsewhere"
    setting.server.put(elsewhere)
    assert await setting.resync.compare() == 0
    assert {where for _, where, _ in setting.server.listed} == {"shop", "bank"}
    assert "ClusterModelRuntime" not in {kind for kind, _, _ in setting.server.listed}


async def test_children_are_listed_by_our_label_and_pods_not_at_all(setting: Setting) -> None:
    await setting.resync.compare()
    selected = {kind for kind, _, selector in setting.server.listed if selector}
    assert selected == {kind.name for kind in (*CHILD_KINDS, kinds.JOB)}
    assert "Pod" not in {kind for kind, _, _ in setting.server.listed}
    assert kinds.POD not in watched(clusterwide=True)


async def test_the_first_list_is_tried_until_it_succeeds_even_when_it_expires_half_way(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resync_module, "_RETRY_SECONDS", 0.0)
    setting.server.put(model("fraud", 5))
    setting.server.errors = [ApiError(410, "Expired", "the continue token is too old")] * 2
    await asyncio.wait_for(setting.resync.seed(), 5)
    assert await setting.queue.get() == FRAUD
    assert len(setting.done) == 1, "said once, when all was there"


async def test_nothing_is_watched_before_discovery_shows_what_can_be_listed_already(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resync_module, "_RETRY_SECONDS", 0.0)
    setting.server.hidden = [kinds.MODEL_RUNTIME]
    await asyncio.wait_for(setting.resync.seed(), 5)
    assert setting.server.hidden == []
    assert len(setting.done) == 1


async def test_a_comparison_whose_continue_token_expired_is_tried_again_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resync_module, "_HURRY_SECONDS", 0.0)
    setting = Setting(interval=0.01)
    setting.server.errors = [ApiError(410, "Expired", "the continue token is too old")]
    setting.resync.hurry()
    running = asyncio.create_task(setting.resync.run())
    setting.resync.interval = 1000.0
    async with asyncio.timeout(5):
        while not setting.done:
            await asyncio.sleep(0)
    running.cancel()
    sample = setting.metrics.registry.get_sample_value
    assert sample("mooring_resync_total", {"result": "error"}) == 1
    assert sample("mooring_resync_total", {"result": "success"}) == 1


async def test_a_gap_between_two_watches_is_compared_without_waiting_for_the_interval(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resync_module, "_HURRY_SECONDS", 0.0)
    running = asyncio.create_task(setting.resync.run())
    await asyncio.sleep(0)
    assert setting.done == []
    setting.resync.hurry()
    async with asyncio.timeout(5):
        while not setting.done:
            await asyncio.sleep(0)
    running.cancel()
