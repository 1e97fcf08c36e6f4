"""Adaptive batching: requests that come close together are one run of the model.

Rows of several requests are put one under the other along the first axis and the answer is cut
apart again, which pays where a run costs much more than its rows do (most of all on a GPU). Only a
model whose every input and output begins with a length left open, that is no other axis as well, is
batched, and only requests that agree in everything else: outputs asked for, and all lengths but the
first.

A batch starts at once while no run is under way, and else when it is full or its first request has
waited long enough; but never more at a time than the engine runs. So it adapts: a lone client waits
for nobody, and under load what comes while one batch is computed is the next.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mooring_onnx_server.contract import InferRequest
from mooring_onnx_server.errors import ModelRunError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mooring_onnx_server.service import Infers
    from mooring_onnx_server.settings import BatchSettings
    from mooring_onnx_server.signature import Dimension, Signature

_log = logging.getLogger(__name__)

_Key = tuple[Any, ...]
_Answer = asyncio.Future[list[Any]]


def why_not(signature: Signature) -> str | None:
    """Why requests to a model cannot be batched; None where they can."""
    tensors = [("input", spec) for spec in signature.inputs]
    tensors += [("output", output.tensor) for output in signature.outputs]
    if not signature.inputs:
        return "it has no input"
    for kind, spec in tensors:
        if not _opens(spec.shape):
            return f"its {kind} {spec} does not begin with an open length"
    # The number of rows, under any name: outputs may call it otherwise than inputs do.
    rows = {spec.shape[0] for spec in signature.inputs if spec.shape} - {None}
    for kind, spec in tensors:
        for length in (spec.shape or ())[1:]:
            if length in rows:
                # Cut apart by rows, each request's part would hold columns of the others'.
                return (
                    f"the open length '{length}' that an input begins with is also a later axis "
                    f"of its {kind} {spec}"
                )
    return None


def _opens(shape: tuple[Dimension, ...] | None) -> bool:
    return shape is not None and not isinstance(shape[0], int)


@dataclass(slots=True)
class _Batch:
    """Requests that wait for one run."""

    key: _Key
    waiting: list[tuple[InferRequest, int, _Answer]] = field(default_factory=list)
    rows: int = 0
    timer: asyncio.TimerHandle | None = None
    due: bool = False
    """It waits for nothing but its turn; who comes until then may still join it."""


class Batcher:
    """Collects requests in front of an engine."""

    def __init__(
        self,
        engine: Infers,
        settings: BatchSettings,
        parallel_runs: int,
        observe_rows: Callable[[int], None],
    ) -> None:
        """Sets up an empty batcher.

        Args:
            engine: runs the batches, and what is not to be batched.
            settings: how many rows, and for how long they may wait.
            parallel_runs: how many batches are run at a time.
            observe_rows: told the rows of each batch that is run.
        """
        self._engine = engine
        self._max_rows = settings.max_rows
        self._max_delay = settings.max_delay_seconds
        self._parallel_runs = parallel_runs
        self._observe_rows = observe_rows
        self._open: dict[_Key, _Batch] = {}
        self._due: deque[_Batch] = deque()
        self._runs: set[asyncio.Task[None]] = set()

    async def infer(self, request: InferRequest) -> Sequence[Any]:
        """The outputs' values of this request alone.

        Raises:
            ModelRunError: the model raised on this request.
        """
        rows = _rows(request)
        if not 0 < rows < self._max_rows:
            return await self._engine.infer(request)
        loop = asyncio.get_running_loop()
        key = _key(request)
        batch = self._open.get(key)
        if batch is not None and batch.rows + rows > self._max_rows:
            self._close(batch)
            batch = None
        if batch is None:
            batch = self._open[key] = _Batch(key)
            # With nothing under way it starts once the requests that came with this one have
            # joined it: they are read in the same turn of the event loop.
            delay = self._max_delay if self._runs else 0.0
            batch.timer = loop.call_later(delay, self._fall_due, batch)
        answer: _Answer = loop.create_future()
        batch.waiting.append((request, rows, answer))
        batch.rows += rows
        if batch.rows >= self._max_rows:
            self._close(batch)
        return await answer

    def _close(self, batch: _Batch) -> None:
        """Lets nobody join any more, and does not wait for anybody."""
        if self._open.get(batch.key) is batch:
            del self._open[batch.key]
        self._fall_due(batch)

    def _fall_due(self, batch: _Batch) -> None:
        if batch.timer is not None:
            batch.timer.cancel()
        if not batch.due:
            batch.due = True
            self._due.append(batch)
        self._start()

    def _start(self) -> None:
        """Starts what is due, as far as the engine has room."""
        while self._due and len(self._runs) < self._parallel_runs:
            batch = self._due.popleft()
            if self._open.get(batch.key) is batch:
                del self._open[batch.key]
            task = asyncio.get_running_loop().create_task(self._run(batch))
            self._runs.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._runs.discard(task)
        if not self._runs:
            for batch in list(self._open.values()):
                self._fall_due(batch)
        self._start()

    async def _run(self, batch: _Batch) -> None:
        # A request whose client has gone is not computed for nobody.
        waiting = [entry for entry in batch.waiting if not entry[2].done()]
        rows = [count for _, count, _ in waiting]
        if len(waiting) > 1:
            self._observe_rows(sum(rows))
            try:
                values = await self._engine.infer(_joined([request for request, _, _ in waiting]))
                parts = _parted(values, rows)
            except Exception as error:  # noqa: BLE001  the requests are still to be answered
                # One request's rows may have failed all of them: each is run by itself, and only
                # the one at fault hears of it.
                _log.debug("a batch of %d requests is run one by one: %s", len(waiting), error)
            else:
                for (_, _, answer), part in zip(waiting, parts, strict=True):
                    _settle(answer, part)
                return
        for request, count, answer in waiting:
            self._observe_rows(count)
            try:
                _settle(answer, list(await self._engine.infer(request)))
            except Exception as error:  # noqa: BLE001  it belongs to the one who asked
                if not answer.done():
                    answer.set_exception(error)


def _settle(answer: _Answer, values: list[Any]) -> None:
    if not answer.done():
        answer.set_result(values)


def _rows(request: InferRequest) -> int:
    """The first length of every input; 0 where they differ, which is the model's to judge."""
    lengths = {array.shape[0] for array in request.feeds.values()}
    return int(lengths.pop()) if len(lengths) == 1 else 0


def _key(request: InferRequest) -> _Key:
    """What requests of one batch have in common."""
    shapes = sorted((name, array.shape[1:]) for name, array in request.feeds.items())
    return (request.outputs, *shapes)


def _joined(requests: Sequence[InferRequest]) -> InferRequest:
    first = requests[0]
    feeds = {
        name: np.concatenate([request.feeds[name] for request in requests]) for name in first.feeds
    }
    return InferRequest(None, feeds, first.outputs)


def _parted(values: Sequence[Any], rows: Sequence[int]) -> list[list[Any]]:
    """Each request's part of each value.

    Raises:
        ModelRunError: a value has not one row for each row that went in.
    """
    total = sum(rows)
    for value in values:
        found = len(value) if isinstance(value, (np.ndarray, list)) else None
        if found != total:
            raise ModelRunError(f"the model gave {found} rows for a batch of {total}")
    parts = []
    begin = 0
    for count in rows:
        parts.append([value[begin : begin + count] for value in values])
        begin += count
    return parts
