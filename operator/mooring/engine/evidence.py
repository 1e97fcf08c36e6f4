"""The tick: what decisions want to have measured is read from Prometheus and weighed, for all
rollouts at once, and every rollout that was weighed is looked at again.

One question per shard reads the counters of all routers; free queries are asked one by one, a few
at a time. Nothing of it waits on the event loop: questions run in the client's threads, and the
judge in one of its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING

from mooring.adapters.prometheus import Prometheus
from mooring.adapters.prometheus_counters import read_counters
from mooring.core import signals
from mooring.core.answers import Answer, NoAnswer, Reason, single_value
from mooring.core.clock import CLOCK_SET_BACK
from mooring.core.examination import Evidence, Examination
from mooring.core.halves import History
from mooring.core.router_counters import Reading, ScrapeLabels
from mooring.core.signals import PodCounts, Pods
from mooring.engine.calibration import Calibration
from mooring.engine.metrics import Metrics
from mooring.engine.predictions import read_predictions
from mooring.engine.queue import Key, KeyedQueue

if TYPE_CHECKING:
    from mooring.core.tribunal import Case, Measured, Remembered

log = logging.getLogger(__name__)

#: Free queries under way. More would only wait for the client's threads, and be told so.
_AT_ONCE = 4


@dataclass(slots=True)
class Examiner:
    """Keeps what is wanted and what was found, by ModelDeployment. Lives on the event loop."""

    prometheus: Prometheus | None
    queue: KeyedQueue
    metrics: Metrics
    now: Callable[[], datetime]
    interval: float
    labels: ScrapeLabels = field(default_factory=ScrapeLabels)
    _wanted: dict[Key, Examination] = field(default_factory=dict)
    _found: dict[Key, Evidence] = field(default_factory=dict)
    _remembered: dict[Key, Remembered] = field(default_factory=dict)
    #: When the last value of each free query was measured, on Prometheus' clock.
    _evaluated: dict[str, float] = field(default_factory=dict)
    _shown: set[tuple[str, str, str]] = field(default_factory=set)
    _calibration: Calibration | None = None
    _warned: tuple[str, ...] = ()
    _asking: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))

    def want(self, key: Key, examination: Examination | None) -> None:
        """What to measure at the next ticks, instead of what was wanted before; None: nothing."""
        if examination is not None:
            self._wanted[key] = examination
            return
        if self._wanted.pop(key, None) is not None:
            self._found.pop(key, None)
            self._remembered.pop(key, None)

    def wanted(self, key: Key) -> Examination | None:
        """What is measured of this key."""
        return self._wanted.get(key)

    def found(self, key: Key) -> Evidence | None:
        """What the last tick found."""
        return self._found.get(key)

    async def run(self) -> None:
        """Ticks until cancelled. A tick that fails is logged, and the next one comes."""
        try:
            while True:
                began = time.monotonic()
                try:
                    await self.tick()
                except Exception:
                    self.metrics.analysis_ticks.labels("error").inc()
                    log.exception("weighing evidence failed; again at the next tick")
                spent = time.monotonic() - began
                await asyncio.sleep(max(self.interval - spent, self.interval / 10))
        finally:
            if self._calibration is not None:
                await self._calibration.close()

    async def tick(self) -> None:
        """One look at everything that is under judgement."""
        wanted = dict(self._wanted)
        self.metrics.analysis_rollouts.set(len(wanted))
        prometheus = self.prometheus
        if not wanted or prometheus is None:  # without one, every decision has said so itself
            self._evaluated.clear()
            self._show({})
            return
        # Here, since an operator that judges nothing should not pay for numpy and scipy.
        from mooring.core.tribunal import Measured

        began = time.monotonic()
        reading = await self._read(prometheus, wanted)
        values = await self._ask(prometheus, wanted)
        pods = await self._signals(prometheus, wanted)
        outputs = await read_predictions(
            prometheus, wanted, self._remembered, self.now(), self.labels
        )
        histories, pending = await self._histories(prometheus, wanted)
        cases = {
            key: self._case(
                key,
                examination,
                reading,
                Measured(
                    values=values.get(key, {}),
                    history=histories.get(key),
                    pods=pods.get(key, Pods()),
                    outputs=outputs.get(key),
                ),
            )
            for key, examination in wanted.items()
            if key not in pending
        }
        now = self.now()
        found = await asyncio.to_thread(_weigh, list(cases.values()), now)
        self.metrics.analysis_seconds.observe(time.monotonic() - began)
        self.metrics.analysis_ticks.labels("success").inc()
        if reading.warnings != self._warned:
            self._warned = reading.warnings
            for warning in reading.warnings:
                log.warning("Prometheus warns: %s", warning)
        for key, (evidence, remembered) in zip(cases, found, strict=True):
            current = self._wanted.get(key)
            if current is None or current.attempt != remembered.attempt:
                continue  # decided otherwise while this was weighed
            self._found[key] = evidence
            self._remembered[key] = remembered
            self.queue.add(key)
        self._show(self._found)

    async def _read(self, prometheus: Prometheus, wanted: Mapping[Key, Examination]) -> Reading:
        targets = [one.target for one in wanted.values() if one.analysis.counted and not one.groups]
        return await read_counters(prometheus, targets, self.labels) if targets else Reading()

    async def _signals(
        self, prometheus: Prometheus, wanted: Mapping[Key, Examination]
    ) -> dict[Key, Pods]:
        """What servers count themselves, where no router does."""
        groups = [group for one in wanted.values() if one.analysis.counted for group in one.groups]
        found = signals.read(
            [
                (question, await self._ask_whole(prometheus, question.text))
                for question in signals.questions(groups, self.labels)
            ],
            self.labels,
        )
        return {
            key: _pods(*(found.get(group, {}) for group in one.groups))
            for key, one in wanted.items()
            if one.groups
        }

    async def _ask_whole(self, prometheus: Prometheus, text: str) -> Answer | NoAnswer:
        async with self._asking:
            return await prometheus.query(text)

    async def _histories(
        self, prometheus: Prometheus, wanted: Mapping[Key, Examination]
    ) -> tuple[Mapping[Key, History], frozenset[Key]]:
        """What stable's halves showed before the rollouts that are not calibrated by it yet, and
        those that have to wait for it, so that they begin with it.
        """
        from mooring.core.tribunal import calibrated

        open_ = {
            key: one
            for key, one in wanted.items()
            if not calibrated(one, self._remembered.get(key))
        }
        if self._calibration is None:
            self._calibration = Calibration(prometheus, self.labels)
        return await self._calibration.histories(open_, self.now())

    async def _ask(
        self, prometheus: Prometheus, wanted: Mapping[Key, Examination]
    ) -> dict[Key, dict[str, float | NoAnswer]]:
        """The free queries, each once however many metrics ask it."""
        texts = {query.text for one in wanted.values() for query in one.queries}
        self._evaluated = {text: at for text, at in self._evaluated.items() if text in texts}
        asked = await asyncio.gather(*(self._ask_one(prometheus, text) for text in texts))
        answers = dict(zip(texts, asked, strict=True))
        return {
            key: {query.metric: answers[query.text] for query in one.queries}
            for key, one in wanted.items()
        }

    async def _ask_one(self, prometheus: Prometheus, text: str) -> float | NoAnswer:
        """One measurement counts once, however often a cache answers with it."""
        async with self._asking:
            answer = await prometheus.query(text, single=True)
        after = self._evaluated.get(text)
        found = single_value(answer, after, self.now().timestamp())
        if not isinstance(found, NoAnswer):
            self._evaluated[text] = found.at
            return found.value
        if found.reason is Reason.STALE and isinstance(answer, Answer):
            at = answer.evaluated_at
            if at is not None and (after is None or at < after - CLOCK_SET_BACK):
                # The next value counts if this clock goes on; that of an old copy stands.
                self._evaluated[text] = at
        return found

    def _case(
        self,
        key: Key,
        examination: Examination,
        reading: Reading,
        measured: Measured,
    ) -> Case:
        from mooring.core.tribunal import Case

        at = examination.target.key
        measured = replace(
            measured,
            sources=reading.sources.get(at, ()),
            unscraped=reading.unscraped.get(at, ()),
            failed=reading.failed.get(at),
        )
        return Case(examination, measured, self._remembered.get(key))

    def _show(self, found: Mapping[Key, Evidence]) -> None:
        """Evidence as gauges, one per metric under judgement; those of the past are taken away."""
        shown = set()
        for key, evidence in found.items():
            for one in evidence.judgement.metrics:
                labels = (key.namespace, key.name, one.name)
                shown.add(labels)
                self.metrics.analysis_evidence.labels(*labels).set(one.evidence or 0.0)
        for labels in self._shown - shown:
            self.metrics.analysis_evidence.remove(*labels)
        self._shown = shown
        counts: dict[str, int] = dict.fromkeys(("Pass", "Fail", "Inconclusive", "NoData"), 0)
        for evidence in found.values():
            counts[evidence.judgement.verdict.value] += 1
        for verdict, count in counts.items():
            self.metrics.analysis_verdicts.labels(verdict).set(count)


def _pods(
    candidate: Mapping[str, PodCounts] | NoAnswer, stable: Mapping[str, PodCounts] | NoAnswer
) -> Pods:
    """Both sides; stable's may be missing, which only says whose fault an outage is."""
    if isinstance(candidate, NoAnswer):
        return Pods(failed=candidate)
    return Pods(candidate, {} if isinstance(stable, NoAnswer) else stable)


def _weigh(cases: list[Case], now: datetime) -> list[tuple[Evidence, Remembered]]:
    from mooring.core.tribunal import weigh

    return weigh(cases, now)
