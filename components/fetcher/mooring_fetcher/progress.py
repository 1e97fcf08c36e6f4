"""Progress lines: how much, how fast, how long still; at most one every few seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable

from mooring_fetcher.limits import size_text
from mooring_fetcher.patience import Clock

EVERY = 5.0
"""Seconds between two lines."""


class Progress:
    """Counts bytes of all transfers and says now and then where they stand. Thread-safe."""

    def __init__(self, say: Callable[[str], None], clock: Clock) -> None:
        self._say = say
        self._clock = clock
        self._lock = threading.Lock()
        self._expected: int | None = None
        self._at_hand = 0
        self._received = 0
        self._started = self._last_line = clock.now()

    def expect(self, total: int | None) -> None:
        """Begins anew with the bytes that are to come; None when nobody knows."""
        with self._lock:
            self._expected, self._at_hand = total, 0

    def reuse(self, count: int) -> None:
        """Bytes found on disk from an earlier start; negative when they had to be dropped."""
        with self._lock:
            self._at_hand += count

    def add(self, count: int) -> None:
        """Bytes that just came over the wire."""
        with self._lock:
            self._at_hand += count
            self._received += count
            now = self._clock.now()
            if now - self._last_line < EVERY:
                return
            self._last_line = now
            line = self._line(now)
        self._say(line)

    def _line(self, now: float) -> str:
        rate = self._received / max(now - self._started, 1e-9)
        line = f"fetched {size_text(self._at_hand)}"
        if self._expected:
            share = min(self._at_hand / self._expected, 1.0)
            line += f" of {size_text(self._expected)} ({share:.0%})"
        line += f", {size_text(rate)}/s"
        if self._expected and rate > 0:
            line += f", {max(self._expected - self._at_hand, 0) / rate:.0f} s left"
        return line
