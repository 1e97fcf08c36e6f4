"""Counts agree with the operator's own grid, whatever the values, and say what was wrong."""

from __future__ import annotations

import json
import math
import re
import sys
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.collector.references import answer, exchange, exposed, infer, reference, telemetry

from mooring_collector.errors import ConfigurationError
from mooring_collector.extraction import Extractor, digest
from mooring_collector.grid import read_reference
from mooring_collector.service import Service
from mooring_collector.settings import MOST_COLUMNS, Bounds, Column, read_settings
from mooring_collector.telemetry import OTHER, Telemetry
from mooring_collector.tensors import MOST_ROWS

REFERENCE = reference(texts=True)
GRIDS = {one.name: one.grid for one in (*REFERENCE.features, *REFERENCE.outputs)}
NUMBER = st.floats(-4, 4) | st.sampled_from(
    [math.nan, math.inf, -math.inf, *GRIDS["x[0]"].edges[:3], *GRIDS["x[0]"].edges[-3:]]
)
CITY = st.sampled_from(["rome", "bonn", "lima", "oslo", ""]) | st.none()


def counted(found: Telemetry, revision: str = "aa") -> dict[str, list[int]]:
    found.flush()
    return {c.name: cells.tolist() for c, cells in found.revision(revision).features.series()}


def violations(found: Telemetry, revision: str = "aa") -> dict[tuple[str, str], int]:
    found.flush()
    return dict(found.revision(revision).features.violations)


def send(found: Telemetry, body: Any, reply: bytes = b"", **more: Any) -> str:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return found.count("aa", "live", exchange(content, reply or answer(0.5), **more), 0.0)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.tuples(NUMBER, NUMBER, NUMBER, CITY), min_size=1, max_size=4), max_size=5)
)
def test_every_value_is_counted_in_the_cell_of_the_operators_grid(
    bodies: list[list[tuple[Any, ...]]],
) -> None:
    found = telemetry(REFERENCE)
    for rows in bodies:
        body = {
            "inputs": [
                {"name": "x", "shape": [len(rows), 3], "datatype": "FP64",
                 "data": [value for row in rows for value in row[:3]]},
                {"name": "city", "shape": [len(rows)], "datatype": "BYTES",
                 "data": [row[3] for row in rows]},
            ]
        }  # fmt: skip
        assert send(found, body) == "answered"
    rows = [row for body in bodies for row in body]
    for index, name in enumerate(("x[0]", "x[1]", "x[2]", "city")):
        values = [row[index] for row in rows]
        truth = GRIDS[name].count(np.array(values, dtype=float) if index < 3 else values)
        assert counted(found).get(name, [0] * len(truth)) == truth.tolist()
    assert found.revision("aa").rows == len(rows)


def test_ten_thousand_rows_are_counted_as_numpy_does() -> None:
    found = telemetry()
    values = np.random.default_rng(1).normal(size=(10_000, 3))
    for part in np.array_split(values, 40):
        send(found, infer(*part.tolist()))
    for index in range(3):
        assert (
            counted(found)[f"x[{index}]"] == GRIDS[f"x[{index}]"].count(values[:, index]).tolist()
        )


@pytest.mark.parametrize(
    ("protocol", "body"),
    [
        ("tensorflow-serving", {"instances": [[0.1, 0.2, 0.3]]}),
        ("torchserve", [0.1, 0.2, 0.3]),
        ("torchserve", {"x[0]": 0.1, "x[1]": 0.2, "x[2]": 0.3}),
        ("open-inference", json.loads(infer([0.1, 0.2, 0.3]))),
        ("open-inference", json.loads(infer([0.1, 0.2, 0.3], name="anything"))),
    ],
)
def test_a_row_of_all_features_in_order_needs_no_names(protocol: str, body: Any) -> None:
    found = telemetry(protocol=protocol)
    reply = b'{"predictions": [0.5]}' if protocol != "open-inference" else answer(0.5)
    assert send(found, body, reply) == "answered"
    for index, value in enumerate((0.1, 0.2, 0.3)):
        grid = GRIDS[f"x[{index}]"]
        assert counted(found)[f"x[{index}]"] == grid.count(np.array([value])).tolist()


