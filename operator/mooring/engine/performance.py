"""Measuring how well models do, beside the workers and every few minutes at most.

What came of it is kept in memory; a restart measures again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mooring.adapters.kube import ApiError, KubeClient
from mooring.adapters.prometheus import Prometheus
from mooring.core import kinds
from mooring.core.answers import NoAnswer, read_keyed
from mooring.core.conditions import Finding
from mooring.core.observed import Manifest
from mooring.core.retrain.measuring import EVERY, Labels, Measurement, query, read
from mooring.core.router_counters import KEY, ScrapeLabels
from mooring.engine.drift_child import opened_reference
from mooring.engine.performance_metrics import PerformanceMetrics
from mooring.engine.queue import Key, KeyedQueue

if TYPE_CHECKING:
    from mooring.core.drift.reference import Reference
    from mooring.core.retrain.figures import Told

log = logging.getLogger(__name__)

_AT_ONCE = 2
_NOT_CONFIGURED = "the operator's administrator has named no Prometheus"


@dataclass(frozen=True, slots=True)
class _Found:
    revision: str
    told: Told | None
    problem: str = ""


@dataclass(slots=True)
class PerformanceWatch:
    """Starts measurements and remembers what came of them."""

    client: KubeClient
    prometheus: Prometheus | None
    labels: ScrapeLabels
    queue: KeyedQueue
    now: Callable[[], datetime]
    shown: PerformanceMetrics
    _found: dict[Key, _Found] = field(default_factory=dict)
    _asked: dict[Key, tuple[Measurement, datetime]] = field(default_factory=dict)
    _under_way: set[asyncio.Task[None]] = field(default_factory=set)
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))

    def found(self, key: Key) -> dict[str, Any]:
        """What is known of a ModelDeployment, as fields of RetrainingFacts."""
        found = self._found.get(key)
        if found is None:
            return {}
        told = found.told
        return {
            "performance": dict(told.metrics) if told is not None else {},
            "performance_of": found.revision,
            "performance_problem": found.problem or (told.problem if told is not None else ""),
        }

    def start(self, key: Key, what: Measurement) -> None:
        """Measures, unless the same was measured a moment ago."""
        before, now = self._asked.get(key), self.now()
        if before is not None and before[0] == what and now < before[1] + EVERY:
            return
        self._asked[key] = what, now
        task = asyncio.create_task(self._measure(key, what), name=f"measure {key}")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    def forget(self, key: Key) -> None:
        """The ModelDeployment is gone, or nothing of it is to be measured any more."""
        self._asked.pop(key, None)
        if self._found.pop(key, None) is not None:
            self.shown.show(key, {})

    async def close(self) -> None:
        """Ends what is under way."""
        tasks = list(self._under_way)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _measure(self, key: Key, what: Measurement) -> None:
        try:
            async with self._slots:
                found = await self._told(what)
        except Exception as error:  # a defect here must not be silence
            log.exception("measuring %s", key)
            found = _Found(what.revision, None, f"a defect of the operator: {error}")
        asked = self._asked.get(key)
        if asked is None or asked[0] != what:
            return  # gone, or of another revision meanwhile
        if self._found.get(key) != found:
            self._found[key] = found
            self.shown.show(key, found.told.metrics if found.told is not None else {})
            self.queue.add(key)

    async def _told(self, what: Measurement) -> _Found:
        if self.prometheus is None:
            return _Found(what.revision, None, _NOT_CONFIGURED)
        reference = await self._reference(what)
        if isinstance(reference, str):
            return _Found(what.revision, None, reference)

        def reader(body: bytes, _: float) -> Labels | NoAnswer:
            keyed = read_keyed(body, KEY)
            return keyed if isinstance(keyed, NoAnswer) else read(keyed, reference.grid_hash)

        answer = await self.prometheus.read(query(what, self.now(), self.labels), reader)
        if isinstance(answer, NoAnswer):
            return _Found(what.revision, None, str(answer.message))
        return _Found(what.revision, await asyncio.to_thread(_measured, answer, reference))

    async def _reference(self, what: Measurement) -> Reference | str:
        """The reference in whose cells labels are counted, or why there is none."""
        name = what.reference
        try:
            live = await self.client.get(kinds.CONFIG_MAP, what.namespace, name)
        except ApiError as error:
            return f"ConfigMap {name} cannot be read now: {error}"
        if live is None:
            return f"ConfigMap {name} does not exist"
        opened = await asyncio.to_thread(_opened, live)
        return opened.message if isinstance(opened, Finding) else opened


def _opened(live: Manifest) -> Reference | Finding:
    return opened_reference(live)


def _measured(labels: Labels, reference: Reference) -> Told:
    from mooring.core.retrain.figures import measured

    return measured(labels, reference)
