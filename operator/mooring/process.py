"""One operator process: settings, store, lease, watches, workers, and how they end.

The parts are wired here and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from kubernetes.aio.client import ApiClient, Configuration

from mooring.adapters.kube import ApiError, KubeClient, load_configuration
from mooring.adapters.mlflow import MlflowRegistry
from mooring.adapters.prometheus import Prometheus
from mooring.adapters.prometheus_metrics import PrometheusMetrics
from mooring.adapters.sinks import SinkClient
from mooring.engine.deliveries import Deliveries
from mooring.engine.discovery import Discovery
from mooring.engine.drift import DriftWatch
from mooring.engine.drift_metrics import DriftMetrics
from mooring.engine.ending import ended
from mooring.engine.evidence import Examiner
from mooring.engine.health import Health
from mooring.engine.lease import Fence, FencedLock, LeaseLost, lead
from mooring.engine.metrics import Metrics
from mooring.engine.performance import PerformanceWatch
from mooring.engine.performance_metrics import PerformanceMetrics
from mooring.engine.queue import KeyedQueue
from mooring.engine.reconciler import Reconciler
from mooring.engine.recorder import Recorder
from mooring.engine.registry import RegistryWatch
from mooring.engine.resync import Resync
from mooring.engine.retraining import RetrainingIO
from mooring.engine.routers import RouterPods
from mooring.engine.row_counts import RowCounts
from mooring.engine.store import Store
from mooring.engine.web import serve
from mooring.settings import Settings, identity, own_namespace
from mooring.shell.intake import build_registry, watch

log = logging.getLogger(__name__)

_INTAKE_BACKOFF = 2.0
#: How often the definitions of others are looked for (seconds).
_DISCOVERY = 30.0
#: Python's own 700 has the collector walk through a store of raw JSON, which has no cycles, all
#: the time: a fifth of the CPU at 200 objects.
_COLLECT_EVERY = 20_000


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class _Connection:
    """Since when this process has seen the cluster without a gap."""

    since: datetime = field(default_factory=_now)


@dataclass(slots=True)
class Process:
    """Everything that lives as long as the process does."""

    settings: Settings
    configuration: Configuration
    elect: bool
    discovery_seconds: float = _DISCOVERY
    metrics: Metrics = field(default_factory=Metrics)
    store: Store = field(default_factory=Store)
    queue: KeyedQueue = field(default_factory=KeyedQueue)
    fence: Fence = field(default_factory=Fence)
    connection: _Connection = field(default_factory=_Connection)
    seeded: asyncio.Event = field(default_factory=asyncio.Event)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Runs until a signal or until a task that must not end, ends.

        Raises:
            LeaseLost: the lease was lost; everything has ended by then.
        """
        client = KubeClient(self.configuration, self.fence, self.metrics.on_request)
        health = Health(self.queue, self.metrics, self.settings.resync.total_seconds())
        recorder = Recorder(client, _now, identity())
        resync = Resync(
            client, self.store, self.queue, self.metrics, self.settings.namespaces,
            self.settings.resync.total_seconds(), health.resynced,
        )  # fmt: skip
        discovery = Discovery(
            client, self.store, self.queue, self.discovery_seconds, resync.take_in
        )
        resync.optional = lambda: discovery.known
        routers = RouterPods(client)
        prometheus = self._prometheus()
        examiner = Examiner(
            prometheus, self.queue, self.metrics, _now,
            self.settings.prometheus.interval.total_seconds(),
            self.settings.prometheus.scrape_labels(),
        )  # fmt: skip
        deliveries = Deliveries(
            SinkClient(self.settings.sink_table()), self.queue, self.metrics, self.fence, _now
        )
        counts = RowCounts(prometheus, self.queue, _now)
        performance = PerformanceWatch(
            client, prometheus, self.settings.prometheus.scrape_labels(), self.queue, _now,
            PerformanceMetrics(self.metrics.registry),
        )  # fmt: skip
        retraining = RetrainingIO(client, self.store, self.metrics, deliveries, counts, performance)
        mlflow = self._mlflow()
        registry = RegistryWatch(
            mlflow, self.queue, self.settings.registry.interval.total_seconds()
        )
        reconciler = Reconciler(
            client, self.store, self.queue, recorder, self.metrics, self.settings.rendering(),
            routers, retraining, _now, lambda: self.connection.since, examiner, registry,
            discovery.unserved,
        )  # fmt: skip
        drift = DriftWatch(
            client, self.store, self.queue, recorder, DriftMetrics(self.metrics.registry),
            prometheus, self.settings.prometheus.scrape_labels(), _now,
        )  # fmt: skip
        web = await serve(health, self.metrics, self.settings.port)
        try:
            await self._until_stopped(
                self._intake(resync, discovery),
                self._observe(resync, discovery),
                self._lead(
                    reconciler, recorder, (examiner.run, drift.run, registry.run), health, resync
                ),
                health.tick(),
            )
        finally:
            await web.cleanup()
            await deliveries.close()
            await counts.close()
            await performance.close()
            await routers.close()
            drift.close()
            if mlflow is not None:
                await mlflow.close()
            if prometheus is not None:
                await prometheus.close()
            await client.close()

    def _prometheus(self) -> Prometheus | None:
        access = self.settings.prometheus.access()
        if access is None:
            return None
        return Prometheus(access, PrometheusMetrics(self.metrics.registry).on_asked)

    def _mlflow(self) -> MlflowRegistry | None:
        access = self.settings.registry.access()
        return MlflowRegistry(access) if access is not None else None

    async def _observe(self, resync: Resync, discovery: Discovery) -> None:
        await resync.seed()
        await self._discover(discovery)
        self.seeded.set()
        self.connection.since = _now()
        self.metrics.deployments.set_function(lambda: float(len(list(self.store.all_keys()))))
        async with asyncio.TaskGroup() as group:
            group.create_task(resync.run())
            group.create_task(discovery.run())

    async def _discover(self, discovery: Discovery) -> None:
        """The first look, without which nothing may be decided."""
        while True:
            try:
                return await discovery.look()
            except ApiError as error:
                log.warning("cannot look up which kinds the cluster knows: %s", error)
                await asyncio.sleep(_INTAKE_BACKOFF)

    async def _lead(
        self,
        reconciler: Reconciler,
        recorder: Recorder,
        ticks: Iterable[Callable[[], Coroutine[Any, Any, None]]],
        health: Health,
        resync: Resync,
    ) -> None:
        async def work() -> None:
            await self.seeded.wait()  # a leader that has not seen the cluster decides nothing
            if self.elect:  # it may have stood by for long
                await resync.catch_up()
            log.info("leading: working with %d workers", self.settings.workers)
            health.leading = True
            self.metrics.leader.set(1)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._close_queue())
                group.create_task(recorder.run())
                for tick in ticks:
                    group.create_task(tick())
                for _ in range(self.settings.workers):
                    group.create_task(reconciler.work())

        if not self.elect:
            self.fence.open_for_ever()
            await work()
            return
        election = self.settings.election()
        api = ApiClient(self.configuration)
        lock = FencedLock(election, own_namespace(), identity(), api, self.fence)
        try:
            await lead(lock, election, self.fence, work)
            # Not SystemExit: asyncio lets that out of the loop at once, and what closes the loop
            # then ends kopf's helpers before its watchers, which wait for them for ever.
            raise LeaseLost("the lease was lost: ending, so that nothing goes on on an old view")
        finally:
            await lock.release()
            await api.close()  # type: ignore[no-untyped-call]

    async def _close_queue(self) -> None:
        """Ends with the workers, so that none of them goes on waiting."""
        try:
            await asyncio.Event().wait()
        finally:
            self.queue.close()

    async def _intake(self, resync: Resync, discovery: Discovery) -> None:
        """Kopf's watches. Should they end (an error in the stream is fatal to kopf), begin anew;
        and when the cluster comes to know another kind, or one no more.

        Not before the store is filled: kopf looks once for the kinds that there are, so it must
        not look before their definitions are installed.
        """
        await self.seeded.wait()
        namespaces = self.settings.namespaces
        while True:
            discovery.changed.clear()
            registry = build_registry(
                self.store, self.queue, self.metrics, self.configuration,
                namespaces=namespaces, optional=discovery.known,
                on_gap=lambda: self._after_gap(resync),
                # What is deleted before a kind's first list, or between two watches, is reported by
                # neither. A busy machine takes its time from the one list to the other.
                on_list=resync.hurry,
            )  # fmt: skip
            try:
                await _until(
                    watch(registry, namespaces, self._hear_signals), discovery.changed.wait()
                )
            except Exception:
                log.exception("watching ended; beginning anew")
            self.connection.since = _now()
            if discovery.changed.is_set():
                continue
            await asyncio.sleep(_INTAKE_BACKOFF)
            with contextlib.suppress(ApiError):  # a definition that is gone ends its watch
                await discovery.look()

    def _after_gap(self, resync: Resync) -> None:
        """A watch is there again: what is old in our view has not been so for that long."""
        self.connection.since = _now()
        resync.hurry()

    def _hear_signals(self) -> None:
        """SIGTERM and SIGINT end the process in good order."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop.set)

    async def _until_stopped(self, *coroutines: Coroutine[Any, Any, None]) -> None:
        """Runs all of them until SIGTERM or SIGINT, or until the first one ends."""
        self._hear_signals()
        await _until(*coroutines, self.stop.wait())


async def _until(*coroutines: Coroutine[Any, Any, Any]) -> None:
    """Runs all until the first one ends, and raises what ended it; waits for the others to end."""
    tasks = [asyncio.create_task(c) for c in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        await ended(tasks)


def collect_rarely() -> None:
    """Has Python's collector of cycles walk seldom, and past what is there by now.

    A walk through everything stops the event loop: 0.1 s with 1,000 rollouts under judgement.
    """
    gc.set_threshold(_COLLECT_EVERY, 20, 20)
    gc.freeze()  # modules and models stay as long as the process does


async def run(settings: Settings, kubeconfig: str | None, *, elect: bool) -> None:
    """Connects and runs one process to its end; raises LeaseLost as :meth:`Process.run` does."""
    collect_rarely()
    configuration = await load_configuration(kubeconfig)
    await Process(settings, configuration, elect).run()
