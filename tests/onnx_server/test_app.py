"""The HTTP surface: Open Inference Protocol v2, health, errors and metrics."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.onnx_server import graphs
from tests.onnx_server.conftest import App

from mooring_onnx_server import __version__
from mooring_onnx_server.metrics import LATENCY_BUCKETS
from mooring_onnx_server.state import Phase

MakeApp = Callable[[Callable[[Path], Path]], App]
X = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}


async def get(app: App, path: str, method: str = "GET") -> tuple[int, Any]:
    async with app.client() as client:
        answer = await client.request(method, path)
        return answer.status_code, answer.json()


async def samples(app: App) -> dict[str, float]:
    async with app.client() as client:
        text = (await client.get("/metrics")).text
    found = re.findall(r"^([a-z_]+(?:\{.*\})?) (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


async def test_the_server_tells_its_name_version_and_extensions(app: MakeApp) -> None:
    expected = {
        "extensions": ["binary_tensor_data"],
        "name": "mooring-onnx-server",
        "version": __version__,
    }
    running = app(graphs.linear)
    assert await get(running, "/v2") == (200, expected)
    assert await get(running, "/v2/") == (200, expected)


@pytest.mark.parametrize("path", ["/v2/models/m", "/v2/models/m/versions/1"])
async def test_a_models_metadata_is_its_graphs(app: MakeApp, path: str) -> None:
    assert await get(app(graphs.linear), path) == (
        200,
        {
            "name": "m",
            "versions": ["1"],
            "platform": "onnx_onnxv1",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
            "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 2]}],
        },
    )


READY_PATHS = ["/v2/health/ready", "/v2/models/m/ready", "/v2/models/m/versions/1/ready"]


@pytest.mark.parametrize("path", READY_PATHS)
async def test_readiness_is_200_only_between_warm_up_and_stop(app: MakeApp, path: str) -> None:
    loading = App()
    assert (await get(loading, path))[0] == 503
    running = app(graphs.linear)
    status, body = await get(running, path)
    assert (status, body["ready"]) == (200, True)
    running.state.phase = Phase.DRAINING
    status, body = await get(running, path)
    assert (status, body["ready"]) == (503, False)


async def test_liveness_is_200_in_every_phase(app: MakeApp) -> None:
    running = app(graphs.linear)
    for phase in Phase:
        running.state.phase = phase
        assert await get(running, "/v2/health/live") == (200, {"live": True})


async def test_before_the_model_is_loaded_inference_and_metadata_are_503() -> None:
    loading = App()
    answer = await loading.infer(inputs=[X])
    assert (answer.status_code, answer.json()) == (
        503,
        {"error": "model 'm' is still loading: try again later"},
    )
    assert (await get(loading, "/v2/models/m"))[0] == 503


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("GET", "/", 404, "no such path: /; the protocol's begin with /v2"),
        ("GET", "/v3", 404, "no such path"),
        ("GET", "/v2/nothing", 404, "no such path"),
        ("GET", "/v2/models", 404, "no such path"),
        ("GET", "/v2/models/m/nothing", 404, "no such path"),
        ("GET", "/v2/models/m/versions", 404, "no such path"),
        ("GET", "/v2/models/other", 404, "no model 'other' here: this server has 'm'"),
        ("GET", "/v2/models/other/ready", 404, "no model 'other' here: this server has 'm'"),
        ("POST", "/v2/models/other/infer", 404, "no model 'other' here: this server has 'm'"),
        ("GET", "/v2/models/m/versions/2", 404, "model 'm' has no version '2': it has '1'"),
        ("POST", "/v2/models/m/versions/2/infer", 404, "model 'm' has no version '2'"),
        ("GET", "/v2/models/m/infer", 405, "inference takes POST"),
        ("POST", "/v2/models/m", 405, "/v2/models/m takes GET"),
        ("DELETE", "/v2/health/live", 405, "/v2/health/live takes GET"),
    ],
)
async def test_what_is_not_there_is_an_error_that_says_what_is(
    app: MakeApp, method: str, path: str, status: int, said: str
) -> None:
    found, body = await get(app(graphs.linear), path, method)
    assert found == status
    assert list(body) == ["error"]
    assert said in body["error"]


async def test_405_names_the_method_that_is_allowed(app: MakeApp) -> None:
    async with app(graphs.linear).client() as client:
        assert (await client.get("/v2/models/m/infer")).headers["allow"] == "POST"
        assert (await client.post("/v2")).headers["allow"] == "GET"


@pytest.mark.parametrize("batch", [0, 1, 7])
async def test_a_batch_of_any_size_is_answered_row_by_row(app: MakeApp, batch: int) -> None:
    x = np.arange(batch * 3, dtype=np.float32).reshape(batch, 3)
    tensor = {**X, "shape": list(x.shape), "data": x.ravel().tolist()}
    answer = (await app(graphs.linear).infer(id="i", inputs=[tensor])).json()
    expected = x @ graphs.WEIGHTS + graphs.OFFSETS
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("m", "1", "i")
    (output,) = answer["outputs"]
    assert (output["name"], output["datatype"]) == ("scores", "FP32")
    assert output["shape"] == [batch, 2]
    assert np.allclose(output["data"], expected.ravel())


async def test_a_scikit_learn_classifier_is_served_as_it_was_converted(app: MakeApp) -> None:
    x = np.array([[0.2, -1, 0.5], [3, 1, 1]], np.float32)
    tensor = {**X, "shape": [2, 3], "data": x.tolist()}
    answer = (await app(graphs.scikit_classifier).infer(inputs=[tensor])).json()
    logits = x @ graphs.WEIGHTS + graphs.OFFSETS
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    label, probabilities = answer["outputs"]
    assert label["data"] == [[0, 7][row] for row in expected.argmax(axis=1)]
    assert probabilities["shape"] == [2, 2]
    assert np.allclose(probabilities["data"], expected.ravel(), atol=1e-6)


VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False],
    "FP16": [-1.5, 65504],
    "FP32": [0.1, "-Infinity"],
    "FP64": [1e300, "NaN"],
    "BYTES": ["", "grün"],
}


async def test_every_datatype_goes_in_and_comes_out_unchanged(app: MakeApp) -> None:
    values = {d: VALUES.get(d, [0, 100]) for d in graphs.ELEMENTS}
    inputs = [
        {"name": f"in_{d}", "shape": [2], "datatype": d, "data": v} for d, v in values.items()
    ]
    answer = (await app(graphs.echo).infer(inputs=inputs)).json()
    assert {o["datatype"]: o["data"] for o in answer["outputs"]} == values


async def test_only_the_outputs_asked_for_are_given_in_that_order(app: MakeApp) -> None:
    def build(path: Path) -> Path:
        return graphs.echo(path, ("FP32", "INT64", "BYTES"))

    inputs = [
        {"name": "in_FP32", "shape": [1], "datatype": "FP32", "data": [1]},
        {"name": "in_INT64", "shape": [1], "datatype": "INT64", "data": [2]},
        {"name": "in_BYTES", "shape": [1], "datatype": "BYTES", "data": ["3"]},
    ]
    wanted = [{"name": "out_BYTES"}, {"name": "out_FP32"}]
    answer = (await app(build).infer(inputs=inputs, outputs=wanted)).json()
    assert [o["name"] for o in answer["outputs"]] == ["out_BYTES", "out_FP32"]


async def test_a_wrong_request_is_400_with_one_error_and_nothing_else(app: MakeApp) -> None:
    answer = await app(graphs.linear).infer(inputs=[{**X, "shape": [1, 4]}])
    assert answer.status_code == 400
    assert answer.json() == {
        "error": "input 'x': shape [1, 4] has length 4 in dimension 1, the model takes [-1, 3]"
    }


async def test_a_model_that_fails_in_the_run_is_500_and_the_next_request_is_fine(
    app: MakeApp,
) -> None:
    running = app(graphs.lookup)
    index = {"name": "index", "shape": [1], "datatype": "INT64"}
    failed = await running.infer(inputs=[{**index, "data": [9]}])
    assert failed.status_code == 500
    assert failed.json()["error"].startswith("the model failed on this request: ")
    assert (await running.infer(inputs=[{**index, "data": [3]}])).json()["outputs"][0]["data"] == [
        3
    ]


async def test_a_fault_of_the_server_is_logged_without_what_was_sent_and_once_a_second(
    app: MakeApp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    running, sent = app(graphs.linear), "4111 1111"

    async def fail(*_: object) -> None:
        raise KeyError(sent)

    monkeypatch.setattr(running.service.loaded().engine, "infer", fail)
    for _ in range(3):
        failed = await running.infer(inputs=[X])
        assert failed.status_code == 500
        assert failed.json() == {"error": "the server failed on this request: its log says where"}
    (logged,) = caplog.messages
    assert logged.startswith("a request failed inside the server: KeyError\n")
    assert ", in fail" in logged
    assert sent not in logged


async def test_a_models_infinities_reach_the_client_as_words(app: MakeApp) -> None:
    over = {"name": "over", "shape": [4], "datatype": "FP32", "data": [0, "NaN", -0.0, 2]}
    answer = (await app(graphs.divide).infer(inputs=[over])).json()
    assert answer["outputs"][0]["data"] == ["Infinity", "NaN", "-Infinity", 0.5]


async def test_a_body_over_the_limit_is_413_that_names_the_flag(tmp_path: Path) -> None:
    running = App(max_body_bytes=1000).load(graphs.linear(tmp_path / "model.onnx"))
    answer = await running.infer(b" " * 1001)
    assert answer.status_code == 413
    assert "larger than the 1000 bytes" in answer.json()["error"]
    assert "--max-body-bytes" in answer.json()["error"]


async def test_a_compressed_body_is_415(app: MakeApp) -> None:
    async with app(graphs.linear).client() as client:
        headers = {"content-encoding": "gzip"}
        answer = await client.post("/v2/models/m/infer", content=b"x", headers=headers)
    assert answer.status_code == 415
    assert "content-encoding 'gzip' is not supported: send the body" in answer.json()["error"]


async def test_while_draining_requests_are_answered_and_told_to_go_elsewhere(
    app: MakeApp,
) -> None:
    running = app(graphs.linear)
    assert "connection" not in (await running.infer(inputs=[X])).headers
    running.state.phase = Phase.DRAINING
    answer = await running.infer(inputs=[X])
    assert (answer.status_code, answer.headers["connection"]) == (200, "close")


async def test_requests_are_counted_and_timed_by_model_and_code(app: MakeApp) -> None:
    running = app(graphs.lookup)
    index = {"name": "index", "shape": [1], "datatype": "INT64"}
    for value in (1, 2, 9, "x"):
        await running.infer(inputs=[{**index, "data": [value]}])
    await get(running, "/v2/models/../../etc/infer", "POST")
    await get(running, "/v2/models/other/infer", "POST")
    found = await samples(running)
    duration = "mooring_onnx_request_duration_seconds_count"
    assert found[f'{duration}{{code="200",model="m"}}'] == 2
    assert found[f'{duration}{{code="400",model="m"}}'] == 1
    assert found[f'{duration}{{code="500",model="m"}}'] == 1
    assert found[f'{duration}{{code="404",model="unknown"}}'] == 2
    assert found['mooring_onnx_run_duration_seconds_count{model="m"}'] == 2
    assert found['mooring_onnx_requests_in_flight{model="m"}'] == 0
    assert found['mooring_onnx_model_ready{model="m"}'] == 1
    assert found['mooring_onnx_request_bytes_total{model="m"}'] > 0
    assert found['mooring_onnx_response_bytes_total{model="m"}'] > 0
    assert any(name.startswith("mooring_onnx_build_info{") for name in found)


async def test_the_series_of_success_is_there_before_the_first_request() -> None:
    found = await samples(App())
    assert found['mooring_onnx_request_duration_seconds_count{code="200",model="m"}'] == 0
    assert found['mooring_onnx_model_ready{model="m"}'] == 0


def test_latency_buckets_are_geometric_from_a_tenth_of_a_millisecond_to_over_a_minute() -> None:
    ratios = np.array(LATENCY_BUCKETS[1:]) / np.array(LATENCY_BUCKETS[:-1])
    assert np.allclose(ratios, 2**0.5, rtol=0.01)
    assert LATENCY_BUCKETS[0] == 1e-4
    assert LATENCY_BUCKETS[-1] > 100


async def test_metrics_are_given_in_the_format_that_is_asked_for(app: MakeApp) -> None:
    async with app(graphs.linear).client() as client:
        plain = await client.get("/metrics", headers={"accept": "text/plain"})
        accept = "application/openmetrics-text; version=1.0.0"
        open_metrics = await client.get("/metrics", headers={"accept": accept})
    assert plain.headers["content-type"].startswith("text/plain")
    assert open_metrics.text.endswith("# EOF\n")
