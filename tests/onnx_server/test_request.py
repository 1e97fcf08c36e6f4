"""What a request must be, and what is said when it is not."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import orjson
import pytest

from mooring_onnx_server.contract import InferRequest
from mooring_onnx_server.datatypes import BY_NAME, DATATYPES
from mooring_onnx_server.errors import InvalidRequestError
from mooring_onnx_server.request import RequestDecoder
from mooring_onnx_server.signature import Dimension, OutputSpec, Signature, TensorSpec


def spec(name: str, datatype: str, *shape: Dimension) -> TensorSpec:
    return TensorSpec(name, BY_NAME[datatype], shape)


def decoder(*inputs: TensorSpec) -> RequestDecoder:
    outputs = (OutputSpec(spec("label", "INT64", None)), OutputSpec(spec("score", "FP32", None)))
    return RequestDecoder(Signature(inputs, outputs))


X = spec("x", "FP32", "batch", 3)


def tensor(**changes: Any) -> dict[str, Any]:
    given = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1.0, 2.0, 3.0]}
    return {k: v for k, v in {**given, **changes}.items() if v is not ...}


def decode(*tensors: Any, inputs: tuple[TensorSpec, ...] = (X,), **more: Any) -> InferRequest:
    return decoder(*inputs).decode(orjson.dumps({"inputs": list(tensors), **more}))


def refusal(*tensors: Any, inputs: tuple[TensorSpec, ...] = (X,), **more: Any) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        decode(*tensors, inputs=inputs, **more)
    assert caught.value.status == 400
    return caught.value.message


def test_flat_data_becomes_an_array_of_the_declared_shape_and_type() -> None:
    request = decode(tensor(shape=[2, 3], data=[1, 2, 3, 4.5, 5, 6]))
    assert request.feeds["x"].dtype == np.float32
    assert request.feeds["x"].tolist() == [[1, 2, 3], [4.5, 5, 6]]


def test_nested_data_that_follows_the_shape_is_the_same_as_flat() -> None:
    flat = decode(tensor(shape=[2, 3], data=[1, 2, 3, 4, 5, 6]))
    nested = decode(tensor(shape=[2, 3], data=[[1, 2, 3], [4, 5, 6]]))
    assert np.array_equal(flat.feeds["x"], nested.feeds["x"])


def test_no_outputs_asked_for_means_all_and_asked_for_means_those_in_that_order() -> None:
    assert decode(tensor()).outputs == ("label", "score")
    assert decode(tensor(), outputs=[]).outputs == ("label", "score")
    assert decode(tensor(), outputs=[{"name": "score"}]).outputs == ("score",)
    both = [{"name": "score"}, {"name": "label"}]
    assert decode(tensor(), outputs=both).outputs == ("score", "label")


def test_the_id_is_kept() -> None:
    assert decode(tensor(), id="abc").id == "abc"
    assert decode(tensor()).id is None


def test_parameters_are_accepted_and_null_counts_as_absent() -> None:
    request = decode(tensor(parameters={"a": 1}), id=None, outputs=None, parameters={"b": "c"})
    assert request.feeds["x"].shape == (1, 3)


def test_an_empty_batch_is_a_batch() -> None:
    assert decode(tensor(shape=[0, 3], data=[])).feeds["x"].shape == (0, 3)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (tensor(name="y"), "input 'y' is not one of this model's: it takes 'x' FP32"),
        (tensor(name=3), "element 0 of 'inputs' must have a string as 'name'"),
        (tensor(name=...), "element 0 of 'inputs' must have a string as 'name'"),
        ([1], "element 0 of 'inputs' is a list: it must be an object"),
        (None, "element 0 of 'inputs' is null: it must be an object"),
        (tensor(datatype="FP64"), "input 'x': 'datatype' is the string \"FP64\", .* FP32"),
        (tensor(datatype=...), "input 'x': 'datatype' is missing, the model takes FP32"),
        (tensor(datatype=["FP32"]), "input 'x': 'datatype' is a list, the model takes FP32"),
        (tensor(shape=...), "input 'x': 'shape' must be a list of lengths, not null"),
        (tensor(shape=3), "input 'x': 'shape' must be a list of lengths, not 3"),
        (tensor(shape=[1, -1]), "input 'x': 'shape' must hold integers of 0 or more, not -1"),
        (tensor(shape=[1, 3.0]), r"input 'x': 'shape' must hold integers .* not 3\.0"),
        (tensor(shape=[True, 3]), "input 'x': 'shape' must hold integers .* not true"),
        (tensor(shape=[3]), r"input 'x': shape \[3\] has 1 dimensions, .* takes \[-1, 3\]"),
        (tensor(shape=[1, 4]), r"shape \[1, 4\] has length 4 in dimension 1, .* \[-1, 3\]"),
        (tensor(shape=[1] * 40), r"input 'x': shape \[1, 1, .* 40 lengths\] has 40 dimensions"),
        (tensor(data=[1.0, 2.0]), r"input 'x': shape \[1, 3\] has 3 elements, 'data' has 2"),
        (tensor(data=[]), r"input 'x': shape \[1, 3\] has 3 elements, 'data' has 0"),
        (tensor(shape=[10**15, 3]), r"has 3000000000000000 elements, 'data' has 3"),
        (tensor(data=...), "input 'x': 'data' is missing: send the elements as JSON in 'data'"),
        (tensor(data=1.0), r"input 'x': 'data' must be a list, not 1\.0"),
        (tensor(data="123"), "input 'x': 'data' must be a list, not the string"),
        (tensor(data=[1, "2", 3]), "element 1 of 'data' is the string \"2\", FP32 takes numbers"),
        (tensor(data=[1, 2, True]), "element 2 of 'data' is true, FP32 takes numbers"),
        (tensor(data=[1, None, 3]), 'element 1 of .data. is null, .* missing value as "NaN"'),
        (tensor(data=[1, {}, 3]), "element 1 of 'data' is an object"),
        (tensor(data=[1, 1e39, 3]), r"element 1 of 'data' is 1e\+39, FP32 takes numbers from"),
        (tensor(data=[[1, 2]]), r"expected a list of 3 in dimension 1, found a list of 2"),
        (tensor(shape=[2, 3], data=[[1, 2, 3], [4, 5]]), "expected a list of 3 .* a list of 2"),
        (tensor(shape=[2, 3], data=[[1, 2, 3], 4]), "expected a list of 3 .* found 4"),
        (tensor(shape=[2, 3], data=[[1, 2, 3]]), "expected a list of 2 in dimension 0"),
        (tensor(data=[[[1], [2], [3]]]), "nested more deeply than shape .* 2 lists deep"),
        (tensor(data=[[1, [2], 3]]), "nested more deeply than shape"),
        (tensor(data=[[1, "2", 3]]), "element 1 of 'data' is the string"),
        (tensor(parameters=[]), "'parameters' of input 'x' must be an object, not a list"),
        (
            tensor(data=..., parameters={"binary_data_size": 12}),
            "'binary_data_size' is 12, but fewer .* header Inference-Header-Content-Length is miss",
        ),
    ],
)
def test_a_wrong_tensor_is_refused_by_a_sentence_that_names_it(given: Any, said: str) -> None:
    assert re.search(said, refusal(given))


def test_a_missing_input_and_one_given_twice_are_refused_by_name() -> None:
    assert refusal() == "input 'x' is missing: the model takes 'x' FP32 [-1, 3]"
    assert refusal(tensor(), tensor()) == "input 'x' is given twice"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"id": 7}, "'id' must be a string, not 7"),
        ({"parameters": "p"}, "'parameters' of the request must be an object"),
        ({"outputs": {}}, None),
        ({"outputs": "score"}, "'outputs' must be a list, not the string"),
        ({"outputs": ["score"]}, "element 0 of 'outputs' must be an object"),
        ({"outputs": [{"name": None}]}, "element 0 of 'outputs' must be an object"),
        ({"outputs": [{"name": "z"}]}, "output 'z' .* it gives 'label', 'score'"),
        ({"outputs": [{"name": "score"}] * 2}, "output 'score' is asked for twice"),
        ({"outputs": [{"name": "score", "parameters": 1}]}, "'parameters' of output 'score'"),
    ],
)
def test_a_wrong_request_is_refused(more: dict[str, Any], said: str | None) -> None:
    if said is None:
        assert decode(tensor(), **more).outputs == ("label", "score")
    else:
        assert re.search(said, refusal(tensor(), **more))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the body is not JSON: .* at line 1 column 1"),
        (b'{"inputs": [}', "the body is not JSON: .* at line 1 column 13"),
        (b'{\n  "inputs": [1,,2]\n}', "the body is not JSON: .* at line 2 column 16"),
        (b'{"a": NaN}', 'at line 1 column 7; JSON has no such number: .* write "NaN"'),
        (b'{"a": -Infinity}', "JSON has no such number"),
        (b'{"a": 1e999}', "the body is not JSON: .* at line 1 column 7"),
        (b"\xff\xfe", "the body is not JSON: .* at line 1 column 1"),
        (b"[" * 5000, "the body is not JSON: .* at line 1"),
        (b"[]", "the body must be an object with 'inputs', not a list"),
        (b"{}", "'inputs' is missing: it must be a list of 'x' FP32"),
        (b'{"inputs": {}}', "'inputs' is an object: it must be a list of 'x' FP32"),
    ],
)
def test_a_body_that_is_no_request_is_refused_with_the_place(body: bytes, said: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        decoder(X).decode(body)
    assert re.search(said, caught.value.message)


INTEGERS = [d for d in DATATYPES if d.dtype.kind in "iu"]


@pytest.mark.parametrize("datatype", INTEGERS, ids=lambda d: d.name)
def test_integers_are_taken_to_the_ends_of_their_range_and_not_beyond(datatype: Any) -> None:
    limits = np.iinfo(datatype.dtype)
    ends = [int(limits.min), int(limits.max)]
    inputs = (spec("i", datatype.name, None),)
    given = {"name": "i", "shape": [2], "datatype": datatype.name}
    assert decode({**given, "data": ends}, inputs=inputs).feeds["i"].tolist() == ends
    for outside in (ends[0] - 1, ends[1] + 1):
        body = json.dumps({"inputs": [{**given, "data": [0, outside]}]}).encode()
        with pytest.raises(InvalidRequestError, match="input 'i': element 1 of 'data' is"):
            decoder(*inputs).decode(body)


@pytest.mark.parametrize("datatype", ["INT64", "UINT8"])
@pytest.mark.parametrize("wrong", [1.0, 1.5, True, "1", None])
def test_an_integer_tensor_takes_nothing_but_integers(datatype: str, wrong: Any) -> None:
    given = {"name": "i", "shape": [1], "datatype": datatype, "data": [wrong]}
    said = refusal(given, inputs=(spec("i", datatype, None),))
    assert re.search(f"element 0 of 'data' is .*, {datatype} takes integers", said)


@pytest.mark.parametrize("wrong", [0, 1, "true", None])
def test_a_bool_tensor_takes_nothing_but_true_and_false(wrong: Any) -> None:
    inputs = (spec("b", "BOOL", None),)
    given = {"name": "b", "shape": [2], "datatype": "BOOL"}
    assert decode({**given, "data": [True, False]}, inputs=inputs).feeds["b"].dtype == np.bool_
    assert "BOOL takes true or false" in refusal({**given, "data": [True, wrong]}, inputs=inputs)


@pytest.mark.parametrize("wrong", [0, 1.5, True, None, {}])
def test_a_bytes_tensor_takes_nothing_but_strings(wrong: Any) -> None:
    inputs = (spec("s", "BYTES", None),)
    given = {"name": "s", "shape": [2], "datatype": "BYTES"}
    taken = decode({**given, "data": ["", "Ünï \u0000"]}, inputs=inputs).feeds["s"]
    assert taken.tolist() == ["", "Ünï \u0000"]
    assert "BYTES takes strings" in refusal({**given, "data": ["a", wrong]}, inputs=inputs)


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
def test_floats_take_nan_and_infinities_as_words(datatype: str) -> None:
    inputs = (spec("f", datatype, None),)
    given = {"name": "f", "shape": [4], "datatype": datatype}
    words = decode({**given, "data": ["NaN", "Infinity", "-Infinity", 1]}, inputs=inputs)
    array = words.feeds["f"]
    assert np.isnan(array[0])
    assert array[1:].tolist() == [np.inf, -np.inf, 1]
    assert 'is the string "nan"' in refusal({**given, "data": [1, 1, 1, "nan"]}, inputs=inputs)


def test_a_word_for_infinity_does_not_hide_a_number_out_of_range() -> None:
    said = refusal(tensor(data=["Infinity", 1, -1e39]))
    assert "element 2 of 'data' is -1e+39" in said


def test_fp16_is_refused_beyond_its_own_range() -> None:
    inputs = (spec("h", "FP16", None),)
    given = {"name": "h", "shape": [1], "datatype": "FP16"}
    assert decode({**given, "data": [65504]}, inputs=inputs).feeds["h"].tolist() == [65504]
    assert "element 0 of 'data' is 65520" in refusal({**given, "data": [65520]}, inputs=inputs)


def test_inputs_that_share_a_symbolic_length_must_agree_on_it() -> None:
    inputs = (spec("a", "FP32", "batch", 1), spec("b", "FP32", "batch"), spec("c", "FP32", None))
    a = {"name": "a", "shape": [2, 1], "datatype": "FP32", "data": [1, 2]}
    b = {"name": "b", "shape": [2], "datatype": "FP32", "data": [1, 2]}
    c = {"name": "c", "shape": [1], "datatype": "FP32", "data": [1]}
    assert set(decode(b, c, a, inputs=inputs).feeds) == {"a", "b", "c"}
    said = refusal(a, {**b, "shape": [3], "data": [1, 2, 3]}, c, inputs=inputs)
    assert said == (
        "input 'b': dimension 0 is 3, but it is the model's 'batch', which is 2 in dimension 0 "
        "of input 'a'"
    )


def test_an_input_without_a_declared_rank_takes_any_shape() -> None:
    inputs = (TensorSpec("x", BY_NAME["FP32"], None),)
    assert decode(tensor(shape=[], data=[1]), inputs=inputs).feeds["x"].shape == ()
    assert decode(tensor(shape=[3, 1]), inputs=inputs).feeds["x"].shape == (3, 1)


@pytest.mark.parametrize("shape", [[0, 2**25], [2**80, 0], [0, 2**20, 2**20]])
def test_an_empty_tensor_may_not_claim_a_size_that_the_model_would_allocate(
    shape: list[int],
) -> None:
    given = tensor(shape="SHAPE", data=[])
    body = orjson.dumps({"inputs": [given]}).replace(b'"SHAPE"', json.dumps(shape).encode())
    with pytest.raises(InvalidRequestError, match="input 'x'"):
        decoder(TensorSpec("x", BY_NAME["FP32"], None)).decode(body)


def test_a_shape_of_more_dimensions_than_arrays_have_is_refused() -> None:
    inputs = (TensorSpec("x", BY_NAME["FP32"], None),)
    said = refusal(tensor(shape=[1] * 33, data=[1]), inputs=inputs)
    assert said == "input 'x': 'shape' may have 32 dimensions, not 33"


def test_what_a_client_sent_is_cut_before_it_is_repeated() -> None:
    said = refusal(tensor(data=[1, "z" * 10_000, 3]))
    assert len(said) < 300


@pytest.mark.parametrize("element", [b"[]", b"{}", b'{"a":[]}'])
def test_a_body_of_little_but_brackets_is_refused_before_it_is_parsed(
    element: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them would be an object of some 70 bytes: 32 MiB of them a gibibyte."""
    parsed: list[bytes] = []
    monkeypatch.setattr("mooring_onnx_server.request.orjson.loads", parsed.append)
    body = b'{"inputs": [' + b",".join([element] * 1_000_000) + b"]}"
    with pytest.raises(InvalidRequestError, match=r"more than 1000000 brackets.*send 'data' flat"):
        decoder(X).decode(body)
    assert parsed == []


def test_half_a_million_nested_rows_are_taken() -> None:
    rows = 500_000
    body = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [%d, 3], "data": [' % rows
    body += b",".join([b"[1,2,3]"] * rows) + b"]}]}"
    assert decoder(X).decode(body).feeds["x"].shape == (rows, 3)
