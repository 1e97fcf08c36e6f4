"""Adaptive batching: one run for requests that come together, and each gets its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from onnx import TensorProto, helper
from tests.onnx_server import graphs
from tests.onnx_server.servers import server

from mooring_onnx_server.batching import Batcher, why_not
from mooring_onnx_server.contract import InferRequest
from mooring_onnx_server.datatypes import BY_NAME
from mooring_onnx_server.errors import ModelRunError
from mooring_onnx_server.model import load_model
from mooring_onnx_server.settings import BatchSettings, SessionSettings
from mooring_onnx_server.signature import OutputSpec, Signature, TensorSpec

FOREVER = 3600.0


class Model:
    """Doubles rows; each run waits until the test lets it go on."""

    def __init__(self) -> None:
        self.runs: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.answer: Callable[[np.ndarray[Any, Any]], Any] = lambda rows: rows * 2

    async def infer(self, request: InferRequest) -> Sequence[Any]:
        rows = request.feeds["x"]
        self.runs.append(len(rows))
        await self.gate.wait()
        if np.isnan(rows).any():
            raise ModelRunError("the model failed on this request: NaN")
        return [self.answer(rows)]


def request(*values: float, width: int = 1, outputs: tuple[str, ...] = ("y",)) -> InferRequest:
    rows = np.repeat(np.array(values, np.float32)[:, None], width, axis=1)
    return InferRequest(None, {"x": rows}, outputs)


def batcher(
    model: Model, rows: int = 8, delay: float = FOREVER, parallel: int = 2
) -> tuple[Batcher, list[int]]:
    seen: list[int] = []
    return Batcher(model, BatchSettings(rows, delay), parallel, seen.append), seen


async def together(batch: Batcher, *requests: InferRequest) -> list[Any]:
    answers = await asyncio.gather(*map(batch.infer, requests), return_exceptions=True)
    return [a if isinstance(a, BaseException) else a[0].ravel().tolist() for a in answers]


async def test_requests_that_come_together_are_one_run_and_each_gets_its_own_rows() -> None:
    model = Model()
    batch, seen = batcher(model)
    answers = await together(batch, request(1), request(2, 3), request(4))
    assert answers == [[2], [4, 6], [8]]
    assert (model.runs, seen) == ([4], [4])


async def test_a_lone_request_waits_for_nobody() -> None:
    model = Model()
    batch, _ = batcher(model)
    async with asyncio.timeout(60):
        assert await together(batch, request(1)) == [[2]]
        assert await together(batch, request(2)) == [[4]]
    assert model.runs == [1, 1]


async def test_what_comes_while_a_run_is_under_way_is_the_next_run() -> None:
    model = Model()
    model.gate.clear()
    batch, _ = batcher(model)
    first = asyncio.create_task(together(batch, request(1)))
    while not model.runs:
        await asyncio.sleep(0)
    rest = asyncio.create_task(together(batch, request(2), request(3)))
    await asyncio.sleep(0)
    model.gate.set()
    async with asyncio.timeout(60):
        assert (await first, await rest) == ([[2]], [[4], [6]])
    assert model.runs == [1, 2]


async def test_nobody_waits_longer_than_the_delay_for_a_run_that_is_under_way() -> None:
    model = Model()
    model.gate.clear()
    batch, _ = batcher(model, delay=0.01)
    tasks = [asyncio.create_task(together(batch, request(1)))]
    while len(model.runs) < 1:
        await asyncio.sleep(0)
    tasks.append(asyncio.create_task(together(batch, request(2))))
    async with asyncio.timeout(60):
        while len(model.runs) < 2:
            await asyncio.sleep(0.001)
    model.gate.set()
    assert await asyncio.gather(*tasks) == [[[2]], [[4]]]


async def test_while_the_engine_has_no_room_a_batch_that_is_due_goes_on_growing() -> None:
    model = Model()
    model.gate.clear()
    batch, _ = batcher(model, delay=0.001, parallel=1)
    tasks = [asyncio.create_task(together(batch, request(1)))]
    while not model.runs:
        await asyncio.sleep(0)
    tasks.append(asyncio.create_task(together(batch, request(2))))
    await asyncio.sleep(0.02)
    tasks.append(asyncio.create_task(together(batch, request(3), request(4))))
    await asyncio.sleep(0)
    model.gate.set()
    async with asyncio.timeout(60):
        assert await asyncio.gather(*tasks) == [[[2]], [[4]], [[6], [8]]]
    assert model.runs == [1, 3]


async def test_a_full_batch_does_not_wait_and_no_batch_is_more_than_full() -> None:
    model = Model()
    model.gate.clear()
    batch, _ = batcher(model, rows=4)
    task = asyncio.create_task(
        together(batch, request(0), request(1, 1, 1), request(2, 2), request(3, 3, 3))
    )
    async with asyncio.timeout(60):
        while len(model.runs) < 2:
            await asyncio.sleep(0)
    model.gate.set()
    assert await task == [[0], [2] * 3, [4] * 2, [6] * 3]
    assert max(model.runs) <= 4
    assert sum(model.runs) == 9


async def test_a_request_as_large_as_a_batch_is_run_as_it_is() -> None:
    model = Model()
    batch, seen = batcher(model, rows=2)
    assert await together(batch, request(1, 2, 3)) == [[2, 4, 6]]
    assert (model.runs, seen) == ([3], [])


async def test_only_requests_that_agree_in_all_but_the_first_length_are_joined() -> None:
    model = Model()
    batch, _ = batcher(model)
    asked = (request(1), request(2, width=2), request(3, outputs=("z",)), request(4))
    assert await together(batch, *asked) == [[2], [4, 4], [6], [8]]
    assert sorted(model.runs) == [1, 1, 2]


async def test_a_request_that_fails_the_run_fails_alone() -> None:
    model = Model()
    batch, _ = batcher(model)
    good, bad, fine = await together(batch, request(1), request(float("nan")), request(3))
    assert (good, fine) == ([2], [6])
    assert isinstance(bad, ModelRunError)
    assert model.runs == [3, 1, 1, 1]


@pytest.mark.parametrize("answer", [lambda rows: rows[:1], lambda _: np.float32(1), lambda _: None])
async def test_a_model_that_does_not_answer_row_by_row_is_asked_one_by_one(answer: Any) -> None:
    model = Model()
    batch, _ = batcher(model)
    model.answer = lambda rows: answer(rows) if len(rows) > 1 else rows * 2
    assert await together(batch, request(1), request(2)) == [[2], [4]]


async def test_a_request_whose_client_is_gone_is_not_computed() -> None:
    model = Model()
    model.gate.clear()
    batch, _ = batcher(model)
    first = asyncio.create_task(together(batch, request(1)))
    while not model.runs:
        await asyncio.sleep(0)
    gone = asyncio.create_task(batch.infer(request(2)))
    stays = asyncio.create_task(together(batch, request(3, 3)))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait([gone])
    model.gate.set()
    assert (await first, await stays) == ([[2]], [[6, 6]])
    assert model.runs == [1, 2]


def fixed(path: Path) -> Path:
    return graphs.linear(path, batch=1)


def total(path: Path) -> Path:
    value = graphs.value
    return graphs.save(
        path,
        [helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0)],
        [value("x", TensorProto.FLOAT, ["n"])],
        [value("sum", TensorProto.FLOAT, [])],
    )


def turned(path: Path) -> Path:
    """Gives the transposed of what it takes: a request's answer is a column."""
    return graphs.save(
        path,
        [helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0])],
        [graphs.value("x", TensorProto.FLOAT, ["batch", "seq"])],
        [graphs.value("y", TensorProto.FLOAT, ["seq", "batch"])],
    )


