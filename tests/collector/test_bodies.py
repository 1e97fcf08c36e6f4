"""What bodies say, and that no bytes at all can make reading them fail in any other way."""

from __future__ import annotations

import json
import math
import struct
from contextlib import suppress
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mooring_collector.bodies import read_answer, read_request
from mooring_collector.errors import OversizedBody, UnreadableBody
from mooring_collector.settings import Protocol
from mooring_collector.tensors import MOST_ROWS, UNNAMED

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)


def said(protocol: Protocol, body: Any, header_bytes: int = 0) -> dict[str, list[Any]]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    tensors, _ = read_request(protocol, content, header_bytes)
    return {name: values.tolist() for name, values in tensors.items()}


def tensor(name: str, shape: list[Any], data: Any, datatype: str = "FP32") -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}


def test_open_inference_takes_flat_and_nested_data_and_gives_the_id() -> None:
    body = {"id": "7", "inputs": [tensor("x", [2, 2], [1, 2, 3, 4]),
                                  tensor("y", [2, 1], [[5], [6]])]}  # fmt: skip
    tensors, own = read_request("open-inference", json.dumps(body).encode())
    assert own == "7"
    assert tensors["x"].tolist() == [[1, 2], [3, 4]]
    assert tensors["y"].tolist() == [[5], [6]]


def test_open_inference_takes_a_tensor_of_one_dimension_as_rows() -> None:
    assert said("open-inference", {"inputs": [tensor("x", [3], [1, 2, 3])]}) == {
        "x": [[1], [2], [3]]
    }


