"""kopf as intake: it watches, we take in what it sees and put the key in the queue.

None of kopf's change handlers, daemons, timers or indices are used: they would patch every
object, add finalizers, or slow the start. ``on.event`` writes nothing. It gets deletions and what
:class:`Streams` has not taken in already.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from typing import Any, cast

import aiohttp
import kopf
from kubernetes.aio.client import Configuration

from mooring.adapters.kube import authorization, session
from mooring.core.kinds import Kind
from mooring.engine.ending import to_its_end
from mooring.engine.metrics import Metrics
from mooring.engine.queue import KeyedQueue
from mooring.engine.resync import SELECTOR, selector_of, watched
from mooring.engine.store import Store
from mooring.shell.streams import Streams

log = logging.getLogger(__name__)

_INACTIVITY_SECONDS = 70.0
_CHUNK = 500
_CANCELLATIONS = 5
_CANCELLATION_SECONDS = 3.0
_SPARE_CONNECTIONS = 4


class _NothingStored(kopf.DiffBaseStorage):
    """kopf would keep a copy of the spec in an annotation; nobody needs it.

    It would also copy every object twice to find what has changed: a third of an event's cost.
    """

    def build(
        self, *, body: kopf.Body, extra_fields: Iterable[kopf.FieldSpec] | None = None
    ) -> kopf.BodyEssence:
        return cast(kopf.BodyEssence, {})

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        return None


def build_registry(
    store: Store,
    queue: KeyedQueue,
    metrics: Metrics,
    configuration: Configuration,
    *,
    namespaces: tuple[str, ...],
    optional: tuple[Kind, ...] = (),
    on_gap: Callable[[], None] = lambda: None,
    on_list: Callable[[], None] = lambda: None,
) -> kopf.OperatorRegistry:
    """Handlers for every watched kind, a login that uses our own session, and the settings.

    No namespaces: all of them, and the cluster's kinds too. ``optional`` are the optional kinds
    that the cluster knows: kopf would give up on one that it does not. ``on_gap`` is called when a
    watch is there again after it broke, ``on_list`` when a kind was listed, to be watched from
    there on.
    """
    registry = kopf.OperatorRegistry()
    clusterwide = not namespaces
    # Every watch holds a connection for as long as it lasts; a limit below their number would
    # keep the last ones from ever starting.
    every = watched(clusterwide=clusterwide, optional=optional)
    watches = len(every) * max(1, len(namespaces))
    streams = Streams(every, store, queue, metrics, on_gap, on_list)

    @kopf.on.startup(registry=registry)
    def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        apply_settings(settings, clusterwide=clusterwide, optional=optional)

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        return _session(configuration, streams, connections=2 * watches + _SPARE_CONNECTIONS)

    for kind in every:
        kopf.on.event(kind.group, kind.version, kind.plural, registry=registry)(
            _take_in(kind, store, queue, metrics)
        )
    return registry


async def watch(
    registry: kopf.OperatorRegistry,
    namespaces: tuple[str, ...],
    on_spawned: Callable[[], None] = lambda: None,
) -> None:
    """Watches until a task of kopf's ends, and raises what ended it. No namespaces: all of them.

    Not by ``kopf.operator``: when that ends it cancels every younger task of the event loop, the
    workers and the lease among them. It also takes over SIGTERM and SIGINT, which is why
    ``on_spawned`` is called as soon as it has.
    """
    before = asyncio.all_tasks()
    spawning = asyncio.ensure_future(
        kopf.spawn_tasks(
            registry=registry,
            standalone=True,
            clusterwide=not namespaces,
            namespaces=namespaces,
        )
    )
    try:
        tasks = await asyncio.shield(spawning)
        on_spawned()
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await to_its_end(_end_all(spawning, before))
    for task in done:
        task.result()


async def _end_all(
    spawning: asyncio.Future[Collection[asyncio.Task[Any]]], before: set[asyncio.Task[Any]]
) -> None:
    await _end(set(await spawning))
    await _end(_left_watchers(before))


def _left_watchers(before: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """The watchers that kopf leaves running when one of them has failed.

    They would go on beside those of the next round, and at the end of the process they would wait
    for ever for helpers of theirs that are cancelled first.
    """
    return {
        task for task in asyncio.all_tasks() - before if task.get_name().startswith("watcher for ")
    }


async def _end(tasks: set[asyncio.Task[Any]]) -> None:
    """Cancels until all have ended: kopf's tasks take some cancellations for a wish to tidy up."""
    for _ in range(_CANCELLATIONS):
        if not tasks:
            return
        for task in tasks:
            task.cancel()
        _, tasks = await asyncio.wait(tasks, timeout=_CANCELLATION_SECONDS)
    log.warning("kopf's tasks did not end: %s", ", ".join(sorted(t.get_name() for t in tasks)))


def apply_settings(
    settings: kopf.OperatorSettings, *, clusterwide: bool, optional: tuple[Kind, ...] = ()
) -> None:
    """What kopf must not do, and how it watches."""
    settings.posting.enabled = False
    settings.scanning.disabled = True
    # Or kopf kills the process ten minutes after watching was begun anew.
    settings.process.ultimate_exiting_timeout = None
    settings.persistence.diffbase_storage = _NothingStored()
    settings.watching.chunk_size = _CHUNK
    settings.watching.inactivity_timeout = _INACTIVITY_SECONDS
    settings.networking.error_backoffs = [0.5, 1, 2, 5, 10]
    settings.queueing.idle_timeout = 1.0
    for kind in watched(clusterwide=clusterwide, optional=optional):
        if selector_of(kind):
            settings.watching.label_selectors[kind.group, kind.version, kind.plural] = SELECTOR


def _take_in(
    kind: Kind, store: Store, queue: KeyedQueue, metrics: Metrics
) -> Callable[..., Coroutine[Any, Any, None]]:
    # async, or kopf would run it in a thread, beside the event loop that owns store and queue
    async def on_event(event: Mapping[str, Any], **_: Any) -> None:
        metrics.events_seen.labels(kind.name).inc()
        change = store.remove if event["type"] == "DELETED" else store.put
        for key in change(kind, event["object"]):
            queue.add(key)

    return on_event


def _session(
    configuration: Configuration, streams: Streams, connections: int
) -> kopf.AiohttpSession:
    """A session with a bounded number of connections whose token follows the file on disk."""

    async def authorize(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        allowed = await authorization(configuration)
        if allowed is not None:
            request.headers["Authorization"] = allowed
        return await handler(request)

    made = session(configuration, connections=connections, middlewares=(authorize, streams))
    return kopf.AiohttpSession(server=configuration.host, aiohttp_session=made)
