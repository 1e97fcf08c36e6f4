"""gRPC: the Open Inference Protocol v2 and the standard health service, on a real port."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]
from tests.onnx_server import graphs
from tests.onnx_server.conftest import App
from tests.onnx_server.servers import COMPONENT, server

from mooring_onnx_server import __version__
from mooring_onnx_server import open_inference_pb2 as pb
from mooring_onnx_server.datatypes import BY_NAME
from mooring_onnx_server.grpc_codec import CONTENTS
from mooring_onnx_server.grpc_service import GrpcServer
from mooring_onnx_server.raw import encode_raw

pytestmark = pytest.mark.process

SERVING, NOT_SERVING = 1, 2
_RESPONSES: dict[str, Any] = {
    "ServerLive": pb.ServerLiveResponse,
    "ServerReady": pb.ServerReadyResponse,
    "ServerMetadata": pb.ServerMetadataResponse,
    "ModelReady": pb.ModelReadyResponse,
    "ModelMetadata": pb.ModelMetadataResponse,
    "ModelInfer": pb.ModelInferResponse,
}


class Client:
    """Calls methods of the protocol by name."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    async def call(self, method: str, message: Any) -> Any:
        stub = self._channel.unary_unary(
            f"/inference.GRPCInferenceService/{method}",
            request_serializer=_bytes,
            response_deserializer=_RESPONSES[method].FromString,
        )
        return await stub(message, timeout=30)

    async def refused(self, method: str, message: Any) -> tuple[StatusCode, str]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.call(method, message)
        return caught.value.code(), caught.value.details() or ""

    async def health(self, service: str = "") -> int:
        check = self._channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        answer = await check(health_pb2.HealthCheckRequest(service=service), timeout=30)
        return int(answer.status)


@asynccontextmanager
async def serving(app: App) -> AsyncIterator[Client]:
    """The application's service on a free port, begun if it has a model."""
    served = GrpcServer(app.service, max_body_bytes=100_000)
    port = await served.start("127.0.0.1", 0)
    if app.service.served is not None:
        await served.begin(app.service.served.signature)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Client(channel)
    await served.close()


def _bytes(message: Any) -> bytes:
    return message if isinstance(message, bytes) else bytes(message.SerializeToString())


MakeApp = Callable[[Callable[[Path], Path]], App]


def tensor(
    name: str, datatype: str, values: Any, **more: Any
) -> pb.ModelInferRequest.InferInputTensor:
    array = np.asarray(values)
    made = pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=array.shape)
    getattr(made.contents, CONTENTS[datatype]).extend(array.ravel().tolist())
    return made


def infer(*tensors: Any, **more: Any) -> pb.ModelInferRequest:
    return pb.ModelInferRequest(**{"model_name": "m", "inputs": tensors, **more})


X = tensor("x", "FP32", [[1, 2, 3]])


async def test_health_readiness_and_metadata_are_those_of_rest(app: MakeApp) -> None:
    async with serving(app(graphs.linear)) as client:
        assert (await client.call("ServerLive", pb.ServerLiveRequest())).live
        assert (await client.call("ServerReady", pb.ServerReadyRequest())).ready
        about = await client.call("ServerMetadata", pb.ServerMetadataRequest())
        assert (about.name, about.version) == ("mooring-onnx-server", __version__)
        for version in ("", "1"):
            asked = pb.ModelReadyRequest(name="m", version=version)
            assert (await client.call("ModelReady", asked)).ready
            model = await client.call("ModelMetadata", pb.ModelMetadataRequest(name="m"))
            assert (model.name, list(model.versions)) == ("m", ["1"])
            (x,), (scores,) = model.inputs, model.outputs
            assert (x.name, x.datatype, list(x.shape)) == ("x", "FP32", [-1, 3])
            assert (scores.name, scores.datatype, list(scores.shape)) == ("scores", "FP32", [-1, 2])
        for service in ("", "inference.GRPCInferenceService", "m"):
            assert await client.health(service) == SERVING


async def test_before_the_model_is_loaded_the_server_is_live_and_unavailable() -> None:
    async with serving(App()) as client:
        assert (await client.call("ServerLive", pb.ServerLiveRequest())).live
        assert not (await client.call("ServerReady", pb.ServerReadyRequest())).ready
        assert not (await client.call("ModelReady", pb.ModelReadyRequest(name="m"))).ready
        assert await client.health() == NOT_SERVING
        code, said = await client.refused("ModelInfer", infer(X))
        assert (code, said) == (
            StatusCode.UNAVAILABLE,
            "model 'm' is still loading: try again later",
        )