@pytest.mark.parametrize("with_header", [True, False])
def test_open_inference_takes_tensors_as_bytes_with_and_without_the_header(
    with_header: bool,
) -> None:
    parts = [
        {"name": "x", "shape": [2, 1], "datatype": "FP32", "parameters": {"binary_data_size": 8}},
        {"name": "t", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": 12}},
    ]
    head = json.dumps({"inputs": parts, "é": "é"}, ensure_ascii=False).encode()
    texts = b"".join(struct.pack("<L", len(text)) + text for text in (b"ab", b"\xff\xfe"))
    body = head + struct.pack("<2f", 1.5, math.inf) + texts
    found = said("open-inference", body, len(head) if with_header else 0)
    assert found == {"x": [[1.5], [math.inf]], "t": [["ab"], ["\ufffd\ufffd"]]}


@pytest.mark.parametrize("datatype", ["BOOL", "UINT8", "INT16", "UINT64", "INT64", "FP16", "FP64"])
def test_every_datatype_is_read_as_numbers(datatype: str) -> None:
    size = {"BOOL": 1, "UINT8": 1, "INT16": 2, "FP16": 2}.get(datatype, 8)
    code = {"BOOL": "?", "UINT8": "u1", "INT16": "<i2", "UINT64": "<u8", "INT64": "<i8",
            "FP16": "<f2", "FP64": "<f8"}[datatype]  # fmt: skip
    part = {"name": "x", "shape": [1, 1], "datatype": datatype,
            "parameters": {"binary_data_size": size}}  # fmt: skip
    body = json.dumps({"inputs": [part]}).encode() + np.array([1], dtype=code).tobytes()
    assert said("open-inference", body) == {"x": [[1.0]]}


def test_bare_nan_and_infinity_are_numbers_as_pythons_own_writer_sends_them() -> None:
    body = json.dumps({"inputs": [tensor("x", [1, 2], [math.nan, -math.inf])]}).encode()
    assert b"NaN, -Infinity" in body
    (row,) = said("open-inference", body)["x"]
    assert math.isnan(row[0])
    assert row[1] == -math.inf


@pytest.mark.parametrize(
    ("protocol", "body", "expected"),
    [
        ("tensorflow-serving", {"instances": [[1, 2], [3, 4]]}, {UNNAMED: [[1, 2], [3, 4]]}),
        ("tensorflow-serving", {"instances": [1, 2]}, {UNNAMED: [[1], [2]]}),
        ("tensorflow-serving", {"instances": [{"a": 1, "b": "x"}, {"a": 2}]},
         {"a": [[1], [2]], "b": [["x"], [None]]}),
        ("tensorflow-serving", {"inputs": {"a": [[1], [2]], "b": [3, 4]}},
         {"a": [[1], [2]], "b": [[3], [4]]}),
        ("tensorflow-serving", {"inputs": [[1, 2]]}, {UNNAMED: [[1, 2]]}),
        ("torchserve", [1, 2, 3], {UNNAMED: [[1, 2, 3]]}),
        ("torchserve", [[1, 2], [3, 4]], {UNNAMED: [[1, 2], [3, 4]]}),
        ("torchserve", {"a": 1, "b": 2}, {"a": [[1]], "b": [[2]]}),
        ("torchserve", {"data": [{"a": 1}, {"a": 2}]}, {"a": [[1], [2]]}),
        ("torchserve", {"instances": [[1, 2]]}, {UNNAMED: [[1, 2]]}),
        ("torchserve", {"inputs": [tensor("x", [1, 2], [1, 2])]}, {"x": [[1, 2]]}),
    ],
)  # fmt: skip
def test_rows_and_columns_of_the_other_protocols(
    protocol: Protocol, body: Any, expected: Any
) -> None:
    assert said(protocol, body) == expected


@pytest.mark.parametrize(
    ("raw", "rows", "expected"),
    [
        ([0.1, 0.9], 2, {UNNAMED: [[0.1], [0.9]]}),
        ([0.1, 0.9], 1, {UNNAMED: [[0.1, 0.9]]}),
        ([[0.1, 0.9]], 1, {UNNAMED: [[0.1, 0.9]]}),
        ({"tabby": 0.7, "tiger": 0.3}, 1, {"tabby": [[0.7]], "tiger": [[0.3]]}),
        (0.5, 1, {UNNAMED: [[0.5]]}),
    ],
)
def test_torchserve_answers_one_value_per_row_or_one_row(
    raw: Any, rows: int, expected: Any
) -> None:
    found = read_answer("torchserve", json.dumps(raw).encode(), rows)
    assert {name: values.tolist() for name, values in found.items()} == expected


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"\x00\xff", b"[]", b"null", b'"x"', b"{}", b'{"inputs": 3}',
        b'{"inputs": [3]}', b'{"inputs": [{"name": "x"}]}',
        json.dumps({"inputs": [tensor("x", [2, 2], [1, 2, 3])]}).encode(),
        json.dumps({"inputs": [tensor("x", [-1], [1])]}).encode(),
        json.dumps({"inputs": [tensor("x", [0, 3], [1])]}).encode(),
        json.dumps({"inputs": [tensor("x", ["2"], [1, 2])]}).encode(),
        (b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32",'
        b' "parameters": {"binary_data_size": 400}}]}abcd'),
        (b'{"inputs": [{"name": "x", "shape": [1], "datatype": "COMPLEX",'
        b' "parameters": {"binary_data_size": 4}}]}abcd'),
        b"[" * 100_000,
        b'{"inputs": ' + b"[" * 100_000 + b"NaN",
    ],
)  # fmt: skip
def test_what_is_not_of_the_protocol_is_unreadable_and_nothing_else(body: bytes) -> None:
    with pytest.raises(UnreadableBody):
        read_request("open-inference", body)


def named(place: str, names: int) -> bytes:
    keys = [f"k{number}" for number in range(names)]
    return json.dumps({
        "tensors": {"inputs": [tensor(key, [1], [1]) for key in keys]},
        "row": {"instances": [dict.fromkeys(keys, 1)]},
        "rows": {"instances": [{key: 1} for key in keys]},
        "columns": {"inputs": {key: [1] for key in keys}},
    }[place]).encode()  # fmt: skip


@pytest.mark.parametrize(
    ("protocol", "place"),
    [("open-inference", "tensors"), ("tensorflow-serving", "row"),
     ("tensorflow-serving", "columns"), ("torchserve", "row"), ("torchserve", "tensors")],
)  # fmt: skip
def test_a_body_has_at_most_4096_names(protocol: Protocol, place: str) -> None:
    found, _ = read_request(protocol, named(place, 4096))
    assert len(found) == 4096
    with pytest.raises(UnreadableBody, match="too many"):
        read_request(protocol, named(place, 4097))


