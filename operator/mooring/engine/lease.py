"""Leader election, and the fence that keeps a leader of yesterday from writing.

The election is the client library's. What is added: a deadline on the monotonic clock, counted
from *before* the renewal was sent, after which no write starts whatever the wall clock says.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from kubernetes.aio.client import ApiClient, ApiException, V1Lease, V1ObjectMeta
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock

from mooring.engine import ending

log = logging.getLogger(__name__)

_REQUEST_SECONDS = 5.0


class LeaseLost(Exception):
    """Writing is not allowed: this process does not hold the lease (any more)."""


class Fence:
    """Open until the lease's deadline. ``clock`` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._deadline: float | None = None

    def renewed(self, sent_at: float, duration: float) -> None:
        """A renewal that was sent at ``sent_at`` has been accepted."""
        self._deadline = sent_at + duration

    def open_for_ever(self) -> None:
        """For a process that runs without election."""
        self._deadline = float("inf")

    def close(self) -> None:
        """No further write starts."""
        self._deadline = None

    def remaining(self) -> float:
        """Seconds until the deadline; raises LeaseLost at or after it."""
        left = -1.0 if self._deadline is None else self._deadline - self._clock()
        if left <= 0:
            raise LeaseLost("the lease is not held: no write is started")
        return left


@dataclass(frozen=True, slots=True)
class LeaseSettings:
    """Seconds as in client-go: followers wait ``duration``, a leader gives up after
    ``renew_deadline``, both try every ``retry_period``.
    """

    name: str = "mooring-operator"
    duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0


class FencedLock(LeaseLock):
    """The library's lock, which opens the fence at every renewal, and no longer than that."""

    def __init__(
        self, settings: LeaseSettings, namespace: str, identity: str, api: ApiClient, fence: Fence
    ) -> None:
        super().__init__(settings.name, namespace, identity, api)
        self._settings = settings
        self._fence = fence

    async def get(
        self, name: str, namespace: str
    ) -> tuple[bool, LeaderElectionRecord] | tuple[bool, Exception] | tuple[bool, None]:
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                return await super().get(name, namespace)
        except Exception as error:  # noqa: BLE001 - a broken connection is a failed try, not the end
            return False, ApiException(status=0, reason=str(error) or type(error).__name__)

    async def create(
        self, name: str, namespace: str, election_record: LeaderElectionRecord
    ) -> bool:
        # The library's own create passes pretty=True, which its own client refuses.
        body = V1Lease(metadata=V1ObjectMeta(name=name), spec=self.update_lease(election_record))

        async def write() -> bool:
            await self.api_instance.create_namespaced_lease(namespace, body)
            return True

        return await self._fenced(write())

    async def update(self, name: str, namespace: str, updated_record: LeaderElectionRecord) -> bool:
        return await self._fenced(super().update(name, namespace, updated_record))

    async def _fenced(self, write: Awaitable[bool]) -> bool:
        sent_at = time.monotonic()
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                written = await write
        except Exception as error:  # noqa: BLE001 - as above
            log.warning("the lease could not be written: %s", str(error) or type(error).__name__)
            return False
        if written:
            self._fence.renewed(sent_at, self._settings.duration)
        return written

    async def release(self) -> None:
        """Gives the lease up, so that a standby need not wait for it to run out."""
        self._fence.close()
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                # Read anew: the library keeps the version from before its last renewal.
                lease = await self.api_instance.read_namespaced_lease(self.name, self.namespace)
                if lease.spec is None or lease.spec.holder_identity != self.identity:
                    return
                version = lease.metadata.resource_version if lease.metadata else None
                await self.api_instance.patch_namespaced_lease(
                    self.name,
                    self.namespace,
                    {"metadata": {"resourceVersion": version}, "spec": {"holderIdentity": None}},
                    _content_type="application/merge-patch+json",
                )
        except Exception as error:  # noqa: BLE001 - the process is ending; it will run out
            log.warning("the lease was not released: %s", str(error) or type(error).__name__)


async def lead(
    lock: FencedLock, settings: LeaseSettings, fence: Fence, work: Callable[[], Awaitable[None]]
) -> None:
    """Waits for the lease, runs ``work`` while it is held, and returns once it is lost.

    A write that found it lost is as good as the election. The caller ends the process then: what a
    leader was about to do must not go on.
    """
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    running: list[asyncio.Task[None]] = []

    async def started() -> None:
        task = asyncio.current_task()
        if task is not None:
            running.append(task)
        try:
            await work()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - handed to the caller
            ended.set_exception(error)
        else:
            ended.set_result(None)

    async def stopped() -> None:
        fence.close()

    config = Config(
        lock,
        lease_duration=int(settings.duration),  # a Lease holds whole seconds
        renew_deadline=settings.renew_deadline,
        retry_period=settings.retry_period,
        onstarted_leading=started,
        onstopped_leading=stopped,
    )
    election = asyncio.create_task(LeaderElection(config).run(), name="lease")
    try:
        await asyncio.wait({election, ended}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            ended.result()
        else:
            election.result()
    except* LeaseLost:  # several workers at once may have found it lost
        log.debug("a write found the lease lost")
    finally:
        fence.close()
        # The library leaves the work running; the lease is given up only when that has ended.
        await ending.ended((election, *running))
