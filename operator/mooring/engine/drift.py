"""Judging the data of all monitored deployments, beside the work on objects.

Nothing here is triggered by an event of the cluster, and nothing in a round of the reconciler waits
for it. At the end of a window the counts of all deployments are read by one question per shard and
judged in a thread; what comes of it is one write per deployment, of the ConfigMap ``<name>-drift``.
The watch on that ConfigMap brings it into status by the usual way.

A window is taken by that write and by nothing else. So what was being judged when the process ended
is judged again, from the same samples; a window that ended meanwhile is read by its time; one whose
question is not answered waits, and those after it with it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from mooring.adapters.kube import ApiError, KubeClient
from mooring.adapters.prometheus_telemetry import read_window
from mooring.api import InvalidResource, MonitoringSpec, parse_model_deployment
from mooring.core import kinds
from mooring.core.answers import NoAnswer
from mooring.core.conditions import Finding
from mooring.core.events import WARNING, Event
from mooring.core.kinds import Ref
from mooring.core.monitoring import NO_PROMETHEUS, Report, drift_name, shown, unanswered
from mooring.core.objects import owned
from mooring.core.observed import Manifest
from mooring.core.router_counters import ScrapeLabels
from mooring.core.telemetry import Counted, Name, Watched, joined, parts
from mooring.engine.drift_child import (
    Monitored,
    each,
    end_of,
    next_end,
    opened,
    opened_reference,
    told,
    was_retrained,
)
from mooring.engine.drift_metrics import DriftMetrics
from mooring.engine.lease import LeaseLost
from mooring.engine.queue import Key, KeyedQueue
from mooring.engine.recorder import Recorder
from mooring.engine.store import ObjectKey, Store

if TYPE_CHECKING:
    from mooring.adapters.prometheus import Prometheus
    from mooring.core.drift.memory import Memory
    from mooring.core.drift.tick import Earlier

log = logging.getLogger(__name__)

#: After the end of a window, until the last scrape in it is sure to be stored: a scrape bears the
#: time when it began and may take ten seconds.
SETTLE = 15.0
#: Windows of one deployment that are judged before the others have their turn and it is written.
_BATCH = 24
#: Windows that are made up for after a long absence; earlier ones are given up.
_MOST_BEHIND = 1000
#: Between two looks for deployments that are new.
_LOOK = 15.0
_AFTER_FAILURE = 30.0
#: Between two attempts to read a window, and for how long status says nothing of it.
_AGAIN = 10.0
_PATIENCE = 60.0
_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class _Beside:
    """What a window is judged with: the same hours of earlier seasons, a new base, and the whole
    seasons that are over.
    """

    earlier: tuple[Earlier, ...] = ()
    fresh: Counted | None = None
    seasons: tuple[Earlier, ...] = ()


@dataclass(slots=True)
class DriftWatch:
    """Follows all monitored deployments; :meth:`run` is one task of the leader."""

    client: KubeClient
    store: Store
    queue: KeyedQueue
    recorder: Recorder
    metrics: DriftMetrics
    prometheus: Prometheus | None
    labels: ScrapeLabels
    now: Callable[[], datetime]
    settle: float = SETTLE
    _threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="drift")
    )
    _specs: dict[Key, tuple[str, MonitoringSpec | None]] = field(default_factory=dict)
    #: Versions of ModelDeployments that ask for no monitoring.
    _passed_over: dict[ObjectKey, tuple[str, str]] = field(default_factory=dict)
    _not_before: float = 0.0

    async def run(self) -> None:
        """Rounds until cancelled or until the lease is lost."""
        while True:
            try:
                wait = await self.round()
            except (LeaseLost, asyncio.CancelledError):
                raise
            except Exception:  # a defect here must not end the work on objects
                log.exception("judging the data failed; again in %.0f s", _AFTER_FAILURE)
                wait = _AFTER_FAILURE
            await asyncio.sleep(wait)

    def close(self) -> None:
        """Ends the thread once what it does is done."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def round(self) -> float:
        """Judges what is due; returns how many seconds there are until the next look."""
        watched = self._monitored()
        self.metrics.keep({(one.key.namespace, one.key.name) for one in watched})
        now = self.now().timestamp()
        for one in watched:
            if not self.metrics.knows(one.key.namespace, one.key.name):
                self._show(one)
        fresh = [one for one in watched if one.last_end is None]
        due = [one for one in watched if (end := next_end(one)) and end + self.settle <= now]
        self.metrics.behind(max((now - (next_end(one) or now) for one in due), default=0.0))
        await each(fresh, lambda one: self._begin(one, now))
        waiting = {one.key for one in due}
        troubled = [one for one in watched if one.problem and one.key not in waiting]
        await each(troubled, self._look_again)
        groups: dict[tuple[float, float, float], list[Monitored]] = defaultdict(list)
        for one in due:
            groups[one.last_end or 0.0, next_end(one) or 0.0, one.window].append(one)
        await asyncio.gather(
            *(self._group(group, *span, now) for span, group in sorted(groups.items()))
        )
        moments = [
            end + self.settle for one in self._monitored() if (end := next_end(one)) is not None
        ]
        soonest = max(min(moments, default=math.inf), self._not_before) - self.now().timestamp()
        return min(max(soonest, 1.0), _LOOK)

    def _show(self, one: Monitored) -> None:
        """The metrics of what was judged before this process began."""
        known = told(one)
        if known is not None and one.last_end is not None:
            self.metrics.report(one.key.namespace, one.key.name, one.last_end, known)

    def _monitored(self) -> list[Monitored]:
        found = []
        keys = set()
        versions = self.store.versions(kinds.MODEL_DEPLOYMENT)
        self._passed_over = {
            at: version for at, version in self._passed_over.items() if versions.get(at) == version
        }
        for at, version in versions.items():
            if at in self._passed_over:
                continue  # reading thousands that are at rest takes a while
            key = Key(*at)
            resource = self.store.get(kinds.MODEL_DEPLOYMENT, *at)
            if resource is None or not (resource.get("spec") or {}).get("monitoring"):
                self._passed_over[at] = version
                continue
            if resource["metadata"].get("deletionTimestamp"):
                continue
            keys.add(key)
            spec = self._spec(key, resource)
            if spec is None:
                continue
            children = self.store.children(key)
            child = children.get(Ref(kinds.CONFIG_MAP.name, drift_name(key.name)))
            if child is not None and not owned(child, resource["metadata"].get("uid", "")):
                child = None
            found.append(Monitored(key, resource, spec, child, was_retrained(children, resource)))
        for gone in self._specs.keys() - keys:
            del self._specs[gone]
        return found

    def _spec(self, key: Key, resource: Manifest) -> MonitoringSpec | None:
        """The spec, parsed once per generation; None where it cannot be read (status says so)."""
        meta = resource["metadata"]
        version = f"{meta.get('uid')}/{meta.get('generation')}"
        known = self._specs.get(key)
        if known is None or known[0] != version:
            try:
                parsed = parse_model_deployment(
                    {k: v for k, v in resource.items() if k != "status"}
                ).spec.monitoring
            except InvalidResource:
                parsed = None
            known = self._specs[key] = (version, parsed)
        return known[1]

    async def _begin(self, one: Monitored, now: float) -> None:
        """Writes the ConfigMap of a deployment that has none: from here on windows count."""
        from mooring.core.drift import tick

        start = math.floor(now / one.window) * one.window
        problem = await self._reference_problem(one)
        await self._write(one, *tick.begun(start, start + one.window, problem))

    async def _look_again(self, one: Monitored) -> None:
        """Whether a reference that was missing or wrong is right by now: said at once."""
        from mooring.core.drift import tick

        memory, report = opened(one, one.last_end or 0.0)
        problem = await self._reference_problem(one)
        if problem is not None and problem.reason in _WAITS:
            return
        if problem is None:
            end = next_end(one)
            problem = Finding("Starting", f"the window ends at {shown(end)}", "Unknown")
        changed = tick.unread(report, problem)
        if changed != report:
            await self._write(one, memory, changed)

    async def _reference_problem(self, one: Monitored) -> Finding | None:
        from mooring.core.drift.watch import unsuitable

        if self.prometheus is None:
            return NO_PROMETHEUS
        reference = await self._reference(one)
        if isinstance(reference, Finding):
            return reference
        return unsuitable(one.watch(), reference)

    async def _group(
        self, group: list[Monitored], start: float, end: float, window: float, now: float
    ) -> None:
        """Deployments whose next window is the same: read by the same questions."""
        counts = await self._read(group, start, end, window)
        await each(group, lambda one: self._judge(one, counts, start, end, now))

    async def _read(
        self, group: Iterable[Monitored], start: float, end: float, window: float
    ) -> Mapping[Name, Counted | NoAnswer]:
        if self.prometheus is None:
            return {}
        watched = [Watched(one.key.namespace, one.key.name, features=one.features) for one in group]
        return await read_window(self.prometheus, watched, start, end, window, self.labels)

    async def _judge(
        self,
        one: Monitored,
        counts: Mapping[Name, Counted | NoAnswer],
        start: float,
        end: float,
        now: float,
    ) -> None:
        """One window, and those after it that are over, too; then one write."""
        from mooring.core.drift import tick

        memory, report = opened(one, start)
        before = memory, report
        reference = await self._reference(one)
        for _ in range(_BATCH):
            name = (one.key.namespace, one.key.name)
            problem, counted = self._problem(counts.get(name), reference)
            if problem is not None and problem.reason in _WAITS:
                self._waits(now)
                if now - end > self.settle + _PATIENCE:
                    report = tick.unread(report, problem)
                break
            if problem is not None or counted is None or isinstance(reference, Finding):
                memory, report = tick.skipped(memory, report, problem or _ODD, start, end)
            else:
                beside: _Beside | None = _Beside()
                if tick.hindrance(one.watch(), reference, counted) is None:
                    beside = await self._beside(one, memory, report, start, end)
                if beside is None:
                    self._waits(now)
                    if now - end > self.settle + _PATIENCE:
                        report = tick.unread(report, unanswered("earlier traffic"))
                    break
                began = time.monotonic()
                judged_by = partial(
                    tick.judge, one.watch(), reference, counted, memory, report, start, end,
                    beside.earlier, fresh=beside.fresh, seasons=beside.seasons,
                )  # fmt: skip
                loop = asyncio.get_running_loop()
                memory, report = await loop.run_in_executor(self._threads, judged_by)
                self.metrics.judged(time.monotonic() - began)
            judged = report.facts is not None and memory.past and memory.past[-1].state != "NoData"
            self.metrics.window("judged" if judged else "no-data")
            start, end = memory.last_end, end_of(memory.last_end, one.window)
            behind = (now - end) / one.window
            if behind > _MOST_BEHIND:
                log.warning("%s: %.0f windows are too many to make up for", one.key, behind)
                start = math.floor(now / one.window - _MOST_BEHIND) * one.window
                end = start + one.window
            if end + self.settle > now:
                break
            counts = await self._read([one], start, end, one.window)
        if (memory, report) != before:
            await self._write(one, memory, report)
        self.metrics.report(one.key.namespace, one.key.name, memory.last_end, report)

    def _waits(self, now: float) -> None:
        """A window could not be read, and is asked for again a little later."""
        self.metrics.window("unread")
        self._not_before = now + _AGAIN

    def _problem(
        self, counted: Counted | NoAnswer | None, reference: object
    ) -> tuple[Finding | None, Counted | None]:
        """Why a window cannot be judged, or its counts."""
        if self.prometheus is None:
            return NO_PROMETHEUS, None
        if isinstance(counted, NoAnswer):
            return unanswered("the last window", counted.message), None
        if isinstance(reference, Finding):
            return reference, None
        return None, counted

    async def _beside(
        self, one: Monitored, memory: Memory, report: Report, start: float, end: float
    ) -> _Beside | None:
        """What else is needed to judge a window; None when Prometheus does not answer."""
        from mooring.core.drift.season import wanted_starts
        from mooring.core.drift.tick import Earlier, rebasing, seasons_due

        watch = one.watch()
        earlier, fresh, seasons = [], None, []
        seasonal, length = one.spec.reference.seasonal, watch.season
        if seasonal is not None and length is not None:
            for at in wanted_starts(start, one.window, offset=length, weeks=seasonal.weeks):
                counts = await self._span(one, at, at + one.window)
                if counts is None:
                    return None
                if counts.scrapes:
                    earlier.append(Earlier(at, at + one.window, counts))
        for span in seasons_due(watch, memory, end):
            season = await self._long(one, (span,))
            if season is None:
                return None
            seasons.append(Earlier(*span, season))
        wanted = rebasing(watch, memory, report, start)
        if wanted:
            fresh = await self._long(one, wanted)
            if fresh is None:
                return None
        return _Beside(tuple(earlier), fresh, tuple(seasons))

    async def _span(self, one: Monitored, start: float, end: float) -> Counted | None:
        """What was counted between two moments; None when Prometheus does not answer."""
        counts = await self._read([one], start, end, max(one.window, _HOUR))
        found = counts.get((one.key.namespace, one.key.name))
        return found if isinstance(found, Counted) else None

    async def _long(self, one: Monitored, spans: Iterable[tuple[float, float]]) -> Counted | None:
        """What was counted in long spans, without the hours that cannot be told apart.

        They are read by the hour at least: they may hold thousands of short windows.
        """
        found = []
        for start, end in spans:
            for part in parts(start, end, max(one.window, _HOUR)):
                counts = await self._span(one, part.start, part.end)
                if counts is None:
                    return None
                if not counts.gap:
                    found.append(counts)
        return joined(found)

    async def _reference(self, one: Monitored) -> Any:
        """The Reference, or the Finding that says why there is none."""
        name = one.spec.reference.config_map
        try:
            found = await self.client.get(kinds.CONFIG_MAP, one.key.namespace, name)
        except ApiError as error:
            return Finding(
                "ReferenceUnread", f"ConfigMap {name} cannot be read now: {error}", "Unknown"
            )
        if found is None:
            return Finding(
                "ReferenceMissing",
                f"ConfigMap {name} does not exist in namespace {one.key.namespace}: `mooring "
                "reference build` makes one",
                "Unknown",
            )
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, opened_reference, found
        )

    async def _write(self, one: Monitored, memory: Memory, report: Report) -> None:
        """The one write of a window. A conflict means that somebody was faster: look again."""
        name = drift_name(one.key.name)
        body = one.manifest(memory, report)
        try:
            written = await self.client.apply(kinds.CONFIG_MAP, body, create_only=one.child is None)
        except ApiError as error:
            if error.status == 409:
                await self._look_closer(one, name)
                return
            log.warning("%s: %s was not written: %s", one.key, name, error)
            return
        for key in self.store.put(kinds.CONFIG_MAP, written):
            self.queue.add(key)

    async def _look_closer(self, one: Monitored, name: str) -> None:
        live = await self.client.get(kinds.CONFIG_MAP, one.key.namespace, name)
        if live is None:
            return
        if owned(live, one.resource["metadata"].get("uid", "")):
            for key in self.store.put(kinds.CONFIG_MAP, live):
                self.queue.add(key)
            return
        text = f"ConfigMap {name} exists and is not ours, so the data is not judged: remove it"
        self.recorder.record(one.resource, Event(WARNING, "NameTaken", text))


_ODD = Finding("NotCounted", "nothing is known about the last window", "Unknown")
#: Reasons for which a window waits until it can be read.
_WAITS = frozenset({"PrometheusUnavailable", "ReferenceUnread"})