async def test_a_prediction_names_model_version_and_id(app: MakeApp) -> None:
    async with serving(app(graphs.linear)) as client:
        answer = await client.call("ModelInfer", infer(X, id="7", model_version="1"))
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "1", "7")
    (scores,) = answer.outputs
    assert (scores.name, scores.datatype, list(scores.shape)) == ("scores", "FP32", [1, 2])
    assert list(scores.contents.fp32_contents) == pytest.approx([4.1, -4.1])
    assert not answer.raw_output_contents


VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False],
    "FP32": [0.5, float("-inf")],
    "FP64": [1e300, -0.5],
    "BYTES": [b"", "grün".encode()],
}


async def test_every_datatype_but_fp16_travels_in_its_typed_field(app: MakeApp) -> None:
    datatypes = tuple(CONTENTS)
    values = {d: VALUES.get(d, [0, 100]) for d in datatypes}
    inputs = []
    for datatype, given in values.items():
        made = pb.ModelInferRequest.InferInputTensor(
            name=f"in_{datatype}", datatype=datatype, shape=[2]
        )
        getattr(made.contents, CONTENTS[datatype]).extend(given)
        inputs.append(made)
    async with serving(app(lambda path: graphs.echo(path, datatypes))) as client:
        answer = await client.call("ModelInfer", infer(*inputs))
    found = {o.datatype: list(getattr(o.contents, CONTENTS[o.datatype])) for o in answer.outputs}
    assert found == values


async def test_raw_contents_are_answered_raw_for_every_datatype(app: MakeApp) -> None:
    inputs, raw = [], []
    for name in graphs.ELEMENTS:
        array = np.array(["", "grün"] if name == "BYTES" else [0, 1], BY_NAME[name].dtype)
        inputs.append(
            pb.ModelInferRequest.InferInputTensor(name=f"in_{name}", datatype=name, shape=[2])
        )
        raw.append(encode_raw(array, BY_NAME[name]))
    async with serving(app(graphs.echo)) as client:
        answer = await client.call("ModelInfer", infer(*inputs, raw_input_contents=raw))
    assert list(answer.raw_output_contents) == raw
    assert not any(output.HasField("contents") for output in answer.outputs)


async def test_only_the_outputs_asked_for_are_given_in_that_order(app: MakeApp) -> None:
    names = ("FP32", "INT64")
    inputs = [tensor("in_FP32", "FP32", [1]), tensor("in_INT64", "INT64", [2])]
    wanted = [{"name": "out_INT64"}, {"name": "out_FP32"}]
    async with serving(app(lambda path: graphs.echo(path, names))) as client:
        answer = await client.call("ModelInfer", infer(*inputs, outputs=wanted))
    assert [output.name for output in answer.outputs] == ["out_INT64", "out_FP32"]


def changed(**changes: Any) -> Any:
    made = pb.ModelInferRequest.InferInputTensor()
    made.CopyFrom(X)
    for name, value in changes.items():
        if isinstance(value, list):
            del made.shape[:]
            made.shape.extend(value)
        else:
            setattr(made, name, value)
    return made


BARE = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 3])
BOTH = tensor("x", "FP32", [[1, 2, 3]])
BOTH.contents.int_contents.append(1)

REFUSED: list[tuple[Any, StatusCode, str]] = [
    (infer(), StatusCode.INVALID_ARGUMENT, "input 'x' is missing"),
    (infer(X, X), StatusCode.INVALID_ARGUMENT, "input 'x' is given twice"),
    (infer(changed(name="y")), StatusCode.INVALID_ARGUMENT, "input 'y' is not one of"),
    (infer(changed(datatype="FP64")), StatusCode.INVALID_ARGUMENT, "input 'x': 'datatype' is"),
    (infer(changed(shape=[1, 4])), StatusCode.INVALID_ARGUMENT, "length 4 in dimension 1"),
    (infer(changed(shape=[-1, 3])), StatusCode.INVALID_ARGUMENT, "integers of 0 or more, not -1"),
    (infer(changed(shape=[2, 3])), StatusCode.INVALID_ARGUMENT, "'fp32_contents' has 3"),
    (infer(BARE), StatusCode.INVALID_ARGUMENT, "'fp32_contents' has 0"),
    (infer(BOTH), StatusCode.INVALID_ARGUMENT, "'int_contents' is filled as well"),
    (
        infer(X, raw_input_contents=[b"\0" * 12]),
        StatusCode.INVALID_ARGUMENT,
        "input 'x': both 'contents' and raw contents came",
    ),
    (
        infer(BARE, raw_input_contents=[b"\0" * 11]),
        StatusCode.INVALID_ARGUMENT,
        "input 'x': shape [1, 3] of FP32 takes 12 bytes, 11 came",
    ),
    (
        infer(BARE, raw_input_contents=[b"", b""]),
        StatusCode.INVALID_ARGUMENT,
        "'raw_input_contents' has 2 entries for 1 inputs",
    ),
    (infer(X, outputs=[{"name": "z"}]), StatusCode.INVALID_ARGUMENT, "output 'z' is not one"),
    (b"\xff\xff", StatusCode.INVALID_ARGUMENT, "no inference.ModelInferRequest"),
    (infer(X, model_name="other"), StatusCode.NOT_FOUND, "no model 'other' here"),
    (infer(X, model_version="2"), StatusCode.NOT_FOUND, "has no version '2': it has '1'"),
    (infer(X, id="x" * 200_000), StatusCode.RESOURCE_EXHAUSTED, "larger than max"),
]


