"""Asking Prometheus, from the event loop, without ever waiting on it.

Questions run in a few threads. Each has a deadline after which its caller goes on, and its socket
is shut so that its thread does too. A Prometheus that hangs therefore occupies those few threads at
most, for as long as the deadline, and further questions are told so.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import urllib3

from mooring.core.answers import Answer, NoAnswer, Reason, parse_body, read_envelope

if TYPE_CHECKING:
    from mooring.adapters.prometheus_access import Access
    from mooring.adapters.prometheus_http import Line

log = logging.getLogger(__name__)
T = TypeVar("T")

#: So long a thread may take to notice that its socket was shut.
_GRACE: Final = 0.5
#: A free query gives one series. More are cut off here, where the server can (Prometheus 3 does).
_SINGLE: Final = "5"
_BUSY: Final = NoAnswer(
    Reason.BUSY,
    "All threads still wait for Prometheus' earlier answers (prometheus.concurrency).",
)
_LATE: Final = NoAnswer(
    Reason.TIMEOUT, "Prometheus did not answer in full by the deadline (prometheus.timeout)."
)


def _whole(body: bytes, asked_at: float) -> Answer | NoAnswer:
    return read_envelope(parse_body(body), asked_at=asked_at, answered_at=time.time())


@dataclass(frozen=True, slots=True)
class Asked:
    """One question as the operator's metrics count it. ``outcome`` is success or a Reason."""

    outcome: str
    seconds: float
    received: int


class Prometheus:
    """A client for the event loop. Questions are answered or refused, never raised."""

    def __init__(self, access: Access, on_asked: Callable[[Asked], None] | None = None) -> None:
        # Here, since most processes that import this never ask: they cost 20 MiB and 0.25 s.
        from mooring.adapters.prometheus_http import Line

        self._access = access
        self._on_asked = on_asked or (lambda asked: None)
        self._lines = tuple(Line(access) for _ in range(access.concurrency))
        self._free: asyncio.LifoQueue[Line] = asyncio.LifoQueue()
        for line in self._lines:
            self._free.put_nowait(line)
        self._threads = ThreadPoolExecutor(access.concurrency, thread_name_prefix="prometheus")
        if not access.verify:
            log.warning("prometheus.tls.insecureSkipVerify: anyone on the way can answer for it")
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)

    async def query(
        self, text: str, *, single: bool = False, at: float | None = None
    ) -> Answer | NoAnswer:
        """The answer to an instant query, evaluated now.

        ``single``: one series is expected. ``at``: evaluated at this time instead, in seconds on
        Prometheus' clock, as a replay does. ``text`` comes from :mod:`mooring.core.promql` or
        :mod:`mooring.core.router_counters`, never from a tenant as it is.
        """
        return await self.read(text, _whole, single=single, at=at)

    async def read(
        self,
        text: str,
        reader: Callable[[bytes, float], T | NoAnswer],
        *,
        single: bool = False,
        at: float | None = None,
    ) -> T | NoAnswer:
        """As :meth:`query`; ``reader`` makes something else of the body, in the thread."""
        began = time.monotonic()
        received = 0
        answer: T | NoAnswer = _BUSY
        try:
            line = await self._line()
            if line is not None:
                parameters = self._parameters(single=single, at=at)
                answer, received = await self._ask(line, text, began, reader, parameters)
        except asyncio.CancelledError:
            self._on_asked(Asked("cancelled", time.monotonic() - began, received))
            raise
        outcome = answer.reason.value if isinstance(answer, NoAnswer) else "success"
        self._on_asked(Asked(outcome, time.monotonic() - began, received))
        return answer

    async def _line(self) -> Line | None:
        try:
            async with asyncio.timeout(self._access.deadline):
                return await self._free.get()
        except TimeoutError:
            return None

    async def _ask(
        self,
        line: Line,
        text: str,
        began: float,
        reader: Callable[[bytes, float], T | NoAnswer],
        parameters: Mapping[str, str],
    ) -> tuple[T | NoAnswer, int]:
        from mooring.adapters.prometheus_http import Call

        loop = asyncio.get_running_loop()
        call = Call(began + self._access.deadline)
        try:
            future: asyncio.Future[T | NoAnswer] = loop.run_in_executor(
                self._threads, line.ask, call, text, parameters, reader
            )
        except RuntimeError:  # closed
            self._free.put_nowait(line)
            return _LATE, 0
        # The line is free when its thread is, whatever has become of the caller by then.
        future.add_done_callback(lambda done: self._give_back(line, done))
        left = max(call.deadline - time.monotonic(), 0.0)
        timer = loop.call_later(left, line.cut, call)
        try:
            async with asyncio.timeout(left + _GRACE):
                return await asyncio.shield(future), call.received
        except TimeoutError:
            return _LATE, call.received
        except asyncio.CancelledError:
            line.cut(call)
            raise
        except Exception:
            log.exception("asking Prometheus failed for a reason of the operator's own")
            defect = "Reading Prometheus' answer failed: the operator's log has the defect."
            return NoAnswer(Reason.INTERNAL, defect), call.received
        finally:
            timer.cancel()

    def _give_back(self, line: Line, done: asyncio.Future[Any]) -> None:
        if not done.cancelled():
            done.exception()  # said already, or its caller has gone
        self._free.put_nowait(line)

    def _parameters(self, *, single: bool, at: float | None) -> Mapping[str, str]:
        server_side = {"timeout": f"{self._access.deadline:g}s"}
        if at is not None:
            server_side["time"] = f"{at:.3f}"
        if single:
            server_side["limit"] = _SINGLE
        return {**self._access.parameters, **server_side}

    async def close(self) -> None:
        """Ends every question under way, and the threads."""
        for line in self._lines:
            line.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
