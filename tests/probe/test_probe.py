"""`mooring probe`: what it finds right, what it finds wrong, and where it finds nobody."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.onnx_server import graphs
from tests.onnx_server.servers import Server, server
from tests.probe.wrong_servers import ABOUT, METADATA, Wrong, Y, Z, small_server

from mooring.cli import main
from mooring.cli.probe_points import DATATYPES, Differs, read_metadata

pytestmark = pytest.mark.process


def probe(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["probe", *arguments])


def found(*arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    """The exit code, and every point's finding by its name."""
    done = probe(*arguments, "-o", "json")
    points = json.loads(done.stdout)["points"]
    return done.exit_code, {point["point"]: point for point in points}


def with_result(points: dict[str, dict[str, str]], result: str) -> set[str]:
    return {name for name, point in points.items() if point["result"] == result}


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("probed")
    graphs.scikit_classifier(folder / "model.onnx")
    with server(folder) as running:
        yield running.ready()


def test_our_own_server_is_right_at_every_point_over_both_protocols(ours: Server) -> None:
    code, points = found(ours.url, "--model", "m", "--grpc", ours.grpc_address)
    assert {name: p for name, p in points.items() if p["result"] != "ok"} == {}
    assert code == 0
    assert {"infer", "wrong shape", "binary input", "binary output", "gRPC infer"} <= set(points)


@pytest.mark.parametrize("datatypes", [tuple(DATATYPES), ("FP16",), ("BYTES", "BOOL")])
def test_every_datatype_is_asked_for_in_its_own_form(
    tmp_path: Path, datatypes: tuple[str, ...]
) -> None:
    graphs.echo(tmp_path / "model.onnx", datatypes)
    with server(tmp_path) as running:
        running.ready()
        code, points = found(running.url, "--model", "m", "--grpc", running.grpc_address)
    assert code == 0, with_result(points, "failed")
    # FP16 has no typed contents, which only "gRPC infer" needs.
    typed = "skipped" if "FP16" in datatypes else "ok"
    assert points["gRPC infer"]["result"] == typed
    assert points["gRPC infer, raw"]["result"] == "ok"


