"""Runs the model for many requests at once without holding up the event loop.

A model of a few microseconds is run right on the loop: handing it to a thread and back
costs several times the run. A model of milliseconds goes to a pool, so that health checks
and other requests' parsing go on meanwhile (onnxruntime releases the GIL). Which of the two
this is, is measured.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mooring_onnx_server.contract import InferRequest
    from mooring_onnx_server.model import Run

INLINE_SECONDS = 0.001
"""CPU seconds up to which a typical run is done on the event loop."""
INLINE_ELEMENTS = 16_384
"""Input elements up to which a request counts as typical."""
_SMOOTHING = 0.1


class Engine:
    """Answers decoded requests with one model's outputs."""

    def __init__(self, run: Run, parallel_runs: int, observe: Callable[[float], None]) -> None:
        """Sets up a pool; no thread starts before it is needed.

        Args:
            run: the model.
            parallel_runs: runs at the same time for a model that is not run inline.
            observe: told the seconds of each successful run.
        """
        self._run = run
        self._observe = observe
        self._pool = ThreadPoolExecutor(parallel_runs, thread_name_prefix="run")
        self._typical_seconds = INLINE_SECONDS
        self._in_doubt = False

    @property
    def inline(self) -> bool:
        """Whether a typical run is done on the event loop now."""
        return self._typical_seconds < INLINE_SECONDS and not self._in_doubt

    def infer_inline(self, request: InferRequest) -> Sequence[Any]:
        """As :meth:`infer`, on the event loop: for a typical request, while :attr:`inline`."""
        started = time.perf_counter()
        values = self._run(request.outputs, request.feeds)
        seconds = time.perf_counter() - started
        self._observe(seconds)
        # Too long on the wall is the model's slowness, or a CPU that had others to serve: the
        # next run, in the pool, tells which.
        if seconds >= INLINE_SECONDS:
            self._in_doubt = True
        else:
            self._learn(seconds)
        return values

    async def infer(self, request: InferRequest) -> Sequence[Any]:
        """The outputs' values, in the order of `request.outputs`.

        Raises:
            ModelRunError: the model raised.
        """
        elements = 0
        for array in request.feeds.values():
            elements += array.size
        typical = elements <= INLINE_ELEMENTS
        if typical and self.inline:
            return self.infer_inline(request)
        loop = asyncio.get_running_loop()
        values, seconds, cpu_seconds = await loop.run_in_executor(self._pool, self._timed, request)
        self._observe(seconds)
        if typical:
            self._in_doubt = False
            self._learn(cpu_seconds)
        return values

    def _learn(self, seconds: float) -> None:
        self._typical_seconds += _SMOOTHING * (seconds - self._typical_seconds)

    def _timed(self, request: InferRequest) -> tuple[list[Any], float, float]:
        # CPU time decides about inlining: wall time would count waiting for the GIL and
        # being throttled, and a fast model under load would stay in the pool for good. Asking
        # for it costs two system calls, which a run on the event loop is spared.
        cpu_started = time.thread_time()
        started = time.perf_counter()
        values = self._run(request.outputs, request.feeds)
        return values, time.perf_counter() - started, time.thread_time() - cpu_started

    def close(self) -> None:
        """Lets the pool's idle threads end; does not wait for a run."""
        self._pool.shutdown(wait=False, cancel_futures=True)
