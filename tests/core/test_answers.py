"""Reading the API's JSON: in pieces it gives what it gives as a whole, and nothing is guessed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.core.answers import (
    Answer,
    Keyed,
    NoAnswer,
    Reason,
    parse_body,
    read_envelope,
    read_keyed,
    single_value,
    words,
)


def body(result: list[Any], **more: Any) -> dict[str, Any]:
    return {"status": "success", "data": {"resultType": "vector", "result": result}, **more}


def large(label: str) -> dict[str, Any]:
    series = [{"metric": {"k": f"{label}{i}"}, "value": [1.5, str(i)]} for i in range(60)]
    return body(series, warnings=["w"], infos=["i"])


@pytest.mark.parametrize("label", ["plain", 'quote",{"metric":', "],[", "é\\", "\n"])
@pytest.mark.parametrize("spaces", [(",", ":"), (", ", ": ")])
def test_a_large_body_is_the_same_read_in_pieces(label: str, spaces: tuple[str, str]) -> None:
    whole = large(label)
    assert parse_body(json.dumps(whole, separators=spaces).encode(), 300) == whole
    text = json.dumps(whole, separators=spaces, ensure_ascii=False)
    assert parse_body(text.encode(), 300) == whole


@given(st.integers(min_value=1, max_value=2_900))
def test_a_large_body_that_is_cut_is_no_json(cut: int) -> None:
    text = json.dumps(large("x"), separators=(",", ":")).encode()
    with pytest.raises(ValueError, match=r".*"):
        parse_body(text[: max(1, len(text) - cut)], 300)


@pytest.mark.parametrize("piece", [200, 1_000_000])
def test_a_keyed_vector_is_one_dictionary(piece: int) -> None:
    found = read_keyed(json.dumps(large("x"), separators=(",", ":")).encode(), "k", piece)
    assert found == Keyed({f"x{i}": float(i) for i in range(60)}, 1.5, ("w",))
    assert read_keyed(json.dumps(body([])).encode(), "k", piece) == Keyed({}, None)


@pytest.mark.parametrize("piece", [200, 1_000_000])
@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"metric": {}, "value": [1, "2"]}, Reason.SHAPE),
        ({"metric": {"k": "a"}, "value": [1, 2]}, Reason.SHAPE),
        ({"metric": {"k": "a"}, "value": [1, "two"]}, Reason.SHAPE),
        ({"metric": {"k": "a"}, "value": ["1", "2"]}, Reason.SHAPE),
        ({"metric": {"k": "a"}, "histogram": [1, {}]}, Reason.SHAPE),
    ],
)
def test_a_keyed_vector_is_read_as_strictly(piece: int, wrong: Any, reason: Reason) -> None:
    whole = large("x")
    whole["data"]["result"].append(wrong)
    found = read_keyed(json.dumps(whole, separators=(",", ":")).encode(), "k", piece)
    assert isinstance(found, NoAnswer)
    assert found.reason is reason


@pytest.mark.parametrize("wrong", [[], 7, {"status": "success"}, body([]) | {"status": "error"}])
def test_what_is_no_keyed_vector_is_said_to_be_none(wrong: Any) -> None:
    assert isinstance(read_keyed(json.dumps(wrong).encode(), "k"), NoAnswer)
    with pytest.raises(ValueError, match=r".*"):
        read_keyed(json.dumps(large("x")).encode()[:-3], "k", 200)


@pytest.mark.parametrize(
    "result",
    [
        [{"metric": {}, "value": [1, 2]}],
        [{"metric": {}, "value": ["1", "2"]}],
        [{"metric": {}, "value": [True, "2"]}],
        [{"metric": {}, "value": [1]}],
        [{"metric": {}, "value": [1, "2", "3"]}],
        [{"metric": {}, "value": [1, "two"]}],
        [{"metric": {}, "value": [float("nan"), "2"]}],
        [{"metric": [], "value": [1, "2"]}],
        [{"value": [1, "2"]}],
        [{"metric": {}}],
        [7],
        "text",
        {},
        None,
    ],
)
def test_a_sample_that_is_not_as_documented_is_refused(result: Any) -> None:
    found = read_envelope(body(result))
    assert isinstance(found, NoAnswer)
    assert found.reason is Reason.SHAPE


@pytest.mark.parametrize("wrong", [None, [], "x", 1, {"status": "fine"}, {"status": ["success"]}])
def test_what_is_not_the_api_is_said_to_be_none(wrong: Any) -> None:
    found = read_envelope(wrong)
    assert isinstance(found, NoAnswer)
    assert found.reason is Reason.NOT_JSON


def test_a_scalar_is_one_sample() -> None:
    found = read_envelope({"status": "success", "data": {"resultType": "scalar",
                                                         "result": [5.0, "0.25"]}})  # fmt: skip
    sample = single_value(found)
    assert not isinstance(sample, NoAnswer)
    assert (sample.at, sample.value) == (5.0, 0.25)


@pytest.mark.parametrize(("age", "counts"), [(-600, True), (0, True), (600, True), (3600, False)])
def test_a_first_answer_of_an_hour_ago_does_not_count(age: float, counts: bool) -> None:
    """Clocks may differ by ten minutes; a cache's copy is of before the candidate had traffic."""
    found = single_value(
        read_envelope(body([{"metric": {}, "value": [5000 - age, "2"]}])), now=5000
    )
    if counts:
        assert not isinstance(found, NoAnswer)
        return
    assert isinstance(found, NoAnswer)
    assert found.reason is Reason.STALE
    assert "was evaluated 3600 s ago by the operator's clock" in found.message


def test_a_timeout_of_the_query_is_a_timeout() -> None:
    found = read_envelope({"status": "error", "errorType": "timeout", "error": "query timed out"})
    assert isinstance(found, NoAnswer)
    assert found.reason is Reason.TIMEOUT


def test_infos_do_no_harm_and_warnings_do() -> None:
    series = [{"metric": {}, "value": [1, "2"]}]
    good = read_envelope(body(series, infos=["metric might not be a counter"]))
    assert isinstance(good, Answer)
    assert not isinstance(single_value(good), NoAnswer)
    partial = single_value(read_envelope(body(series, warnings="odd")))
    assert isinstance(partial, NoAnswer)
    assert partial.reason is Reason.INCOMPLETE


@given(st.text(max_size=2000))
def test_foreign_words_become_one_short_printable_line(text: str) -> None:
    line = words(text)
    assert len(line) <= 300
    assert not any(ord(one) < 32 for one in line)
    line.encode()
