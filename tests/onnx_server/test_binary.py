"""Tensors as bytes over REST: the protocol's binary tensor extension."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tests.onnx_server import graphs
from tests.onnx_server.conftest import App

from mooring_onnx_server.datatypes import BY_NAME, DATATYPES
from mooring_onnx_server.errors import InvalidRequestError
from mooring_onnx_server.raw import decode_raw, encode_raw
from mooring_onnx_server.signature import TensorSpec

MakeApp = Callable[[Callable[[Path], Path]], App]
LENGTH = "inference-header-content-length"
FEW = settings(max_examples=50, deadline=None)


def x(raw: bytes, **changes: Any) -> dict[str, Any]:
    parameters = {"binary_data_size": len(raw)}
    given = {"name": "x", "shape": [1, 3], "datatype": "FP32", "parameters": parameters}
    return {k: v for k, v in {**given, **changes}.items() if v is not ...}


async def post(
    app: App, document: Any, tail: bytes = b"", length: str | None = ""
) -> httpx.Response:
    """Sends JSON and what follows it; `length` None leaves the header out, else is its value."""
    head = json.dumps(document).encode()
    headers = {} if length is None else {LENGTH: length or str(len(head))}
    async with app.client() as client:
        return await client.post("/v2/models/m/infer", content=head + tail, headers=headers)


def parts(answer: httpx.Response) -> tuple[dict[str, Any], bytes]:
    length = int(answer.headers[LENGTH])
    document: dict[str, Any] = json.loads(answer.content[:length])
    return document, answer.content[length:]


ROW = np.array([[1, 2, 3]], "<f4")
SCORES = (ROW @ graphs.WEIGHTS + graphs.OFFSETS).astype("<f4")


async def test_bytes_go_in_and_json_comes_out_unless_bytes_are_asked_for(app: MakeApp) -> None:
    raw = ROW.tobytes()
    answer = await post(app(graphs.linear), {"id": "i", "inputs": [x(raw)]}, raw)
    assert answer.status_code == 200
    assert answer.json()["id"] == "i"
    assert np.allclose(answer.json()["outputs"][0]["data"], SCORES.ravel())
    assert LENGTH not in answer.headers


@pytest.mark.parametrize(
    "wish",
    [
        {"parameters": {"binary_data_output": True}},
        {"outputs": [{"name": "scores", "parameters": {"binary_data": True}}]},
    ],
    ids=["all outputs", "one output"],
)
async def test_bytes_that_are_asked_for_follow_the_json(app: MakeApp, wish: Any) -> None:
    tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
    answer = await post(app(graphs.linear), {"inputs": [tensor], **wish}, length=None)
    document, tail = parts(answer)
    assert answer.headers["content-type"] == "application/octet-stream"
    (output,) = document["outputs"]
    assert output == {
        "name": "scores",
        "shape": [1, 2],
        "datatype": "FP32",
        "parameters": {"binary_data_size": 8},
    }
    assert np.allclose(np.frombuffer(tail, "<f4"), SCORES.ravel())


async def test_an_outputs_own_wish_goes_before_the_requests(app: MakeApp) -> None:
    names = ("FP32", "INT8", "BYTES")
    inputs = [
        {"name": "in_FP32", "shape": [1], "datatype": "FP32", "data": [0.5]},
        {"name": "in_INT8", "shape": [1], "datatype": "INT8", "data": [-1]},
        {"name": "in_BYTES", "shape": [1], "datatype": "BYTES", "data": ["ab"]},
    ]
    wanted = [
        {"name": "out_BYTES"},
        {"name": "out_FP32", "parameters": {"binary_data": False}},
        {"name": "out_INT8"},
    ]
    document = {"inputs": inputs, "outputs": wanted, "parameters": {"binary_data_output": True}}
    answer = await post(app(lambda path: graphs.echo(path, names)), document, length=None)
    head, tail = parts(answer)
    assert [o.get("data") for o in head["outputs"]] == [None, [0.5], None]
    assert tail == b"\x02\0\0\0ab" + b"\xff"


async def test_every_datatype_survives_the_way_there_and_back(app: MakeApp) -> None:
    raw = []
    inputs = []
    for datatype in DATATYPES:
        values = ["", "grün"] if datatype.name == "BYTES" else [0, 1]
        data = encode_raw(np.array(values, datatype.dtype), datatype)
        raw.append(data)
        parameters = {"binary_data_size": len(data)}
        name = f"in_{datatype.name}"
        inputs.append(
            {"name": name, "shape": [2], "datatype": datatype.name, "parameters": parameters}
        )
    document = {"inputs": inputs, "parameters": {"binary_data_output": True}}
    answer = await post(app(graphs.echo), document, b"".join(raw))
    assert parts(answer)[1] == b"".join(raw)


async def test_inputs_of_bytes_and_of_json_go_together_and_bytes_follow_in_order(
    app: MakeApp,
) -> None:
    names = ("FP64", "INT8", "BOOL")
    inputs = [
        {
            "name": "in_BOOL",
            "shape": [3],
            "datatype": "BOOL",
            "parameters": {"binary_data_size": 3},
        },
        {"name": "in_INT8", "shape": [3], "datatype": "INT8", "data": [1, 2, 3]},
        # Begins at an odd place of the body.
        {
            "name": "in_FP64",
            "shape": [3],
            "datatype": "FP64",
            "parameters": {"binary_data_size": 24},
        },
    ]
    tail = b"\1\0\1" + np.array([1.5, -2, 1e300], "<f8").tobytes()
    answer = await post(app(lambda path: graphs.echo(path, names)), {"inputs": inputs}, tail)
    found = {o["name"]: o["data"] for o in answer.json()["outputs"]}
    assert found == {
        "out_BOOL": [True, False, True],
        "out_INT8": [1, 2, 3],
        "out_FP64": [1.5, -2, 1e300],
    }


RAW = ROW.tobytes()
REFUSED: list[tuple[Any, bytes, str | None, str]] = [
    (x(RAW), RAW, None, "the body is not JSON"),
    (x(RAW), b"", None, "header Inference-Header-Content-Length is missing"),
    (x(RAW), RAW, "abc", "must be the JSON's length in bytes, not 'abc'"),
    (x(RAW), RAW, "-1", "must be the JSON's length in bytes"),
    (x(RAW), RAW, "9" * 30, "must be the JSON's length in bytes"),
    (x(RAW), RAW, "100000", "is 100000, but the body has"),
    (x(RAW), RAW[:8], "", "input 'x': 'binary_data_size' is 12, but fewer bytes follow"),
    (x(RAW), RAW + b"\0", "", "1 bytes after the JSON belong to no input"),
    (x(RAW[:8]), RAW[:8], "", "input 'x': shape [1, 3] of FP32 takes 12 bytes, 8 came"),
    (x(RAW, data=[1, 2, 3]), RAW, "", "input 'x' has both 'data' and 'binary_data_size'"),
    (x(RAW, parameters={"binary_data_size": -1}), RAW, "", "must be a number of bytes, not -1"),
    (x(RAW, parameters={"binary_data_size": True}), RAW, "", "a number of bytes, not true"),
    (x(RAW, shape=[1, 4]), RAW, "", "input 'x': shape [1, 4] has length 4 in dimension 1"),
    (x(RAW, datatype="FP64"), RAW, "", "input 'x': 'datatype' is the string"),
]


async def test_what_does_not_fit_together_is_400_that_names_it(app: MakeApp) -> None:
    running = app(graphs.linear)
    for tensor, tail, length, said in REFUSED:
        answer = await post(running, {"inputs": [tensor]}, tail, length)
        assert (answer.status_code, said in answer.json()["error"]) == (400, True), answer.text


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"parameters": {"binary_data_output": 1}}, "'binary_data_output' in the parameters of"),
        (
            {"outputs": [{"name": "scores", "parameters": {"binary_data": "yes"}}]},
            "'binary_data' in the parameters of output 'scores' must be true or false",
        ),
    ],
)
async def test_a_wish_that_is_neither_true_nor_false_is_400(
    app: MakeApp, more: Any, said: str
) -> None:
    answer = await post(app(graphs.linear), {"inputs": [x(RAW)], **more}, RAW)
    assert (answer.status_code, said in answer.json()["error"]) == (400, True), answer.text


def spec(datatype: str) -> TensorSpec:
    return TensorSpec("x", BY_NAME[datatype], None)


@pytest.mark.parametrize(
    ("datatype", "shape", "raw", "said"),
    [
        ("BOOL", [2], b"\0\2", "BOOL takes bytes of 0 and 1, 2 came"),
        ("BYTES", [1], b"\x05\0\0\0ab", "element 0 is said to have 5 bytes, but 2 are left"),
        ("BYTES", [2], b"\0\0\0\0\0\0", "the bytes end within the length of element 1"),
        ("BYTES", [2], b"\x01\0\0\0a", "shape [2] has 2 elements, the bytes have 1"),
        ("BYTES", [1], b"\x01\0\0\0\xff", "element 0 is not UTF-8"),
        ("FP32", [0, 2**25], b"", "too large for a tensor without elements"),
        ("BYTES", [0, 2**25], b"", "too large for a tensor without elements"),
    ],
)
def test_bytes_that_are_no_elements_are_refused(
    datatype: str, shape: list[int], raw: bytes, said: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        decode_raw(spec(datatype), shape, raw)
    assert said in caught.value.message


@FEW
@given(data=st.data(), datatype=st.sampled_from([d for d in DATATYPES if d.name != "BYTES"]))
def test_decoding_is_the_inverse_of_encoding(data: st.DataObject, datatype: Any) -> None:
    shape = data.draw(arrays.array_shapes(max_dims=3, max_side=4, min_side=0))
    array = data.draw(arrays.arrays(datatype.dtype, shape))
    back = decode_raw(spec(datatype.name), list(shape), encode_raw(array, datatype))
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


@FEW
@given(texts=st.lists(st.text(max_size=6), max_size=5))
def test_texts_survive_as_bytes(texts: list[str]) -> None:
    datatype = BY_NAME["BYTES"]
    raw = encode_raw(np.array(texts, object), datatype)
    assert decode_raw(spec("BYTES"), [len(texts)], raw).tolist() == texts


@FEW
@given(raw=st.binary(max_size=40), count=st.integers(0, 5), name=st.sampled_from(["BYTES", "FP16"]))
def test_any_bytes_are_a_tensor_or_are_refused(raw: bytes, count: int, name: str) -> None:
    said = "input 'x': "
    try:
        assert decode_raw(spec(name), [count], raw).shape == (count,)
    except InvalidRequestError as refusal:
        said = refusal.message
    assert said.startswith("input 'x': ")
