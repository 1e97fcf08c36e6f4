"""Whatever JSON comes, the answer is the model's or a 400 that says why: never a 500."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.onnx_server import graphs

from mooring_onnx_server.datatypes import BY_NAME
from mooring_onnx_server.errors import InvalidRequestError
from mooring_onnx_server.model import Model, load_model
from mooring_onnx_server.request import RequestDecoder
from mooring_onnx_server.response import ResponseEncoder
from mooring_onnx_server.settings import SessionSettings
from mooring_onnx_server.signature import OutputSpec, Signature, TensorSpec

FEW = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
DATATYPES = ("BOOL", "INT8", "UINT64", "FP16", "FP32", "BYTES")

scalars: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.sampled_from(["NaN", "Infinity", "-Infinity"]),
)
json: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)


def mostly(*usual: Any) -> st.SearchStrategy[Any]:
    """Right most of the time, so that examples get past the first check."""
    return st.one_of(*[st.sampled_from(usual)] * 4, json)


tensors = st.fixed_dictionaries(
    {},
    optional={
        "name": mostly(*(f"in_{d}" for d in DATATYPES)),
        "shape": mostly([0], [1], [2]),
        "datatype": mostly(*DATATYPES),
        "data": st.one_of(st.lists(scalars, max_size=2), json),
        "parameters": mostly({}, None),
    },
)


def whole(datatype: str, data: Any) -> dict[str, Any]:
    return {"name": f"in_{datatype}", "shape": [2], "datatype": datatype, "data": data}


nearly = st.tuples(
    st.just(whole("BOOL", [True, False])),
    st.lists(st.integers(-129, 128), min_size=2, max_size=2).map(lambda v: whole("INT8", v)),
    st.lists(scalars, min_size=2, max_size=2).map(lambda v: whole("UINT64", v)),
    st.lists(scalars, min_size=2, max_size=2).map(lambda v: whole("FP16", v)),
    st.lists(scalars, min_size=2, max_size=2).map(lambda v: whole("FP32", v)),
    st.lists(st.text(), min_size=2, max_size=2).map(lambda v: whole("BYTES", v)),
).map(list)

requests = st.one_of(
    json,
    st.fixed_dictionaries(
        {"inputs": st.one_of(nearly, st.lists(tensors, max_size=7), json)},
        optional={
            "id": mostly("a"),
            "outputs": mostly([], [{"name": "out_FP32"}]),
            "parameters": json,
        },
    ),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("echo") / "model.onnx"
    return load_model(graphs.echo(path, DATATYPES), SessionSettings(intra_op_threads=1))


def answer(model: Model, body: bytes) -> dict[str, Any] | str:
    """The decoded response, or the message of a 400; anything else raised fails the test."""
    try:
        request = RequestDecoder(model.signature).decode(body)
    except InvalidRequestError as error:
        return error.message
    values = model.run(request.outputs, request.feeds)
    decoded: dict[str, Any] = orjson.loads(
        ResponseEncoder("m", "1", model.signature).encode(request, values)
    )
    return decoded


@FEW
@given(document=requests)
def test_any_json_is_answered_or_refused_in_words(model: Model, document: Any) -> None:
    said = answer(model, orjson.dumps(document))
    assert isinstance(said, dict) or (said and len(said) < 1000 and "Error" not in said)


@FEW
@given(body=st.binary(max_size=60))
@example(b"\x00")
@example(b'{"inputs":' + b"[" * 1030)
def test_any_bytes_are_refused_in_words(model: Model, body: bytes) -> None:
    said = answer(model, body)
    assert isinstance(said, str)
    assert said


@FEW
@given(
    values=st.lists(
        st.floats(width=32, allow_subnormal=True)
        | st.sampled_from([float("nan"), float("inf"), -0.0]),
        max_size=20,
    )
)
def test_every_fp32_value_survives_the_way_there_and_back(values: list[float]) -> None:
    words = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
    sent = [words.get(repr(v), v) for v in values]
    decoder = RequestDecoder(_one_input("FP32"))
    tensor = {"name": "x", "shape": [len(sent)], "datatype": "FP32", "data": sent}
    request = decoder.decode(orjson.dumps({"inputs": [tensor]}))
    assert np.array_equal(request.feeds["x"], np.array(values, np.float32), equal_nan=True)
    body = ResponseEncoder("m", "1", _one_input("FP32")).encode(request, [request.feeds["x"]])
    received = [float(v) for v in orjson.loads(body)["outputs"][0]["data"]]
    assert np.array_equal(np.array(received, np.float32), request.feeds["x"], equal_nan=True)


@FEW
@given(
    shape=st.lists(st.integers(0, 4), min_size=1, max_size=4),
    fill=st.integers(-(2**31), 2**31 - 1),
)
def test_nested_and_flat_data_of_one_shape_are_the_same(shape: list[int], fill: int) -> None:
    array = np.full(shape, fill, np.int32)
    decoder = RequestDecoder(_one_input("INT32"))
    decoded = [
        decoder.decode(
            orjson.dumps(
                {"inputs": [{"name": "x", "shape": shape, "datatype": "INT32", "data": data}]}
            )
        ).feeds["x"]
        for data in (array.tolist(), array.ravel().tolist())
    ]
    assert all(np.array_equal(d, array) and d.shape == array.shape for d in decoded)


def _one_input(datatype: str) -> Signature:
    spec = TensorSpec("x", BY_NAME[datatype], None)
    return Signature((spec,), (OutputSpec(spec),))
