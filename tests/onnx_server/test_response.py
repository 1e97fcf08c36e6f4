"""How a model's outputs are written."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from mooring_onnx_server.contract import InferRequest
from mooring_onnx_server.datatypes import BY_NAME, DATATYPES
from mooring_onnx_server.errors import ModelRunError
from mooring_onnx_server.response import ResponseEncoder
from mooring_onnx_server.signature import OutputSpec, Signature, TensorSpec


def encode(
    *values: Any, datatype: str = "FP32", maps: bool = False, request_id: str | None = None
) -> dict[str, Any]:
    names = tuple(f"y{i}" for i in range(len(values)))
    outputs = tuple(OutputSpec(TensorSpec(n, BY_NAME[datatype], None), maps) for n in names)
    encoder = ResponseEncoder("fraud", "3", Signature((), outputs))
    body = encoder.encode(InferRequest(request_id, {}, names), values)
    decoded: dict[str, Any] = orjson.loads(body)
    return decoded


def test_a_response_names_model_version_and_every_output_with_flat_data() -> None:
    values = np.array([[1, 2], [3, 4]], np.float32)
    assert encode(values, request_id="42") == {
        "model_name": "fraud",
        "model_version": "3",
        "id": "42",
        "outputs": [{"name": "y0", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}],
    }


def test_a_request_without_id_is_answered_without_id() -> None:
    assert "id" not in encode(np.zeros(1, np.float32))


@pytest.mark.parametrize("datatype", DATATYPES, ids=lambda d: d.name)
def test_every_datatype_is_written_and_reads_back_equal(datatype: Any) -> None:
    if datatype.name == "BYTES":
        values = np.array(["", "null", "ä\n"], object)
    elif datatype.dtype.kind in "iu":
        limits = np.iinfo(datatype.dtype)
        values = np.array([limits.min, limits.max], datatype.dtype)
    else:
        values = np.array([0, 1], datatype.dtype)
    data = encode(values, datatype=datatype.name)["outputs"][0]["data"]
    assert np.array_equal(np.array(data, datatype.dtype), values)


def test_fp32_is_written_as_short_as_it_reads_back() -> None:
    encoder = ResponseEncoder(
        "m", "1", Signature((), (OutputSpec(TensorSpec("y", BY_NAME["FP32"], None)),))
    )
    request = InferRequest(None, {}, ("y",))
    assert b'"data":[0.1]' in encoder.encode(request, [np.array([0.1], np.float32)])
    mixed = encoder.encode(request, [np.array([0.1, np.nan], np.float32)])
    assert b'"data":[0.1,"NaN"]' in mixed


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
def test_what_json_has_no_number_for_is_written_as_a_word(datatype: str) -> None:
    values = np.array([[1, np.nan], [np.inf, -np.inf]], BY_NAME[datatype].dtype)
    output = encode(values, datatype=datatype)["outputs"][0]
    assert output["data"] == [1, "NaN", "Infinity", "-Infinity"]
    assert output["shape"] == [2, 2]


def test_an_array_that_is_not_contiguous_is_written_in_its_own_order() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3).T
    assert encode(values)["outputs"][0]["data"] == [0, 3, 1, 4, 2, 5]


def test_rows_of_labels_become_a_matrix_in_the_labels_order() -> None:
    rows = [{0: 0.25, 7: 0.75}, {0: 1.0, 7: 0.0}]
    output = encode(rows, maps=True)["outputs"][0]
    assert (output["shape"], output["data"]) == ([2, 2], [0.25, 0.75, 1, 0])
    assert encode([], maps=True)["outputs"][0]["shape"] == [0, 0]


@pytest.mark.parametrize("value", [None, [1.0], [{0: 1.0}, {1: 1.0}]])
def test_an_output_that_is_no_tensor_is_the_models_failure(value: Any) -> None:
    with pytest.raises(ModelRunError, match="output 'y0'") as caught:
        encode(value, maps=isinstance(value, list) and isinstance(value[0], dict))
    assert caught.value.status == 500
