"""Where the server is in its life, and what it is doing: what readiness and draining ask."""

from __future__ import annotations

import time
from enum import Enum


class Phase(Enum):
    """The server's life, in order; it never goes back."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"


class ServerState:
    """Shared between the HTTP application, the metrics and the process's lifecycle.

    Everything happens on the event loop's thread; nothing is locked.
    """

    __slots__ = ("in_flight", "last_request", "phase")

    def __init__(self) -> None:
        self.phase = Phase.LOADING
        self.in_flight = 0
        self.last_request = float("-inf")
        """`time.perf_counter()` at the beginning of the newest inference request."""

    @property
    def ready(self) -> bool:
        """Whether new traffic should be sent here."""
        return self.phase is Phase.READY

    @property
    def draining(self) -> bool:
        """Whether connections should end with their next response."""
        return self.phase is Phase.DRAINING

    def quiet_for(self) -> float:
        """Seconds without any inference request under way or begun; 0 while one is."""
        if self.in_flight:
            return 0.0
        return time.perf_counter() - self.last_request
