"""One run of a story with at most one fault, and what is found wrong with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.apiserver.cluster import Api, Operator, install, settings
from tests.apiserver.fake_gateway import FakeGateway
from tests.apiserver.pods import Pods
from tests.faults.audit import Audit, judge_writes
from tests.faults.history import WATCHED, History, Json, end_state
from tests.faults.last_words import last_words
from tests.faults.measuring import Measuring
from tests.faults.oracles import births_and_deaths, judge
from tests.faults.proxy import QUERY_FAULTS, REQUEST_FAULTS, WATCH_FAULTS, Fault, Point, Proxy
from tests.faults.routers import FakeRouters
from tests.faults.stories import JUDGED, STORIES, Stage

from mooring.core import gateway
from mooring.core.kinds import OPTIONAL_KINDS
from mooring.engine.ending import ended

#: How soon what a watch has lost is found; five minutes outside of tests.
RESYNC = timedelta(seconds=1)
#: So much is said of a value that differs (characters).
_SHOWN = 300
#: A fake Gateway routes as it says; its proxies need no time (a constant of two seconds otherwise).
gateway.SETTLES = timedelta(seconds=0.3)
WRITES = ("apply", "scale", "create", "delete", "patch", "patch-status")
#: Bounds a run that does not come to its end; a busy machine must not (seconds).
LONGEST = 300.0
#: A resync lists every kind each second: beyond the first few there is nothing new about them.
_LISTS = 2


@dataclass(frozen=True, slots=True, order=True)
class Case:
    """A fault in a story. Its text names it, and is read back by :meth:`parse`."""

    story: str
    fault: Fault

    def __str__(self) -> str:
        return f"{self.story}/{self.fault}"

    @property
    def command(self) -> str:
        """The one line that repeats it."""
        return f"make fault CASE='{self}'"

    @classmethod
    def parse(cls, text: str) -> Case:
        """Reads ``update/lost@apply:Deployment fraud-xyz:1``; raises ValueError."""
        story, _, fault = text.partition("/")
        if story not in STORIES:
            raise ValueError(f"there is no story {story!r}: use one of {', '.join(STORIES)}")
        return cls(story, Fault.parse(fault))


@dataclass
class Run:
    """A story in a namespace of its own, behind a proxy."""

    api: Api
    namespace: str
    story: str
    proxy: Proxy
    kubeconfig: Path
    history: History = field(default_factory=lambda: History(kinds=(*WATCHED, *OPTIONAL_KINDS)))
    told: dict[str, Any] = field(default_factory=dict)
    killed: asyncio.Event = field(default_factory=asyncio.Event)
    writes_at_rest: float = 0.0
    rested: datetime | None = None
    breaches: list[str] = field(default_factory=list)
    error: str = ""

    @contextlib.asynccontextmanager
    async def operator(self) -> AsyncIterator[Operator]:
        """The operator behind the proxy; dead at once when the proxy kills it.

        That may be before we hear that it runs: its first write comes as soon.
        """
        wanted = settings(self.namespace, resync=RESYNC, **self.told)
        alive: list[Operator] = []

        def kill() -> None:
            self.killed.set()
            for one in alive:
                one.task.cancel()

        self.proxy.on_kill = kill
        self.killed.clear()
        self.proxy.down = False
        async with Operator.run(self.kubeconfig, wanted) as running:
            alive.append(running)
            if self.killed.is_set():
                kill()
            yield running

    async def play(self) -> Json:
        """The whole story; returns the end state."""
        audit = Audit.of(self.api, self.namespace)
        async with (
            self.history.watch(self.api, self.namespace),
            Pods(self.api, self.namespace, every=0.12) as pods,
            FakeRouters(self.api, self.namespace) as routers,
            FakeGateway(self.api, self.namespace),
            self._measured(routers) as measuring,
        ):
            stage = Stage(self.api, self.namespace, pods, routers, measuring)
            story = asyncio.ensure_future(STORIES[self.story](stage))
            try:
                await self._with_operators(story)
            finally:
                story.cancel()
                self.breaches = list(dict.fromkeys(routers.breaches))
            if measuring is not None:
                self.breaches += measuring.breaches(self.history.in_order())
            end = await end_state(self.api, self.namespace)
            self.breaches += judge_writes(audit.writes(), self.rested)
            return end

    @contextlib.asynccontextmanager
    async def _measured(self, routers: FakeRouters) -> AsyncIterator[Measuring | None]:
        """A Prometheus where the story is judged by one."""
        if self.story not in JUDGED:
            yield None
            return
        measuring = Measuring(self.proxy, routers.sends)
        measuring.server.choose = measuring.answer
        with measuring.server.run():
            self.told = {"prometheus": measuring.settings()}
            yield measuring

    async def _with_operators(self, story: asyncio.Future[object]) -> None:
        """One operator after the other until the story is told; then one on what is there."""
        while not story.done():
            async with self.operator():
                await self._done_or_killed(story)
        await story
        while not await self._at_rest():
            pass

    async def _at_rest(self) -> bool:
        """Whether an operator lived to come to rest: what strikes only now may kill one yet."""
        async with self.operator() as operator:
            resting = asyncio.create_task(self._rest(operator))
            if await self._done_or_killed(resting):
                resting.result()
                return True
            await ended([resting])
            return False

    async def _done_or_killed(self, work: asyncio.Future[Any]) -> bool:
        """Waits until the work is done or the operator is killed; whether it is done."""
        dead: asyncio.Future[Any] = asyncio.ensure_future(self.killed.wait())
        await asyncio.wait({work, dead}, return_when=asyncio.FIRST_COMPLETED)
        dead.cancel()
        return work.done()

    async def _rest(self, operator: Operator) -> None:
        await operator.settled()
        self.rested = datetime.now(UTC)
        before, passed = operator.writes, self.proxy.writes
        for _ in range(3):
            await operator.round()
        # What it counts itself, and what the proxy has seen: either alone could miss one.
        self.writes_at_rest = max(operator.writes - before, self.proxy.writes - passed)


@dataclass(frozen=True)
class Undisturbed:
    """A story without a fault: its places, its end, and what it made and removed."""

    places: tuple[Point, ...]
    end: Json
    births: dict[str, int]
    deaths: dict[str, int]


@dataclass(frozen=True)
class Outcome:
    """What a run has shown. ``struck``: whether its place was reached at all."""

    findings: tuple[str, ...]
    struck: bool
    history: History


async def record(api: Api, folder: Path, story: str) -> Undisturbed:
    """Tells a story twice without a fault; places are those that both runs have come by.

    Raises AssertionError when such a run breaks an invariant already.
    """
    runs: list[Undisturbed] = []
    for _ in range(2):
        run, end = await _run(api, folder, story, None)
        assert not run.error, f"{story}: {run.error}"
        assert run.writes_at_rest == 0, f"{story}: writes while nothing happens"
        history = run.history.in_order()
        breaches = [*judge(history), *run.breaches]
        assert not breaches, f"{story}: {breaches}"
        births, deaths = births_and_deaths(history)
        runs.append(Undisturbed(tuple(run.proxy.seen), end, births, deaths))
    first, second = runs
    for title in ("end", "births", "deaths"):
        differ = differences(title, getattr(first, title), getattr(second, title))
        assert not differ, f"{story}: two undisturbed runs differ: {differ}"
    both = set(first.places) & set(second.places)
    return Undisturbed(tuple(sorted(both)), first.end, first.births, first.deaths)


def cases(story: str, places: Iterable[Point]) -> list[Case]:
    """Every class of fault at every place of a story. Events of Kubernetes are left out: they may
    be lost.
    """
    found = []
    for point in sorted(set(places)):
        if "Event" in point.target or (point.verb == "list" and point.occurrence > _LISTS):
            continue
        classes = {"watch": WATCH_FAULTS, "query": QUERY_FAULTS}.get(point.verb, REQUEST_FAULTS)
        found += [Case(story, Fault(what, point)) for what in classes if makes_sense(what, point)]
    return found


def makes_sense(what: str, point: Point) -> bool:
    """Whether a class has a meaning at a place: what only reads commits nothing."""
    reads = point.verb in ("get", "list")
    if what in ("meddled", "stale", "conflict", "kill-after-commit"):
        return not reads and point.verb != "create"
    return not (reads and what == "kill-before")


async def try_case(api: Api, folder: Path, case: Case, undisturbed: Undisturbed) -> Outcome:
    """Tells the story with its fault, and checks every invariant that can be read afterwards."""
    run, end = await _run(api, folder, case.story, case.fault)
    history = run.history.in_order()
    found = [*judge(history), *run.breaches]
    if run.error:
        return Outcome((*found, run.error), run.proxy.struck > 0, run.history)
    if run.writes_at_rest:
        found.append(f"I1: {run.writes_at_rest:.0f} writes while nothing happens")
    found += differences("I1: the end differs", undisturbed.end, end)
    births, deaths = births_and_deaths(history)
    found += differences("I2: creations differ", undisturbed.births, births)
    found += differences("I2: deletions differ", undisturbed.deaths, deaths)
    return Outcome(tuple(found), run.proxy.struck > 0, run.history)


async def _run(api: Api, folder: Path, story: str, fault: Fault | None) -> tuple[Run, Json]:
    namespace = await api.namespace(f"f-{os.getpid()}")
    await install(api, namespace)
    proxy = Proxy(api.session, api.server, fault)
    async with proxy.run(folder) as kubeconfig:
        run, end = Run(api, namespace, story, proxy, kubeconfig), {}
        with last_words() as said:
            try:
                async with asyncio.timeout(LONGEST):
                    end = await run.play()
            except* (AssertionError, TimeoutError) as caught:
                why = _innermost(caught)
                run.error = f"I1: did not get to its end: {why}; it said last: {said}"
    return run, end


def _innermost(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or "no end in sight"


def differences(title: str, expected: Any, found: Any, at: str = "") -> list[str]:
    """What differs, down to the single value."""
    if not isinstance(expected, dict) or not isinstance(found, dict):
        if expected == found:
            return []
        was, now = (str(one)[:_SHOWN] for one in (expected, found))
        return [f"{title} at {at}: {was} became {now}"]
    return [
        line
        for key in sorted(expected.keys() | found.keys())
        for line in differences(title, expected.get(key), found.get(key), f"{at}/{key}"[-_SHOWN:])
    ]