async def test_a_wrong_request_is_refused_with_the_status_that_says_whose_fault_it_is(
    app: MakeApp,
) -> None:
    async with serving(app(graphs.linear)) as client:
        for message, code, said in REFUSED:
            found, details = await client.refused("ModelInfer", message)
            assert (found, said in details) == (code, True), details
        found, _ = await client.refused("ModelReady", pb.ModelReadyRequest(name="other"))
        assert found is StatusCode.NOT_FOUND
        assert (await client.call("ModelInfer", infer(X))).outputs


@pytest.mark.parametrize(
    ("datatype", "value"), [("INT8", 128), ("UINT8", 256), ("INT16", -(2**15) - 1)]
)
async def test_integers_that_the_message_has_no_type_for_are_checked_against_their_range(
    app: MakeApp, datatype: str, value: int
) -> None:
    async with serving(app(lambda path: graphs.echo(path, (datatype,)))) as client:
        given = infer(tensor(f"in_{datatype}", datatype, [0, value]))
        code, said = await client.refused("ModelInfer", given)
    assert code is StatusCode.INVALID_ARGUMENT
    assert f"input 'in_{datatype}': element 1 is {value}" in said


async def test_text_that_is_none_is_refused(app: MakeApp) -> None:
    made = pb.ModelInferRequest.InferInputTensor(name="in_BYTES", datatype="BYTES", shape=[1])
    made.contents.bytes_contents.append(b"\xff")
    async with serving(app(lambda path: graphs.echo(path, ("BYTES",)))) as client:
        code, said = await client.refused("ModelInfer", infer(made))
    assert (code, "element 0 is not UTF-8" in said) == (StatusCode.INVALID_ARGUMENT, True)


async def test_a_models_failure_is_internal_and_counted_as_500(app: MakeApp) -> None:
    running = app(graphs.lookup)
    async with serving(running) as client:
        bad = infer(tensor("index", "INT64", [9]))
        code, said = await client.refused("ModelInfer", bad)
        assert code is StatusCode.INTERNAL
        assert said.startswith("the model failed on this request: ")
        await client.refused("ModelInfer", infer(model_name="other"))
        await client.call("ModelInfer", infer(tensor("index", "INT64", [3])))
    text = running.metrics.render("")[0].decode()
    duration = "mooring_onnx_request_duration_seconds_count"
    for code_, model in ((500, "m"), (200, "m"), (404, "unknown")):
        assert f'{duration}{{code="{code_}",model="{model}"}} 1.0' in text
    assert 'mooring_onnx_requests_in_flight{model="m"} 0.0' in text