def test_names_of_all_rows_count_together() -> None:
    with pytest.raises(UnreadableBody, match="too many keys"):
        read_request("torchserve", named("rows", 4097))


@pytest.mark.parametrize(
    ("protocol", "body"),
    [
        ("tensorflow-serving", b'{"instances": [%s]}'),
        ("torchserve", b'{"data": [%s]}'),
    ],
)
def test_more_rows_than_can_be_read_in_one_go_are_too_large(
    protocol: Protocol, body: bytes
) -> None:
    def filled(rows: int) -> bytes:
        return body % b",".join([b"[1]"] * rows)

    assert len(read_request(protocol, filled(MOST_ROWS))[0][""]) == MOST_ROWS
    with pytest.raises(OversizedBody, match="more than 131072 rows"):
        read_request(protocol, filled(MOST_ROWS + 1))


def test_texts_of_too_many_rows_are_too_large_and_numbers_in_a_tensor_are_not() -> None:
    many = MOST_ROWS + 1
    texts = tensor("x", [many], ["a"] * many, "BYTES")
    with pytest.raises(OversizedBody):
        read_request("open-inference", json.dumps({"inputs": [texts]}).encode())
    numbers = json.dumps({"inputs": [tensor("x", [many], [1] * many)]}).encode()
    assert len(read_request("open-inference", numbers)[0]["x"]) == many


def _read(protocol: Protocol, body: bytes, number: int) -> list[int]:
    """The dimensions of all that was read of a body, as a request and as an answer."""
    found: list[int] = []
    with suppress(UnreadableBody):
        tensors, _ = read_request(protocol, body, number)
        found += [values.ndim for values in tensors.values()]
    with suppress(UnreadableBody):
        answers = read_answer(protocol, body, number)
        found += [values.ndim for values in answers.values()]
    return found


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(PROTOCOLS), st.binary(max_size=300), st.integers(0, 400))
@example("open-inference", b'{"inputs": [' + b"9" * 500 + b"]}", 0)
def test_any_bytes_are_read_or_unreadable(protocol: Protocol, body: bytes, number: int) -> None:
    assert set(_read(protocol, body, number)) <= {2}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["inputs", "outputs", "instances", "predictions", "data",
                                       "name", "shape", "datatype", "parameters",
                                       "binary_data_size", "id", "a"]), inner, max_size=5),
    max_leaves=12,
)  # fmt: skip
ALMOST = st.fixed_dictionaries(
    {"inputs": st.lists(st.fixed_dictionaries({"name": VALUES, "shape": VALUES, "data": VALUES,
                                               "datatype": st.sampled_from(["FP32", "BYTES", 3]),
                                               "parameters": VALUES}), max_size=3)},
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(PROTOCOLS), VALUES | ALMOST, st.binary(max_size=16))
def test_any_json_is_read_or_unreadable(protocol: Protocol, raw: Any, rest: bytes) -> None:
    assert set(_read(protocol, json.dumps(raw).encode() + rest, 0)) <= {2}


def test_texts_as_bytes_have_no_more_rows_than_texts_as_json() -> None:
    """A million empty ones fit a body, and held the event loop for seconds."""
    rows = MOST_ROWS + 1
    tensor = {"name": "city", "shape": [rows], "datatype": "BYTES",
              "parameters": {"binary_data_size": 4 * rows}}  # fmt: skip
    head = json.dumps({"inputs": [tensor]}).encode()
    with pytest.raises(OversizedBody, match="more than 131072 rows"):
        read_request("open-inference", head + bytes(4 * rows), len(head))


@pytest.mark.parametrize("part", [b"\1", b"\1\0\0\0", b"\0\0\0\0\0", b"\xff" * 4])
def test_texts_as_bytes_that_end_early_cannot_be_read(part: bytes) -> None:
    tensor = {"name": "city", "shape": [1], "datatype": "BYTES",
              "parameters": {"binary_data_size": len(part)}}  # fmt: skip
    head = json.dumps({"inputs": [tensor]}).encode()
    with pytest.raises(UnreadableBody):
        read_request("open-inference", head + part, len(head))
