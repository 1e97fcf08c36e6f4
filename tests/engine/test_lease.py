"""The fence: no write starts at or after the lease's deadline (I9)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.aio.client import ApiException
from kubernetes.aio.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock

from mooring.adapters.kube import KubeClient
from mooring.core import kinds
from mooring.engine.lease import Fence, FencedLock, LeaseLost, LeaseSettings, lead


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fence(clock: Clock) -> Fence:
    return Fence(clock)


def test_nothing_is_written_before_the_lease_is_held(fence: Fence) -> None:
    with pytest.raises(LeaseLost):
        fence.remaining()


@given(duration=st.floats(1, 60), passed=st.floats(0, 120))
def test_writing_is_allowed_before_the_deadline_and_at_no_moment_from_it_on(
    duration: float, passed: float
) -> None:
    clock = Clock()
    fence = Fence(clock)
    fence.renewed(clock.now, duration)
    clock.now += passed
    if clock.now >= 50.0 + duration:
        with pytest.raises(LeaseLost):
            fence.remaining()
    else:
        assert fence.remaining() == pytest.approx(50.0 + duration - clock.now)


def test_the_deadline_counts_from_before_the_renewal_was_sent(fence: Fence, clock: Clock) -> None:
    sent_at = clock.now
    clock.now += 4  # the answer took its time
    fence.renewed(sent_at, 15)
    assert fence.remaining() == pytest.approx(11)


def test_a_closed_fence_stays_closed_until_the_next_renewal(fence: Fence, clock: Clock) -> None:
    fence.renewed(clock.now, 15)
    fence.close()
    with pytest.raises(LeaseLost):
        fence.remaining()


def test_jumps_of_the_wall_clock_do_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fence = Fence()
    fence.renewed(time.monotonic(), 15)
    for jump in (-600, 600, 10**9):
        monkeypatch.setattr(time, "time", lambda jump=jump: 1e9 + jump)
        assert fence.remaining() == pytest.approx(15, abs=1)


async def test_a_write_past_the_deadline_never_reaches_the_network(
    fence: Fence, clock: Clock
) -> None:
    sent: list[str] = []
    client = object.__new__(KubeClient)
    client._fence = fence

    async def request(verb: str, *_: Any, **__: Any) -> dict[str, Any]:
        sent.append(verb)
        return {}

    client._request = request  # type: ignore[method-assign]
    manifest = {"metadata": {"namespace": "n", "name": "a"}}
    writes: list[Callable[[], Awaitable[Any]]] = [
        lambda: client.apply(kinds.SERVICE, manifest),
        lambda: client.patch(kinds.SERVICE, "n", "a", {}),
        lambda: client.patch_status(kinds.MODEL_DEPLOYMENT, "n", "a", {}),
        lambda: client.create(kinds.EVENT, "n", {}),
        lambda: client.delete(kinds.SERVICE, "n", "a", "uid"),
    ]
    fence.renewed(clock.now, 15)
    for write in writes:
        await write()
    assert sent == ["apply", "patch", "patch_status", "create", "delete"]
    clock.now += 15
    for write in writes:
        with pytest.raises(LeaseLost):
            await write()
    assert len(sent) == 5
    assert await client.get(kinds.SERVICE, "n", "a") == {}, "reading is always allowed"


async def test_a_write_is_given_no_more_time_than_the_lease_has_left(
    fence: Fence, clock: Clock
) -> None:
    given_seconds: list[float] = []
    client = object.__new__(KubeClient)
    client._fence = fence

    async def request(*_: Any, seconds: float, **__: Any) -> dict[str, Any]:
        given_seconds.append(seconds)
        return {}

    client._request = request  # type: ignore[assignment,method-assign]
    fence.renewed(clock.now, 15)
    clock.now += 12
    await client.patch(kinds.SERVICE, "n", "a", {})
    assert given_seconds == [pytest.approx(3)]


def _lock(fence: Fence) -> FencedLock:
    lock = object.__new__(FencedLock)
    lock._settings = LeaseSettings()
    lock._fence = fence
    lock.name, lock.namespace, lock.identity = "lease", "ns", "me"
    return lock


async def test_only_an_accepted_renewal_opens_the_fence(
    fence: Fence, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = _lock(fence)
    record = LeaderElectionRecord("me", "15", "a", "b")
    answers: list[bool | Exception] = [False, OSError("reset"), ApiException(500), True]

    async def update(*_: Any) -> bool:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(LeaseLock, "update", update)
    monkeypatch.setattr(time, "monotonic", fence._clock)
    for _ in range(3):
        assert await lock.update("lease", "ns", record) is False
        with pytest.raises(LeaseLost):
            fence.remaining()
    assert await lock.update("lease", "ns", record) is True
    assert fence.remaining() == pytest.approx(15)


async def test_a_broken_connection_while_reading_the_lease_is_a_failed_try(
    fence: Fence, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def get(*_: Any) -> None:
        raise OSError("connection reset")

    monkeypatch.setattr(LeaseLock, "get", get)
    found, error = await _lock(fence).get("lease", "ns")
    assert found is False
    assert "connection reset" in str(error)


class Election:
    """A lock that is ours at once, until ``lost``."""

    def __init__(self, fence: Fence) -> None:
        self.lost = False
        self.identity, self.name, self.namespace = "me", "lease", "ns"
        self.fence = fence

    async def get(self, *_: Any) -> tuple[bool, LeaderElectionRecord]:
        return True, LeaderElectionRecord(None, None, None, None)

    async def update(self, *_: Any) -> bool:
        if not self.lost:
            self.fence.open_for_ever()
        return not self.lost


async def test_work_has_ended_before_the_lease_may_be_given_up(fence: Fence) -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("work")

    settings = LeaseSettings(duration=3, renew_deadline=2, retry_period=1)
    leading = asyncio.create_task(lead(Election(fence), settings, fence, work))  # type: ignore[arg-type]
    async with asyncio.timeout(5):
        while fence._deadline is None:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
    leading.cancel()
    await asyncio.gather(leading, return_exceptions=True)
    assert ended == ["work"]
    with pytest.raises(LeaseLost):
        fence.remaining()


async def test_what_work_raises_reaches_the_caller(fence: Fence) -> None:
    async def work() -> None:
        raise RuntimeError("broken")

    settings = LeaseSettings(duration=3, renew_deadline=2, retry_period=1)
    with pytest.raises(RuntimeError, match="broken"):
        await lead(Election(fence), settings, fence, work)  # type: ignore[arg-type]


async def test_a_write_that_finds_the_lease_lost_is_as_good_as_the_election(fence: Fence) -> None:
    """After a pause of the whole process either may come first; both end with the same words."""
    settings = LeaseSettings(duration=3, renew_deadline=2, retry_period=1)

    async def work() -> None:
        raise ExceptionGroup("workers", [LeaseLost("one"), LeaseLost("another")])

    await lead(Election(fence), settings, fence, work)  # type: ignore[arg-type]
    with pytest.raises(LeaseLost):
        fence.remaining()

    async def broken() -> None:
        raise ExceptionGroup("workers", [LeaseLost("one"), RuntimeError("broken")])

    with pytest.raises(ExceptionGroup) as caught:
        await lead(Election(fence), settings, fence, broken)  # type: ignore[arg-type]
    assert [repr(error) for error in caught.value.exceptions] == ["RuntimeError('broken')"]


async def test_releasing_names_the_version_that_stands_in_the_cluster(fence: Fence) -> None:
    """The library keeps the version from before its own renewal, which can never be right."""
    sent: list[dict[str, Any]] = []
    lock = _lock(fence)

    async def read(*_: Any) -> Any:
        spec = SimpleNamespace(holder_identity="me")
        return SimpleNamespace(spec=spec, metadata=SimpleNamespace(resource_version="17"))

    async def patch(name: str, namespace: str, body: dict[str, Any], **_: Any) -> None:
        sent.append(body)

    lock.api_instance = cast(Any, SimpleNamespace)(
        read_namespaced_lease=read, patch_namespaced_lease=patch
    )
    await lock.release()
    assert sent == [{"metadata": {"resourceVersion": "17"}, "spec": {"holderIdentity": None}}]


async def test_a_lease_that_somebody_else_holds_is_not_released(fence: Fence) -> None:
    lock = _lock(fence)

    async def read(*_: Any) -> Any:
        spec = SimpleNamespace(holder_identity="other")
        return SimpleNamespace(spec=spec, metadata=SimpleNamespace(resource_version="17"))

    # A patch would fail.
    lock.api_instance = cast(Any, SimpleNamespace)(read_namespaced_lease=read)
    await lock.release()
    with pytest.raises(LeaseLost):
        fence.remaining()
