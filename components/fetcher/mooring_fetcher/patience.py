"""How long to go on trying: exponential backoff with jitter, within a bounded time.

There are two bounds. One is for the whole run. The other is the time since anything was last
achieved, so that a wrong host name is told within minutes while a large model over a poor line
may break off a hundred times. The clock and the dice are inputs: tests wait for nothing.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from mooring_fetcher.failure import Interruption, TransientFailure

T = TypeVar("T")


class Clock(Protocol):
    """Seconds that only rise, and a way to let them pass (or to be woken by `stop`)."""

    def now(self) -> float: ...

    def sleep(self, seconds: float, stop: threading.Event) -> None: ...


class SystemClock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float, stop: threading.Event) -> None:
        stop.wait(seconds)


@dataclass(frozen=True)
class RetryPolicy:
    """All times in seconds."""

    first_delay: float = 0.5
    factor: float = 2.0
    max_delay: float = 30.0
    without_progress: float = 120.0
    total: float = 4 * 3600.0
    progress_bytes: int = 64 * 1024
    """Bytes that count as progress. Less could keep a trickle alive for hours."""
    stall_window: float = 60.0
    """A body that brings fewer than `progress_bytes` in this time is dropped and asked again."""


@dataclass
class Patience:
    """The time bounds of one run, shared by all its transfers."""

    policy: RetryPolicy = field(default_factory=RetryPolicy)
    clock: Clock = field(default_factory=SystemClock)
    dice: Callable[[], float] = random.random
    """Uniform in [0, 1)."""
    say: Callable[[str], None] = lambda line: None
    after: str = " (the pod will start over)"
    """What comes after patience has ended, in words."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Set when another transfer of the same run has failed for good."""

    def __post_init__(self) -> None:
        self._started = self.clock.now()

    def elapsed(self) -> float:
        return self.clock.now() - self._started

    def attempts(self) -> Attempts:
        """A fresh series of tries at one thing."""
        return Attempts(self)

    def insist(self, action: Callable[[], T]) -> T:
        """The action's result, tried again after each Interruption.

        Raises TransientFailure when patience ends.
        """
        attempts = self.attempts()
        while True:
            try:
                return action()
            except Interruption as interruption:
                attempts.wait_after(interruption)


class Attempts:
    """One thing that is tried again and again: counts, waits, gives up."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._last_progress = patience.clock.now()
        self._failed = 0
        self._in_a_row = 0

    def progressed(self) -> None:
        """Something was achieved: the short bound starts anew, and so does the backoff."""
        self._last_progress = self._patience.clock.now()
        self._in_a_row = 0

    def wait_after(self, interruption: Interruption) -> None:
        """Sleeps before the next try, or raises TransientFailure when a bound is reached."""
        patience, policy = self._patience, self._patience.policy
        self._failed += 1
        ceiling = min(policy.max_delay, policy.first_delay * policy.factor**self._in_a_row)
        self._in_a_row = min(self._in_a_row + 1, 30)
        # Half fixed, half random: pods that started together spread out, and none hammers.
        delay = ceiling * (0.5 + 0.5 * patience.dice())
        if interruption.retry_after is not None:
            delay = max(delay, interruption.retry_after)
        now = patience.clock.now()
        idle = now - self._last_progress
        if patience.stop.is_set() or (
            idle + delay > policy.without_progress or patience.elapsed() + delay > policy.total
        ):
            raise TransientFailure(
                f"{str(interruption).rstrip('.')}; gave up after {self._failed} failed "
                f"{'try' if self._failed == 1 else 'tries'}, {idle:.0f} s without progress"
                f"{patience.after}."
            )
        patience.say(f"{str(interruption).rstrip('.')}; trying again in {delay:.1f} s")
        patience.clock.sleep(delay, patience.stop)
