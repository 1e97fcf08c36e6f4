"""kopf's traps, as far as no API server is needed to step into them. The rest of them:
``tests/apiserver/test_kopf_traps.py``.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import kopf
import pytest
from aiohttp import web
from kopf._core.intents.registries import OperatorRegistry
from kubernetes.aio.client import Configuration
from kubernetes.aio.config.incluster_config import InClusterConfigLoader
from tests.engine.objects import model

from mooring.core import kinds
from mooring.core.kinds import CHILD_KINDS
from mooring.engine.metrics import Metrics
from mooring.engine.queue import Key, KeyedQueue
from mooring.engine.resync import SELECTOR, watched
from mooring.engine.store import Store
from mooring.shell import intake
from mooring.shell.streams import Streams

SOURCES = Path(intake.__file__).parents[1]


def settings(*, clusterwide: bool = True) -> kopf.OperatorSettings:
    found = kopf.OperatorSettings()
    intake.apply_settings(found, clusterwide=clusterwide)
    return found


def registry(*namespaces: str, store: Store | None = None) -> OperatorRegistry:
    return intake.build_registry(
        store or Store(), KeyedQueue(), Metrics(), Configuration(), namespaces=namespaces
    )


def test_only_on_event_is_used_since_all_else_patches_objects_or_slows_the_start() -> None:
    found = registry()
    assert list(found._watching.get_all_handlers())
    for other in (found._changing, found._spawning, found._indexing, found._webhooks):
        assert list(other.get_all_handlers()) == []


def test_kopf_posts_no_events_and_scans_for_nothing() -> None:
    found = settings()
    assert found.posting.enabled is False
    assert found.scanning.disabled is True


def test_initial_streaming_is_off_since_it_loses_objects_on_a_dropped_connection() -> None:
    assert settings().watching.initial_streaming is False


def test_a_silent_watch_is_given_up_after_a_while() -> None:
    timeout = settings().watching.inactivity_timeout
    assert timeout is not None
    assert 60 < timeout <= 120, "bookmarks come every minute"


def test_no_copy_of_the_spec_is_kept() -> None:
    storage = settings().persistence.diffbase_storage
    patch = kopf.Patch()
    storage.store(body=kopf.Body({}), patch=patch, essence=kopf.BodyEssence({}))
    assert not patch
    assert storage.fetch(body=kopf.Body({})) is None


def test_a_watch_begun_anew_does_not_kill_the_process_ten_minutes_later() -> None:
    assert settings().process.ultimate_exiting_timeout is None


@pytest.mark.parametrize("kind", [*CHILD_KINDS, kinds.JOB], ids=lambda kind: kind.name)
def test_children_and_jobs_are_watched_by_label(kind: kinds.Kind) -> None:
    selectors = settings().watching.label_selectors
    assert selectors[kind.group, kind.version, kind.plural] == SELECTOR


def test_our_own_kinds_are_watched_whole() -> None:
    text = repr(settings().watching.label_selectors)
    assert "modeldeployments" not in text
    assert "modelruntimes" not in text
    assert "retrainingrequests" not in text


def test_pods_are_not_watched() -> None:
    handlers = registry()._watching.get_all_handlers()
    plurals = {handler.selector.any_name for handler in handlers if handler.selector is not None}
    assert plurals == {kind.plural for kind in watched(clusterwide=True)}
    assert "pods" not in plurals


def test_a_namespaced_installation_watches_no_cluster_kind() -> None:
    handlers = registry("shop")._watching.get_all_handlers()
    plurals = {handler.selector.any_name for handler in handlers if handler.selector is not None}
    assert "clustermodelruntimes" not in plurals


def test_handlers_are_coroutines_or_kopf_would_run_them_in_threads() -> None:
    for handler in registry()._watching.get_all_handlers():
        assert inspect.iscoroutinefunction(handler.fn)


async def test_an_event_is_taken_in_on_the_event_loops_thread() -> None:
    threads: list[int] = []

    class Watching(Store):
        def put(self, *args: object) -> set[Key]:
            threads.append(threading.get_ident())
            return super().put(*args)  # type: ignore[arg-type]

    handler = next(
        handler
        for handler in registry(store=Watching())._watching.get_all_handlers()
        if handler.selector is not None and handler.selector.any_name == "modeldeployments"
    )
    on_event: Any = handler.fn
    await on_event(event={"type": "ADDED", "object": model("fraud", 1)})
    assert threads == [threading.get_ident()]


def test_neither_kopfs_events_nor_its_own_end_of_an_operator_are_used() -> None:
    """``kopf.event`` raises outside a handler; ``kopf.operator`` and ``kopf.run`` cancel every
    task of the loop when they end.
    """
    for path in SOURCES.rglob("*.py"):
        text = path.read_text()
        for trap in ("kopf.event(", "kopf.info(", "kopf.operator(", "kopf.run(", "kopf.adopt("):
            assert trap not in text, path


@pytest.mark.parametrize("namespaces", [(), ("a",), tuple("abcdefghij")], ids=len)
async def test_the_session_is_bounded_and_has_room_for_every_watch(
    namespaces: tuple[str, ...],
) -> None:
    handlers = list(registry(*namespaces)._activities.get_all_handlers())
    login: Any = handlers[-1].fn
    info = await login()
    assert isinstance(info, kopf.AiohttpSession)
    connector = info.aiohttp_session.connector
    assert connector is not None
    watches = len(watched(clusterwide=not namespaces)) * max(1, len(namespaces))
    assert watches < connector.limit <= 4 * watches
    await info.aiohttp_session.close()


@pytest.fixture
async def tokens_seen() -> AsyncIterator[tuple[str, list[str]]]:
    seen: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers["Authorization"])
        return web.json_response({})

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", seen
    await runner.cleanup()


async def test_the_sessions_token_is_read_anew_when_the_file_changes(
    tmp_path: Path, tokens_seen: tuple[str, list[str]]
) -> None:
    url, seen = tokens_seen
    token, authority = tmp_path / "token", tmp_path / "ca.crt"
    token.write_text("one")
    authority.write_text("unused, but must not be empty")
    loader = InClusterConfigLoader(  # type: ignore[no-untyped-call]
        token_filename=str(token),
        cert_filename=str(authority),
        environ={"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "1"},
    )
    loader._token_refresh_period *= 0
    configuration = Configuration()
    loader.load_and_set(configuration)  # type: ignore[no-untyped-call]
    configuration.host, configuration.ssl_ca_cert = url, None
    streams = Streams((), Store(), KeyedQueue(), Metrics(), lambda: None, lambda: None)
    info = intake._session(configuration, streams, 4)
    async with info.aiohttp_session as session:
        for text in ("one", "two", "two", "three"):
            token.write_text(text)
            async with session.get(url) as answer:
                assert answer.status == 200
    assert [value.split()[1] for value in seen] == ["one", "two", "two", "three"]


async def test_watching_that_ends_leaves_the_tasks_of_others_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def failing() -> None:
        await asyncio.sleep(0)
        raise RuntimeError("an ERROR in the stream")

    async def going_on() -> None:
        await asyncio.Event().wait()

    watches = [asyncio.create_task(failing()), asyncio.create_task(going_on())]

    async def spawn_tasks(**_: object) -> list[asyncio.Task[None]]:
        return watches

    monkeypatch.setattr(kopf, "spawn_tasks", spawn_tasks)
    told: list[str] = []
    others = asyncio.create_task(going_on())
    with pytest.raises(RuntimeError, match="an ERROR"):
        await intake.watch(registry(), (), lambda: told.append("spawned"))
    assert told == ["spawned"]
    assert all(task.done() for task in watches)
    assert not others.done()
    others.cancel()


@pytest.mark.parametrize("steps", range(8))
async def test_watching_that_is_cancelled_at_any_moment_and_again_leaves_no_task_of_kopfs(
    monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """A watcher that is left can keep the loop from closing: it waits for helpers ended first."""
    watches: list[asyncio.Task[None]] = []

    async def tidies() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(5):
                await asyncio.sleep(0)

    async def spawn_tasks(**_: object) -> list[asyncio.Task[None]]:
        watches.append(asyncio.create_task(tidies(), name="resource observer"))
        watches.append(asyncio.create_task(tidies(), name="watcher for services"))
        await asyncio.sleep(0)
        return watches[:1]  # the second one comes by way of the first

    monkeypatch.setattr(kopf, "spawn_tasks", spawn_tasks)
    monkeypatch.setattr(intake, "_CANCELLATION_SECONDS", 0.001)
    watching = asyncio.create_task(intake.watch(registry(), ()))
    for _ in range(steps):
        await asyncio.sleep(0)
    while not watching.done():
        watching.cancel()
        await asyncio.sleep(0)
    assert watching.cancelled()
    assert all(task.done() for task in watches)


async def test_no_server_of_kopfs_own_is_started_for_probes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: dict[str, object] = {}

    async def spawn_tasks(**kwargs: object) -> list[asyncio.Task[None]]:
        given.update(kwargs)
        return [asyncio.create_task(asyncio.sleep(0))]

    monkeypatch.setattr(kopf, "spawn_tasks", spawn_tasks)
    await intake.watch(registry("shop"), ("shop",))
    assert given.get("liveness_endpoint") is None
    assert given["standalone"] is True, "no peering objects"
    assert (given["clusterwide"], given["namespaces"]) == (False, ("shop",))