@pytest.mark.parametrize(
    ("protocol", "reply", "score"),
    [
        ("tensorflow-serving", {"predictions": [0.5]}, True),
        ("tensorflow-serving", {"predictions": [[0.5]]}, True),
        ("tensorflow-serving", {"outputs": [[0.5]]}, True),
        ("torchserve", [0.5], True),
        ("torchserve", 0.5, True),
        ("tensorflow-serving", {"predictions": [[0.5, 0.5]]}, False),
        ("tensorflow-serving", {"predictions": [{"other": 0.5}]}, False),
    ],
)
def test_the_only_answer_needs_no_name_and_one_of_another_name_is_another(
    protocol: str, reply: Any, score: bool
) -> None:
    found = telemetry(protocol=protocol)
    body = {"instances": [[0.1, 0.2, 0.3]]} if protocol != "torchserve" else [0.1, 0.2, 0.3]
    assert send(found, body, json.dumps(reply).encode()) == "answered"
    found.flush()
    ((column, cells),) = found.revision("aa").outputs["live"].series()
    assert column.grid is not None
    assert cells[column.grid.cell(0.5)] == score
    assert cells[column.grid.missing] == (not score)


def test_a_feature_can_stand_anywhere_under_any_name() -> None:
    features = [{"name": "x[0]", "input": "q[1]"}, {"name": "x[1]", "input": "r"}]
    found = telemetry(features=features)
    body = {"inputs": [
        {"name": "q", "shape": [1, 2], "datatype": "FP32", "data": [9, 0.1]},
        {"name": "r", "shape": [1], "datatype": "FP32", "data": [0.2]},
    ]}  # fmt: skip
    send(found, body)
    assert counted(found) == {
        "x[0]": GRIDS["x[0]"].count(np.array([0.1])).tolist(),
        "x[1]": GRIDS["x[1]"].count(np.array([0.2])).tolist(),
    }


def test_an_absent_feature_is_missing_and_an_unknown_tensor_breaks_the_schema() -> None:
    found = telemetry(REFERENCE)
    body = {"inputs": [
        {"name": "x", "shape": [2, 3], "datatype": "FP32", "data": [0.0] * 6},
        {"name": "extra", "shape": [2], "datatype": "FP32", "data": [1, 2]},
    ]}  # fmt: skip
    send(found, body)
    assert violations(found) == {("city", "missing"): 2, ("extra", "schema"): 2}
    assert counted(found)["city"][GRIDS["city"].missing] == 2


def test_an_answer_of_no_width_is_missing_and_costs_no_later_scrape() -> None:
    found = telemetry()
    nothing = {"name": "score", "shape": [1, 0], "datatype": "FP32", "data": []}
    for reply in (answer(0.5), json.dumps({"outputs": [nothing]}).encode(), answer(0.5)):
        assert send(found, infer([1, 2, 3]), reply) == "answered"
    assert 'output="score"' in exposed(found)
    ((column, cells),) = found.revision("aa").outputs["live"].series()
    assert column.grid is not None
    assert (cells[column.grid.missing], cells.sum()) == (1, 3)


def test_an_answer_may_hold_more_than_is_watched() -> None:
    found = telemetry(REFERENCE)
    body = {"inputs": [
        {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [0.0] * 3},
        {"name": "city", "shape": [1], "datatype": "BYTES", "data": ["rome"]},
    ]}  # fmt: skip
    outputs = [*json.loads(answer(0.5))["outputs"],
               {"name": "label", "shape": [1], "datatype": "INT64", "data": [1]}]  # fmt: skip
    send(found, body, json.dumps({"outputs": outputs}).encode())
    assert "violations_total{" not in exposed(found)