@pytest.fixture(scope="module")
def laborious(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("laborious")
    graphs.laborious(folder / "model.onnx")
    return folder


def steps(count: int) -> pb.ModelInferRequest:
    return infer(tensor("steps", "INT64", [count]))


async def until_in_flight(app_metrics: Callable[[], str]) -> None:
    async with asyncio.timeout(60):
        while 'mooring_onnx_requests_in_flight{model="m"} 1.0' not in app_metrics():
            await asyncio.sleep(0.005)


async def until_closed(address: str) -> None:
    host, _, port = address.rpartition(":")
    async with asyncio.timeout(60):
        while True:
            try:
                _, writer = await asyncio.open_connection(host, int(port))
            except (ConnectionRefusedError, ConnectionResetError):
                return  # reset: it was still in the queue when the port was closed
            writer.close()
            await asyncio.sleep(0.005)


async def until_told(channel: grpc.aio.Channel) -> None:
    """What a client sends before it has heard that it should connect elsewhere is cancelled."""
    async with asyncio.timeout(60):
        while channel.get_state() is grpc.ChannelConnectivity.READY:
            await asyncio.sleep(0.005)


async def stopped_amid(folder: Path, count: int, *flags: str) -> tuple[Any, int, list[Any]]:
    """Stops a server while it computes; what the request got, the exit code, and what a second
    one and the health service got meanwhile.
    """
    import httpx

    with server(folder, "--quiet-seconds", "0.2", *flags) as running:
        running.ready()
        with httpx.Client(base_url=running.url, verify=False) as http:
            async with grpc.aio.insecure_channel(running.grpc_address) as channel:
                client = Client(channel)
                first = asyncio.create_task(client.call("ModelInfer", steps(count)))
                await until_in_flight(lambda: http.get("/metrics").text)
                running.terminate()
                await until_closed(running.grpc_address)
                await until_told(channel)
                second = (
                    await asyncio.gather(
                        client.call("ModelInfer", steps(1)), return_exceptions=True
                    )
                )[0]
                answer = (await asyncio.gather(first, return_exceptions=True))[0]
        return answer, await asyncio.to_thread(running.end), [second]


async def test_a_stop_finishes_what_is_in_flight_and_refuses_what_is_new(laborious: Path) -> None:
    answer, code, (second,) = await stopped_amid(laborious, 60_000)
    assert list(answer.outputs[0].contents.fp32_contents) == [64]
    assert isinstance(second, grpc.aio.AioRpcError)
    assert second.code() is StatusCode.UNAVAILABLE
    assert code == 0


async def test_what_is_in_flight_after_the_grace_period_is_unavailable(laborious: Path) -> None:
    answer, code, _ = await stopped_amid(laborious, 10**12, "--grace-seconds", "0.5")
    assert isinstance(answer, grpc.aio.AioRpcError)
    assert answer.code() is StatusCode.UNAVAILABLE
    assert "the server stopped before this request was done" in (answer.details() or "")
    assert code == 0


async def test_a_rolling_restart_under_load_fails_no_request(tmp_path: Path) -> None:
    """Two pods behind one name, one of them is stopped; clients retry nothing by themselves."""
    graphs.linear(tmp_path / "model.onnx")
    with server(tmp_path, "--quiet-seconds", "0.2") as old, server(tmp_path) as new:
        addresses = [running.ready().grpc_address for running in (old, new)]
        balanced = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})
        failed: list[Any] = []
        answered = 0
        stop = asyncio.Event()
        async with grpc.aio.insecure_channel(
            "ipv4:" + ",".join(addresses), options=(("grpc.service_config", balanced),)
        ) as channel:
            client = Client(channel)

            async def ask() -> None:
                nonlocal answered
                while not stop.is_set():
                    try:
                        await client.call("ModelInfer", infer(X))
                        answered += 1
                    except grpc.aio.AioRpcError as error:
                        failed.append(error)

            async def more(count: int) -> None:
                enough = answered + count
                async with asyncio.timeout(60):
                    while answered < enough:
                        await asyncio.sleep(0.005)

            asking = [asyncio.create_task(ask()) for _ in range(8)]
            await more(100)
            old.terminate()
            assert await asyncio.to_thread(old.end) == 0
            await more(50)
            stop.set()
            await asyncio.gather(*asking)
    assert failed == []


async def test_a_watcher_of_health_is_told_of_the_stop_and_does_not_hold_it_up(
    app: MakeApp,
) -> None:
    running = app(graphs.linear)
    served = GrpcServer(running.service, 100_000)
    port = await served.start("127.0.0.1", 0)
    assert running.service.served is not None
    await served.begin(running.service.served.signature)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        watch: Any = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == SERVING
        await served.drain()
        assert (await watch.read()).status == NOT_SERVING
        async with asyncio.timeout(60):
            await served.close()


def test_a_taken_grpc_port_ends_the_process_with_what_to_do(tmp_path: Path) -> None:
    graphs.linear(tmp_path / "model.onnx")
    with server(tmp_path) as first:
        port = first.ready().grpc_address.rpartition(":")[2]
        with server(tmp_path, "--grpc-port", port) as second:
            assert second.end() == 1
    assert "cannot listen on port" in second.lines[-1]
    assert second.lines[-1].endswith("give another --grpc-port or --host, or --no-grpc")


def test_without_grpc_its_library_is_not_loaded(tmp_path: Path) -> None:
    graphs.linear(tmp_path / "model.onnx")
    with server(tmp_path, "--no-grpc") as running:
        running.ready()
        mapped = Path(f"/proc/{running.process.pid}/maps").read_text()
    assert "grpc" not in mapped
    assert "onnxruntime" in mapped


def test_the_generated_messages_are_those_of_the_proto_file() -> None:
    tool = COMPONENT / "tools" / "generate_protocol.py"
    done = subprocess.run(
        [sys.executable, str(tool), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
