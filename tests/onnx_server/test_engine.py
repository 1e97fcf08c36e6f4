"""Where the model runs: on the event loop while it is quick, in the pool when it is not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from mooring_onnx_server.contract import InferRequest
from mooring_onnx_server.engine import INLINE_ELEMENTS, Engine
from mooring_onnx_server.errors import ModelRunError


def request(elements: int = 3) -> InferRequest:
    return InferRequest(None, {"x": np.zeros(elements, np.float32)}, ("y",))


def busy(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


class Recorder:
    """A model that notes which threads ran it."""

    def __init__(self, work: Callable[[], None] = lambda: None) -> None:
        self.threads: list[str] = []
        self.work = work

    def __call__(self, outputs: Sequence[str], feeds: Mapping[str, Any]) -> list[Any]:
        self.threads.append(threading.current_thread().name)
        self.work()
        return [feeds["x"]]


async def test_a_quick_model_runs_on_the_event_loop() -> None:
    run = Recorder()
    seconds: list[float] = []
    engine = Engine(run, 1, seconds.append)
    for _ in range(5):
        await engine.infer(request())
    assert run.threads[1:] == [threading.current_thread().name] * 4
    assert len(seconds) == 5
    engine.close()


async def test_a_slow_model_runs_in_the_pool() -> None:
    run = Recorder(lambda: busy(0.002))
    engine = Engine(run, 1, lambda _: None)
    for _ in range(5):
        await engine.infer(request())
    assert all(name.startswith("run") for name in run.threads)
    engine.close()


async def test_a_model_that_becomes_slow_moves_to_the_pool_and_back() -> None:
    run = Recorder()
    engine = Engine(run, 1, lambda _: None)
    await engine.infer(request())
    run.work = lambda: busy(0.02)
    for _ in range(3):
        await engine.infer(request())
    assert run.threads[-1].startswith("run")
    run.work = lambda: None
    for _ in range(60):
        await engine.infer(request())
    assert run.threads[-1] == threading.current_thread().name
    engine.close()


async def test_a_large_request_to_a_quick_model_runs_in_the_pool() -> None:
    run = Recorder()
    engine = Engine(run, 1, lambda _: None)
    for _ in range(2):
        await engine.infer(request())
    await engine.infer(request(INLINE_ELEMENTS + 1))
    assert run.threads[-1].startswith("run")
    engine.close()


async def test_a_failure_reaches_the_caller_from_the_pool_and_from_the_loop() -> None:
    def fail() -> None:
        raise ModelRunError("no")

    run = Recorder(fail)
    engine = Engine(run, 1, lambda _: None)
    with pytest.raises(ModelRunError):
        await engine.infer(request())
    run.work = lambda: None
    await engine.infer(request())
    run.work = fail
    with pytest.raises(ModelRunError):
        await engine.infer(request())
    assert run.threads[0].startswith("run")
    assert run.threads[-1] == threading.current_thread().name
    engine.close()
