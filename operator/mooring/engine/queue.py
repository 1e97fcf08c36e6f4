"""A queue of keys. A key is in it once, is worked on by one worker at a time, and is never lost.

Events say only "look at this key", so ten events for one object cost one round, and an object
that fails waits by itself while the others go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

_FIRST_BACKOFF = 0.5
_LAST_BACKOFF = 60.0
#: So many met wishes may lie about before it is worth sweeping them out.
_LITTER = 64


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """One ModelDeployment."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class KeyedQueue:
    """First in, first out, each key once.

    A key added while it is worked on is worked on once more afterwards. Times are the event
    loop's monotonic seconds; ``clock`` is replaced in tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ready: deque[Key] = deque()
        self._queued: dict[Key, float] = {}
        self._active: dict[Key, float] = {}
        self._again: set[Key] = set()
        self._later: list[tuple[float, int, Key]] = []
        self._due: dict[Key, float] = {}
        self._failures: dict[Key, int] = {}
        self._order = itertools.count()
        self._given = float("-inf")
        self._wake = asyncio.Event()
        self._closed = False

    def close(self) -> None:
        """Nothing is given out any more: whoever waits for a key ends as if it were cancelled.

        A cancellation can be lost in a request that runs out of time at the same moment.
        """
        self._closed = True
        self._wake.set()

    def add(self, key: Key) -> None:
        """Asks for a look at the key as soon as a worker is free."""
        if key in self._active:
            self._again.add(key)
        elif key not in self._queued:
            self._queued[key] = self._clock()
            self._ready.append(key)
            self._wake.set()

    def add_after(self, key: Key, seconds: float) -> None:
        """Asks for a look in a while. Of several such wishes for a key the earliest counts.

        A look that happens before meets the wish: every round says itself when the next is due.
        """
        due = self._clock() + max(0.0, seconds)
        if self._due.get(key, float("inf")) <= due:
            return
        self._due[key] = due
        heapq.heappush(self._later, (due, next(self._order), key))
        self._sweep()
        self._wake.set()

    def retry(self, key: Key, at_least: float = 0.0) -> float:
        """Asks for another look after a failure, ever later; returns the seconds until then."""
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        seconds = min(_LAST_BACKOFF, _FIRST_BACKOFF * 2.0 ** min(count, 16))
        seconds = max(at_least, seconds * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load
        self.add_after(key, seconds)
        return seconds

    def succeeded(self, key: Key) -> None:
        """Forgets the failures of a key."""
        self._failures.pop(key, None)

    def forget(self, key: Key) -> None:
        """Drops what is remembered of a key whose object is gone."""
        self._failures.pop(key, None)
        self._due.pop(key, None)
        self._sweep()

    async def get(self) -> Key:
        """The next key; it stays with the caller until :meth:`done`."""
        while True:
            if self._closed:
                raise asyncio.CancelledError
            self._move_due()
            if self._ready:
                key = self._ready.popleft()
                del self._queued[key]
                self._due.pop(key, None)
                self._active[key] = self._given = self._clock()
                return key
            self._wake.clear()
            timeout = max(0.0, self._later[0][0] - self._clock()) if self._later else None
            # Not wait_for: before Python 3.12 it forgets a cancellation that comes with what it
            # waits for, and a worker that was told to end would wait for ever.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._wake.wait()

    def done(self, key: Key) -> None:
        """Gives a key back; if it was added meanwhile, it is queued again."""
        del self._active[key]
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def _move_due(self) -> None:
        now = self._clock()
        while self._later and self._later[0][0] <= now:
            due, _, key = heapq.heappop(self._later)
            if self._due.get(key) == due:  # not replaced by an earlier wish, nor forgotten
                del self._due[key]
                self.add(key)

    def _sweep(self) -> None:
        """Drops the wishes that were met, replaced or forgotten before they fell due.

        A plan that looks again in a week leaves one with every round that comes sooner. Each sweep
        drops more than half of what is there, so a wish costs no more for it.
        """
        if len(self._later) > 2 * len(self._due) + _LITTER:
            self._later = [(due, next(self._order), key) for key, due in self._due.items()]
            heapq.heapify(self._later)

    @property
    def depth(self) -> int:
        """Keys that wait for a worker."""
        return len(self._ready)

    @property
    def active(self) -> int:
        """Keys that are being worked on."""
        return len(self._active)

    def longest_round(self) -> float:
        """Seconds for which the longest of the rounds under way has lasted; 0 without any."""
        now = self._clock()
        return max((now - since for since in self._active.values()), default=0.0)

    def standstill(self) -> float:
        """Seconds for which keys have waited and none was given out; 0 while none waits.

        Many keys at once wait long, one after the other, while all is well.
        """
        if not self._queued:
            return 0.0
        return self._clock() - max(self._given, min(self._queued.values()))

    def oldest_wait(self) -> float:
        """Seconds for which the oldest key has waited or has been worked on."""
        since = min(
            itertools.chain(self._queued.values(), self._active.values()), default=self._clock()
        )
        return max(0.0, self._clock() - since)