def test_texts_among_numbers_are_of_the_wrong_type_and_not_missing() -> None:
    found = telemetry()
    send(found, infer(["a sentence", None, "NaN"], [1.0, 1.0, 1.0]))
    grid = GRIDS["x[0]"]
    assert violations(found) == {("x[0]", "type"): 1}
    assert sum(counted(found)["x[0]"]) == 1
    assert counted(found)["x[1]"][grid.missing] == counted(found)["x[2]"][grid.missing] == 1


def test_no_count_falls_while_rows_wait_to_be_binned() -> None:
    found = telemetry()
    send(
        found, {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP64", "data": ["a", 1, 2]}]}
    )
    series = found.revision("aa").features.series
    assert all((cells >= 0).all() for _, cells in series())
    found.flush()
    assert all((cells >= 0).all() for _, cells in series())


def test_declared_rules_are_counted_by_name() -> None:
    features = [
        {"name": "x[0]", "range": {"min": 0, "max": 1}},
        {"name": "x[1]", "type": "integer"},
        {"name": "x[2]", "type": "boolean"},
        {"name": "city", "domain": ["rome", "oslo"], "pattern": "[a-z]{4}"},
    ]
    found = telemetry(REFERENCE, features=features)
    body = {"inputs": [
        {"name": "x", "shape": [2, 3], "datatype": "FP64", "data": [-1, 0.5, 2, 0.5, 3, 1]},
        {"name": "city", "shape": [2], "datatype": "BYTES", "data": ["Bonn", "oslo"]},
    ]}  # fmt: skip
    send(found, body)
    assert violations(found) == {
        ("x[0]", "range"): 1, ("x[1]", "type"): 1, ("x[2]", "type"): 1,
        ("city", "domain"): 1, ("city", "pattern"): 1,
    }  # fmt: skip


def test_an_integer_of_hundreds_of_digits_beside_a_nan_is_an_infinity() -> None:
    found = telemetry(protocol="tensorflow-serving")
    rows = [[float("nan"), 1, 2], [10**400, -(10**400), 2], ["?", 1, 2]]
    send(found, {"instances": rows}, answer(0.5, 0.5, 0.5))
    assert violations(found) == {("x[0]", "type"): 1}
    grids = [one.grid for one in reference().features]
    (great,), (small,) = (
        grid.numeric_cells(np.array([value]))
        for grid, value in zip(grids, (math.inf, -math.inf), strict=False)
    )
    assert (counted(found)["x[0]"][great], counted(found)["x[1]"][small]) == (1, 1)


def test_excluded_features_are_nowhere_and_hashed_ones_match_hashes_only() -> None:
    document = json.loads(REFERENCE.to_text())
    city = next(one for one in document["features"] if one["name"] == "city")
    city["categories"] = [digest(text) for text in city["categories"]]
    features = [{"name": "x[0]", "exclude": True}, {"name": "city", "hash": True}]
    settings_ = read_settings(
        json.dumps({"features": features, "reservoir": 5}).encode(),
        read_reference(json.dumps(document).encode()),
    )
    found = Telemetry(settings_, Bounds())
    body = {"inputs": [
        {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [0.123, 1, 2]},
        {"name": "city", "shape": [1], "datatype": "BYTES", "data": ["bonn"]},
    ]}  # fmt: skip
    send(found, body)
    assert counted(found)["city"][city["categories"].index(digest("bonn"))] == 1
    shown = exposed(found) + json.dumps(list(found.samples.shown()))
    assert "0.123" not in shown
    assert "x[0]" not in shown
    assert "bonn" not in shown


def test_unknown_categories_are_counted_and_never_kept() -> None:
    found = telemetry(REFERENCE, reservoir=10)
    body = {"inputs": [
        {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [0, 1, 2]},
        {"name": "city", "shape": [1], "datatype": "BYTES", "data": ["Mrs Miller, Elm Street 3"]},
    ]}  # fmt: skip
    send(found, body)
    ((row,),) = found.samples.shown()
    assert row["features"]["city"] == "(unseen)"
    assert "Miller" not in str(row)
    assert "Miller" not in exposed(found)


def test_an_error_of_ours_says_nothing_of_what_was_in_the_body(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_: Telemetry, name: str, traffic: str, one: Any, now: float) -> str:
        return str(float(one.request))

    monkeypatch.setattr(Telemetry, "count", fails)
    incoming = Mock(traffic="live", exchange=lambda: exchange(b"Mrs Miller", b"Elm Street 3"))
    incoming.name = "aa"
    found = telemetry(REFERENCE)
    Service(found, Bounds()).finish(incoming, lost=False)
    assert "an exchange could not be counted: ValueError" in caplog.text
    assert "in fails" in caplog.text, "where it was"
    assert "Miller" not in caplog.text
    assert "Elm" not in caplog.text
    assert found.revision("aa").requests["live", "dropped"] == 1


# --- what becomes of exchanges ----------------------------------------------------------------


def test_failures_are_counted_and_their_rows_are_not() -> None:
    found = telemetry()
    assert send(found, infer([1, 2, 3]), status=500) == "failed"
    assert send(found, infer([1, 2, 3]), status=0) == "failed"
    assert send(found, b"what?") == "unparsed"
    assert found.revision("aa").rows == 0


def test_copies_and_matches_are_marked_and_never_counted_into_features() -> None:
    found = telemetry()
    for traffic in ("shadow", "match"):
        found.count("aa", traffic, exchange(infer([1, 2, 3]), answer(0.5)), 0.0)
    text = exposed(found)
    text = re.sub(r'life="[0-9.]+",', "", text)
    assert "mooring_telemetry_feature_rows_total{" not in text
    assert 'requests_total{revision="aa",traffic="shadow",kind="answered"} 1' in text
    assert 'output_rows_total{revision="aa",traffic="shadow"' in text


def test_an_answer_that_cannot_be_read_leaves_the_request_counted() -> None:
    found = telemetry()
    assert send(found, infer([1, 2, 3]), b"<html>") == "answered"
    assert found.revision("aa").rows == 1
    assert found.revision("aa").outputs["live"].violations["(answer)", "schema"] == 1


def test_outputs_that_repeat_are_counted_row_by_row_and_in_bulk_alike() -> None:
    found = telemetry()
    for score in (0.5, 0.5, 0.25, 0.25):
        send(found, infer([1, 2, 3]), answer(score))
    send(found, infer(*[[1, 2, 3]] * 100), answer(*[0.25] * 100))
    assert found.revision("aa").outputs["live"].constant["score"] == 2 + 100


# --- bounds -----------------------------------------------------------------------------------


def test_a_flood_of_names_ends_in_one_series() -> None:
    found = telemetry(bounds=Bounds(names=5, revisions=3))
    for number in range(200):
        send(found, infer([1, 2, 3], name=f"n{number}"))
        found.pass_over(f"revision{number}", "live", "dropped")
    names = [name for name, rule in violations(found) if rule == "schema"]
    assert sum(violations(found)[name, "schema"] for name in names) == 0
    for number in range(200):
        body = json.loads(infer([1, 2, 3]))
        body["inputs"].append(
            {"name": f"n{number}" * 50, "shape": [1], "datatype": "FP32", "data": [1]}
        )
        send(found, body)
    names = [name for name, rule in violations(found) if rule == "schema"]
    assert len(names) == 6
    assert violations(found)[OTHER, "schema"] == 195
    assert len(found.revisions) <= 4
    assert all(len(name) <= 64 for name in names)


def test_a_body_of_too_many_rows_is_dropped_and_not_said_to_be_unreadable() -> None:
    found = telemetry(protocol="tensorflow-serving")
    body = b'{"instances": [' + b",".join([b"{}"] * (MOST_ROWS + 1)) + b"]}"
    assert send(found, body) == "dropped"
    assert found.revision("aa").rows == 0


def test_half_of_a_surrogate_pair_in_a_name_or_text_costs_no_later_scrape() -> None:
    found = telemetry(
        reference(texts=True),
        features=[{"name": "city", "input": "city", "pattern": "[a-z]+", "domain": ["rome"]}],
    )
    body = rb"""{"inputs": [{"name": "\ud800", "shape": [1], "datatype": "FP32", "data": [NaN]},
        {"name": "city", "shape": [1], "datatype": "BYTES", "data": ["\udc00"]}]}"""
    assert send(found, body) == "answered"
    assert 'feature="?",rule="schema"} 1' in exposed(found)
    assert violations(found)["city", "pattern"] == 1


def test_a_large_tensor_is_not_kept_for_the_few_columns_that_are_counted() -> None:
    found = telemetry()
    send(found, infer([0.0] * 50_000))
    waiting = found.revision("aa").features._waiting
    assert sum((rows.base if rows.base is not None else rows).nbytes for rows in waiting) < 1000


@pytest.mark.parametrize(("names", "letters"), [(4000, 8), (1000, 1000)])
def test_bodies_of_many_or_long_names_leave_little_behind(names: int, letters: int) -> None:
    extractor, one = telemetry()._features, np.ones((1, 1))
    for number in range(64):
        more = {f"{number}-{place}".ljust(letters, "é"): one for place in range(names)}
        table = extractor.read({"x": np.ones((1, 3)), **more})
        assert table.numbers.tolist() == [[1, 1, 1]]
        assert len(table.unknown) == names
    held = sum(sys.getsizeof(name) for form in extractor._plans for name, _ in form)
    assert held <= 64 * 128 << 10


def test_where_columns_stand_is_worked_out_once_for_bodies_of_one_form(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = [f"x[{place}]" for place in range(MOST_COLUMNS)]
    extractor = Extractor([Column(name, name) for name in names])
    planned = Mock(wraps=extractor._planned)
    monkeypatch.setattr(extractor, "_planned", planned)
    for _ in range(3):
        assert extractor.read({name: np.ones((1, 1)) for name in names}).numbers.sum() == 500
    assert planned.call_count == 1


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_the_share_that_is_looked_at_is_the_sample(share: float) -> None:
    found = telemetry(sample=share)
    looked = sum(found.sampled() for _ in range(4000))
    assert abs(looked / 4000 - share) < 0.04


@pytest.mark.parametrize("column", ["number", "text"])
def test_a_body_of_one_column_cannot_ask_for_gigabytes_for_the_others(column: str) -> None:
    texts = {"type": "string"} if column == "text" else {}
    found = telemetry(features=[{"name": f"f{i}", **texts} for i in range(400)])
    rows = 1 << 20
    tensor = {"name": "f0", "shape": [rows], "datatype": "BOOL",
              "parameters": {"binary_data_size": rows}}  # fmt: skip
    head = json.dumps({"inputs": [tensor]}).encode()
    assert send(found, head + bytes(rows), header_bytes=len(head)) == "dropped"
    assert found.revision("aa").rows == 0


# --- configuration ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"protocol": "soap"}, "protocol 'soap' is none of"),
        ({"features": [{"name": "x[0]", "hash": True}]}, r"feature x\[0\] has numbers"),
        ({"features": [{"name": "city", "pattern": "(("}]}, "feature city: the pattern is not RE2"),
        ({"features": [{}]}, "collector.json cannot be read"),
        ({"features": [{"name": str(i)} for i in range(501)]}, "501 features; at most 500"),
        ({"sample": "much"}, "collector.json cannot be read"),
    ],
)
def test_a_wrong_configuration_is_one_sentence(config: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        telemetry(REFERENCE, **config)


@pytest.mark.parametrize(
    "text",
    [b"", b"{}", b'{"format": 1}', b'{"format": 1, "grid": "a", "features": [{"name": "x"}]}'],
)
def test_a_wrong_reference_is_one_sentence(text: bytes) -> None:
    with pytest.raises(ConfigurationError, match="the reference"):
        read_reference(text)