def compared(path: Path) -> Path:
    """Scores each query against each document: those of one request against another's, too."""
    return graphs.save(
        path,
        [
            helper.make_node("Transpose", ["d"], ["t"], perm=[1, 0]),
            helper.make_node("MatMul", ["q", "t"], ["s"]),
        ],
        [
            graphs.value("q", TensorProto.FLOAT, ["queries", 2]),
            graphs.value("d", TensorProto.FLOAT, ["docs", 2]),
        ],
        [graphs.value("s", TensorProto.FLOAT, ["queries", "docs"])],
    )


def renamed(path: Path) -> Path:
    """Its exporter gave the rows of the output a name of their own."""
    return graphs.save(
        path,
        [helper.make_node("Identity", ["x"], ["y"])],
        [graphs.value("x", TensorProto.FLOAT, ["batch", "width"])],
        [graphs.value("y", TensorProto.FLOAT, ["rows", "width"])],
    )


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (graphs.linear, None),
        (graphs.scikit_classifier, None),
        (fixed, "input 'x' FP32 [1, 3] does not begin with an open length"),
        (total, "output 'sum' FP32 any shape does not begin with an open length"),
        (turned, "length 'batch' that an input begins with is also a later axis of its output 'y'"),
        (compared, "length 'docs' that an input begins with is also a later axis of its output"),
        (renamed, None),
    ],
)
def test_only_a_model_whose_tensors_all_begin_with_an_open_length_is_batched(
    tmp_path: Path, build: Callable[[Path], Path], said: str | None
) -> None:
    model = load_model(build(tmp_path / "model.onnx"), SessionSettings(1))
    reason = why_not(model.signature)
    assert reason is None if said is None else said in (reason or "")


def test_a_length_that_is_rows_of_one_input_and_an_axis_of_another_is_no_batch() -> None:
    numbers = BY_NAME["FP32"]
    inputs = (TensorSpec("x", numbers, ("rows", 3)), TensorSpec("mask", numbers, ("more", "rows")))
    outputs = (OutputSpec(TensorSpec("y", numbers, ("rows", 3))),)
    assert "later axis of its input 'mask'" in (why_not(Signature(inputs, outputs)) or "")


async def test_a_server_that_batches_answers_as_one_that_does_not(tmp_path: Path) -> None:
    graphs.scikit_classifier(tmp_path / "model.onnx")
    rows = np.linspace(-1, 1, 60, dtype=np.float32).reshape(20, 3)
    labels: list[list[int]] = []
    probabilities: list[list[float]] = []
    for flags in ((), ("--batch-max-rows", "16")):
        with server(tmp_path, *flags) as running:
            running.ready()
            async with httpx.AsyncClient(base_url=running.url, timeout=30, verify=False) as client:
                tensors = [
                    {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": row.tolist()}
                    for row in rows
                ]
                sent = [client.post("/v2/models/m/infer", json={"inputs": [t]}) for t in tensors]
                got = await asyncio.gather(*sent)
                metrics = (await client.get("/metrics")).text
        outputs = [answer.json()["outputs"] for answer in got]
        labels.append([output[0]["data"][0] for output in outputs])
        probabilities.append([output[1]["data"][0] for output in outputs])
    assert labels[0] == labels[1]
    # Another number of rows is another order of additions: the last digit may differ.
    assert np.allclose(probabilities[0], probabilities[1], rtol=1e-5)
    assert 'mooring_onnx_batch_rows_sum{model="m"} 20.0' in metrics
    assert 'mooring_onnx_batch_rows_count{model="m"} 20.0' not in metrics
