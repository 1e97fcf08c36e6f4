"""What is asked about collectors, and how the answer is read."""

from __future__ import annotations

import itertools

import promql_parser
import pytest

from mooring.core.answers import Keyed, NoAnswer, Reason
from mooring.core.telemetry import (
    HALVES,
    LONGEST_PART,
    Counted,
    Part,
    Watched,
    joined,
    parts,
    query,
    read,
    shards,
)

HOUR = 3600.0
PART = Part(7200.0, 10800.0, HOUR)
POD = "fraud-collector-5c8d9f7b9c-abcde"
FRAUD = Watched("shop", "fraud")


def answered(values: dict[str, float], *warnings: str) -> Keyed:
    return Keyed(values, 10800.0, warnings)


def read_fraud(values: dict[str, float]) -> Counted:
    found = read(answered(values), [FRAUD], PART)
    assert not isinstance(found, NoAnswer)
    return found["shop", "fraud"]


@pytest.mark.parametrize("cells", [None, *HALVES])
def test_what_is_asked_is_promql_with_fixed_times(cells: str | None) -> None:
    text = query([FRAUD, Watched("bank.eu", "loans")], PART, cells=cells)

    promql_parser.parse(text)
    assert "[3600000ms] @ 10800.000" in text
    assert "[3600000ms] @ 7200.000" in text
    assert 'pod=~"loans-collector-.+|fraud-collector-.+"' in text
    assert 'namespace=~"bank[.]eu|shop"' in text
    assert "increase(" not in text


def test_names_that_would_escape_the_query_are_refused() -> None:
    with pytest.raises(ValueError, match="not the name"):
        Watched("shop", 'fraud"} or up{')


def test_counts_are_read_by_feature_output_and_rule() -> None:
    found = read_fraud(
        {
            f"shop|{POD}|rows|||||||": 0.0,
            f"shop|{POD}|rows|abc||||||": 100.0,
            f"shop|{POD}|requests|abc|live||||unparsed||": 2.0,
            f"shop|{POD}|feature_rows|abc||g1|7|||amount|": 60.0,
            f"shop|{POD}|feature_rows|def||g1|7|||amount|": 5.0,
            f"shop|{POD}|feature_rows|abc||g1|8|||a|b|": 1.0,
            f"shop|{POD}|output_rows|abc|live|g1|3||||score": 100.0,
            f"shop|{POD}|output_rows|abc|shadow|g1|3||||score": 20.0,
            f"shop|{POD}|output_rows|abc|match|g1|3||||score": 7.0,
            f"shop|{POD}|requests|abc|match||||unparsed||": 9.0,
            f"shop|{POD}|violations|abc||||range||amount|": 4.0,
            f"shop|{POD}|outcomes|abc||g1|3||1||score": 6.0,
            f"shop|{POD}|outcomes|abc||g1|3||0||score": 5.0,
            f"shop|{POD}|outcomes|abc||g1|3||(number)||a|b": 2.0,
            f"shop|{POD}|scrapes|7000.5": 240.0,
            f"shop|{POD}|before|7000.5": 0.0,
        }
    )

    assert found == Counted(
        rows=100.0,
        requests={"unparsed": 2.0},
        features={"g1": {"amount": {7: 65.0}, "a|b": {8: 1.0}}},
        outputs={"g1": {("abc", "score"): {3: 120.0}}},
        violations={"amount": {"range": 4.0}},
        scrapes=240,
        outcomes={
            "g1": {
                ("abc", "score", "1"): {3: 6.0},
                ("abc", "score", "0"): {3: 5.0},
                ("abc", "a|b", "(number)"): {3: 2.0},
            }
        },
    )


def test_a_process_older_than_the_window_that_was_not_scraped_before_is_a_gap() -> None:
    old = {f"shop|{POD}|scrapes|5000.0": 10.0}

    assert read_fraud(old).gap
    assert not read_fraud({**old, f"shop|{POD}|before|5000.0": 0.0}).gap
    assert not read_fraud({f"shop|{POD}|scrapes|7300.0": 10.0}).gap
    assert not read_fraud({f"shop|{POD}|scrapes|": 10.0}).gap


def test_a_revision_that_came_back_after_it_was_dropped_is_seen_by_its_process() -> None:
    whole = {
        f"shop|{POD}|scrapes|5000.0": 240.0,
        f"shop|{POD}|before|5000.0": 0.0,
        f"shop|{POD}|scrapes|5000.0/64": 12.0,
    }

    assert read_fraud(whole) == Counted(scrapes=240)


def test_what_belongs_to_nobody_is_left_out() -> None:
    found = read_fraud(
        {
            f"bank|{POD}|rows|abc||||||": 1.0,
            "shop|fraud-collector-x-collector-5c8d9f7b9c-abcde|rows|abc||||||": 1.0,
            "shop|fraud-collector-sidecar|rows|abc||||||": 1.0,
            f"shop|{POD}|feature_rows|abc||g1|-1|||amount|": 1.0,
            f"shop|{POD}|feature_rows|abc||g1|x|||amount|": 1.0,
            f"shop|{POD}|feature_rows|abc||g1|1|||amount|": float("nan"),
            "nonsense": 1.0,
        }
    )

    assert found == Counted()


def test_a_partial_answer_is_none() -> None:
    found = read(answered({}, "a store did not answer"), [FRAUD], PART)

    assert isinstance(found, NoAnswer)
    assert found.reason is Reason.INCOMPLETE


def test_a_long_window_is_read_in_parts_that_meet() -> None:
    found = parts(0.0, 168 * HOUR, 168 * HOUR)

    assert len(found) == 28
    assert all(a.end == b.start for a, b in itertools.pairwise(found))
    assert {one.lookback for one in found} == {LONGEST_PART}
    assert parts(1800.0, 3600.0, HOUR) == (Part(1800.0, 3600.0, HOUR),)


def test_readings_add_up() -> None:
    one = Counted(2.0, {"answered": 1.0}, {"g": {"a": {1: 2.0}}}, {}, {"a": {"range": 1.0}}, 3)
    other = Counted(3.0, {"answered": 2.0}, {"g": {"a": {1: 1.0, 2: 2.0}}}, {}, {}, 4, gap=True)

    first, second = ({"g": {("r", "s", "1"): {3: rows}}} for rows in (1.0, 4.0))
    assert joined(
        [Counted(outcomes=first), Counted(outcomes=second), Counted(outcomes=first)]
    ) == Counted(outcomes={"g": {("r", "s", "1"): {3: 6.0}}})
    assert joined([one, other]) == Counted(
        5.0, {"answered": 3.0}, {"g": {"a": {1: 3.0, 2: 2.0}}}, {}, {"a": {"range": 1.0}}, 7,
        gap=True,
    )  # fmt: skip


def test_many_features_are_asked_for_in_several_questions() -> None:
    many = [Watched("shop", f"m{i}", features=500) for i in range(3)]
    few = [Watched("shop", f"m{i}", features=5) for i in range(30)]

    assert [len(shard) for shard in shards(many)] == [1, 1, 1]
    assert len(shards(few)) == 1