def test_a_table_tells_point_result_sight_and_rule(ours: Server) -> None:
    done = CliRunner().invoke(main, ["probe", ours.url, "--model", "m"], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    assert "the protocol says" in done.stdout
    assert "x FP32 [-1, 3] → label INT64 [-1]" in done.stdout
    assert "20 ok, 0 failed, 0 skipped" in done.stdout
    assert "\x1b[" not in done.stdout


def test_without_a_model_only_the_server_is_asked(ours: Server) -> None:
    code, points = found(ours.url.removeprefix("http://"))
    assert code == 0
    assert with_result(points, "ok") == {
        "server live",
        "server ready",
        "server metadata",
        "unknown model, metadata",
    }
    assert points["infer"]["seen"] == "no model is named: give --model"


def test_a_model_that_is_not_there_fails_what_asks_for_it(ours: Server) -> None:
    code, points = found(ours.url, "--model", "other", "--grpc", ours.grpc_address)
    assert code == 1
    assert with_result(points, "failed") == {
        "model ready",
        "model metadata",
        "gRPC model ready",
        "gRPC model metadata",
    }
    assert points["infer"]["result"] == "skipped"


def test_a_request_of_ones_own_is_used_where_zeros_are_nothing_for_the_model(
    tmp_path: Path,
) -> None:
    graphs.lookup(tmp_path / "model.onnx")
    index = {"name": "index", "shape": [2], "datatype": "INT64", "data": [3, 3]}
    own = tmp_path / "request.json"
    with server(tmp_path) as running:
        running.ready()
        for data, code in (([3, 3], 0), ([9, 9], 1)):
            own.write_text(json.dumps({"inputs": [{**index, "data": data}]}))
            found_code, points = found(running.url, "--model", "m", "--input", str(own))
            assert found_code == code
    assert "500: " in points["infer"]["seen"]
    assert points["infer, id"]["result"] == "skipped"


def test_a_request_of_ones_own_does_without_metadata(tmp_path: Path) -> None:
    tensors = [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]
    tensors += [{"name": "s", "shape": [1], "datatype": "BYTES", "data": ["a"]}]
    own = tmp_path / "request.json"
    own.write_text(json.dumps({"inputs": tensors}))
    with small_server({"GET /v2/models/m": (404, {"error": "none"})}) as url:
        code, points = found(url, "--model", "m", "--input", str(own))
    assert (code, with_result(points, "failed")) == (1, {"model metadata"})
    assert {"infer", "infer, id", "wrong shape", "missing input"} <= with_result(points, "ok")


def test_a_small_server_that_is_right_is_found_right() -> None:
    with small_server({}) as url:
        code, points = found(url, "--model", "m")
    assert (code, with_result(points, "failed")) == (0, set())
    assert with_result(points, "skipped") == {"binary input", "binary output"}


def changed(document: Any, **changes: Any) -> Any:
    return {k: v for k, v in {**document, **changes}.items() if v is not ...}


def answering(*outputs: Any, **more: Any) -> Wrong:
    """Every inference is answered by this."""
    answer = {"model_name": "m", "outputs": list(outputs), **more}
    return {"POST /v2/models/m/infer": (200, answer)}


WRONG: list[tuple[Wrong, str, str]] = [
    ({"GET /v2/health/live": (503, b"")}, "server live", "503"),
    (
        {"GET /v2/health/ready": (302, b"https://login.example.com/")},
        "server ready",
        "302: redirects to https://login.example.com/",
    ),
    ({"GET /v2": (200, b"hello")}, "server metadata", "without JSON: hello"),
    ({"GET /v2": (200, [])}, "server metadata", "not an object"),
    ({"GET /v2": (200, changed(ABOUT, name=...))}, "server metadata", "no text as 'name'"),
    ({"GET /v2": (200, changed(ABOUT, extensions=...))}, "server metadata", "'extensions'"),
    ({"GET /v2": (0, b"")}, "server metadata", "the connection ended without an answer"),
    ({"GET /v2/models/m/ready": (404, b"")}, "model ready", "404"),
    ({"GET /v2/models/m": (200, changed(METADATA, name="n"))}, "model metadata", "'name' is n"),
    ({"GET /v2/models/m": (200, changed(METADATA, inputs=...))}, "model metadata", "no list"),
    (
        {"GET /v2/models/m/versions/7": (200, changed(METADATA, outputs=[]))},
        "model metadata, version",
        "another signature",
    ),
    ({"POST /v2/models/m/infer": (500, b"oops")}, "infer", "500: oops (made-up zeros"),
    (answering(), "infer", "has no outputs"),
    (answering(Y, Z, model_name="n"), "infer", "'model_name' is"),
    (answering(changed(Y, name="w")), "infer", "output 'w' is not in the metadata"),
    (answering(changed(Y, datatype="FP32")), "infer", "its metadata says INT64"),
    (answering(changed(Y, data=...)), "infer", "no list as 'data'"),
    (answering(changed(Z, data=[1])), "infer", "has 1 elements for shape [1, 2]"),
    (answering(changed(Y, shape=["1"])), "infer", "no list of integers"),
    (answering(Y, Z), "infer, id", "got null"),
    (answering(Y, Z), "infer, outputs", "asked for z, got y, z"),
    (answering(Y, Z), "wrong input name", "200"),
    (answering(Y, Z), "wrong shape", "200"),
    (answering(Y, Z), "wrong datatype", "200"),
    (answering(Y, Z), "missing input", "200"),
    (answering(Y, Z), "not JSON", "200"),
    (
        {"GET /v2/models/mooring-probe-no-such-model": (404, {"detail": "none"})},
        "unknown model, metadata",
        "404 without 'error'",
    ),
    (
        {"POST /v2/models/mooring-probe-no-such-model/infer": (500, {"error": "?"})},
        "unknown model, infer",
        "500",
    ),
]


@pytest.mark.parametrize(
    ("wrong", "point", "seen"), WRONG, ids=[f"{point}: {seen}" for _, point, seen in WRONG]
)
def test_what_is_wrong_fails_its_point_and_is_shown(wrong: Wrong, point: str, seen: str) -> None:
    with small_server(wrong) as url:
        code, points = found(url, "--model", "m")
    assert (code, points[point]["result"]) == (1, "failed")
    assert seen in points[point]["seen"]


def test_a_server_that_announces_bytes_and_does_not_take_them_fails_there() -> None:
    about = changed(ABOUT, extensions=["binary_tensor_data"])
    with small_server({"GET /v2": (200, about)}) as url:
        code, points = found(url, "--model", "m")
    assert code == 1
    assert with_result(points, "failed") == {"binary input", "binary output"}
    assert "Inference-Header-Content-Length is missing" in points["binary output"]["seen"]


@pytest.mark.parametrize("document", [None, [], {"name": "m"}, {"name": "m", "platform": 1}])
def test_metadata_that_is_none_is_said(document: Any) -> None:
    with pytest.raises(Differs):
        read_metadata(document)


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_nobody_at_the_address_is_exit_code_2_and_no_verdict() -> None:
    url = f"http://127.0.0.1:{unused_port()}"
    done = probe(url, "--model", "m")
    assert done.exit_code == 2
    assert done.stdout == ""
    assert f"Nobody answers at {url}" in done.stderr
    assert "Connection refused" in done.stderr


def test_nobody_at_the_grpc_address_is_told_beside_what_rest_showed(ours: Server) -> None:
    address = f"127.0.0.1:{unused_port()}"
    done = probe(ours.url, "--grpc", address, "-o", "json")
    assert done.exit_code == 2
    document = json.loads(done.stdout)
    assert document["ok"] > 0
    assert document["unreachable"].startswith(f"Nobody answers at {address}: ")


def test_one_that_listens_and_says_nothing_is_wrong_not_absent() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        code, points = found(url, "--timeout", "0.1")
    assert code == 1
    assert points["server live"]["seen"] == "no answer within 0.1 s"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("ftp://host",), "it must be like http://HOST:PORT"),
        (("http://",), "it must be like http://HOST:PORT"),
        (("http://h", "--input", __file__), "is not JSON"),
    ],
)
def test_a_wrong_call_says_what_to_write(arguments: tuple[str, ...], said: str) -> None:
    done = probe(*arguments)
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.split())


def test_help_tells_the_exit_codes() -> None:
    done = probe("--help")
    assert done.exit_code == 0
    assert "Exit codes: 0 every point" in " ".join(done.stdout.split())
