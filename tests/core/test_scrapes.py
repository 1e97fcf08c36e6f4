"""What the judge is given never falls while a router lives, and misses no attempt."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.core.judge import Analysis, ErrorRate, Metric, Pods, State, Tick, Weights, judge_one
from mooring.core.judge.readings import Counters, Scrape
from mooring.core.router_counters import Attempts, ClusterCounts, Source
from mooring.core.scrapes import Memory, take


def source(at: float, pod: str = "r1", **clusters: ClusterCounts) -> Source:
    return Source(pod, at, at + 1, clusters, born=10.0)


def test_both_sides_of_one_scrape_stand_together() -> None:
    cluster = ClusterCounts(
        {"a": Attempts(10, 7, 2, 1), "b": Attempts(5, 5)}, latency=(12.0, 3.0), ejected=1
    )
    half = ClusterCounts({"c": Attempts(50, 49, 1)})
    found, _ = take([source(100.0, cand=cluster, sa=half)], ("cand",), ("sa", "sb"), Memory())
    assert found == {
        "r1": Scrape(
            100.0,
            Counters(attempts=15, errors=2, unfinished=1, latency=(12.0, 3.0)),
            (Counters(attempts=50, errors=1), Counters()),
            born=10.0,
            ejections=1,
        )
    }


def test_an_attempt_that_its_client_gave_up_is_an_error() -> None:
    hanging = ClusterCounts({"a": Attempts(total=9, success=2, error=1, active=2)})
    found, memory = take([source(1.0, cand=hanging)], ("cand",), (), Memory())
    assert found["r1"].candidate == Counters(attempts=9, errors=5, unfinished=2)
    # A page written while requests begin and end wavers; what was counted stays.
    wavering = ClusterCounts({"a": Attempts(total=10, success=3, error=1, active=3)})
    found, _ = take([source(2.0, cand=wavering)], ("cand",), (), memory)
    assert found["r1"].candidate.errors == 5


def test_an_endpoint_that_crashes_takes_nothing_with_it() -> None:
    before = ClusterCounts({"a": Attempts(9, 2, 7), "b": Attempts(9, 9)})
    _, memory = take([source(1.0, cand=before)], ("cand",), (), Memory())
    after = ClusterCounts({"b": Attempts(12, 12)})
    found, memory = take([source(2.0, cand=after)], ("cand",), (), memory)
    assert found["r1"].candidate == Counters(attempts=21, errors=7)
    back = ClusterCounts({"a": Attempts(1, 0, 1), "b": Attempts(12, 12)})
    found, _ = take([source(3.0, cand=back)], ("cand",), (), memory)
    assert found["r1"].candidate == Counters(attempts=22, errors=8)


def test_what_was_under_way_when_an_endpoint_goes_is_no_error() -> None:
    """It is drained or evicted, and answers unseen; or the router's container begins anew."""
    before = ClusterCounts({"a": Attempts(50, 30, 0, 20), "b": Attempts(50, 45, 0, 5)})
    _, first = take([source(1.0, cand=before)], ("cand",), (), Memory())
    after = ClusterCounts({"b": Attempts(60, 55, 0, 5)})
    found, memory = take([source(2.0, cand=after)], ("cand",), (), first)
    assert found["r1"].candidate == Counters(attempts=110, unfinished=5)
    anew = ClusterCounts({"a": Attempts(8, 5, 1, 2), "b": Attempts(70, 65, 0, 5)})
    found, _ = take([source(3.0, cand=anew)], ("cand",), (), memory)
    assert found["r1"].candidate == Counters(attempts=128, errors=1, unfinished=7)
    restarted = ClusterCounts({"a": Attempts(4, 3, 0, 1), "b": Attempts(4, 4)})
    found, _ = take([source(2.0, cand=restarted)], ("cand",), (), first)
    assert found["r1"].candidate == Counters(attempts=108, unfinished=1)


def test_an_endpoint_that_comes_back_with_its_counts_has_its_requests_under_way_again() -> None:
    counts = Attempts(50, 30, 0, 20)
    _, memory = take([source(1.0, cand=ClusterCounts({"a": counts}))], ("cand",), (), Memory())
    _, memory = take([source(2.0, cand=ClusterCounts())], ("cand",), (), memory)
    back = ClusterCounts({"a": Attempts(50, 40, 0, 5)})
    found, _ = take([source(3.0, cand=back)], ("cand",), (), memory)
    assert found["r1"].candidate == Counters(attempts=50, errors=5, unfinished=5)


def test_what_was_overdue_when_an_endpoint_goes_stays_an_error() -> None:
    analysis = Analysis(
        (Metric("errors", ErrorRate(max_ratio=1.5)),), tick=10.0, unfinished_after=30.0
    )
    state, memory, evidence = State.begin(analysis), Memory(), []
    for look in range(1, 16):
        now = 10.0 * look
        hung = {"a": Attempts(6.0 * look, look, 0, 5.0 * look)} if look <= 12 else {}
        old = {"b": Attempts(90.0 * look, 90.0 * look)}
        read = source(now, cand=ClusterCounts(hung), old=ClusterCounts(old))
        scrapes, memory = take([read], ("cand",), ("old",), memory)
        found = judge_one(analysis, state, Tick(now, Weights(10.0, 0.0), scrapes, Pods(1, 9)))
        state = found.state
        assert found.metrics[0].estimate is not None
        evidence.append(found.metrics[0].estimate.value)
    assert evidence[11] > 0.3, "most have waited for more than 30 s"
    assert evidence[14] == evidence[11]


def test_a_pod_that_is_not_read_is_remembered_for_an_hour() -> None:
    first = ClusterCounts({"a": Attempts(5, 5)})
    _, memory = take([source(0.0, cand=first)], ("cand",), (), Memory())
    _, memory = take([source(3000.0, pod="r2", cand=first)], ("cand",), (), memory)
    assert set(memory.pasts) == {("r1", "cand"), ("r2", "cand")}
    _, memory = take([source(3700.0, pod="r2", cand=first)], ("cand",), (), memory)
    assert set(memory.pasts) == {("r2", "cand")}


_COUNTS = st.integers(0, 20)


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from("abc"), st.tuples(_COUNTS, _COUNTS, _COUNTS, _COUNTS), max_size=3
        ),
        max_size=10,
    )
)
def test_no_counter_ever_falls(history: list[dict[str, tuple[int, int, int, int]]]) -> None:
    memory, last = Memory(), Counters()
    running: dict[str, Attempts] = {}
    for tick, changes in enumerate(history):
        # Endpoints that are left out have gone; the others have counted on.
        running = {
            name: running.get(name, Attempts()).plus(
                Attempts(success + error + more, success, error)
            )
            for name, (success, error, more, _) in changes.items()
        }
        cluster = ClusterCounts(running)
        found, memory = take([source(float(tick), cand=cluster)], ("cand",), (), memory)
        now = found["r1"].candidate
        assert now.attempts >= last.attempts
        assert now.errors >= last.errors
        assert now.errors <= now.attempts
        last = now


def test_an_endpoint_that_comes_back_with_more_attempts_than_it_had_begins_anew_at_once() -> None:
    """Otherwise whoever comes and goes within a minute is never counted."""
    memory = Memory()
    seen = []
    flapping = (
        Attempts(2, 2), None, Attempts(20, 0, 20), Attempts(40, 0, 40), None, Attempts(30, 0, 30),
    )  # fmt: skip
    for look, ours in enumerate(flapping):
        read = source(100.0 + 5 * look, cand=ClusterCounts({} if ours is None else {"a": ours}))
        found, memory = take([read], ("cand",), (), memory)
        seen.append(found["r1"].candidate.errors)
    assert seen == [0, 0, 20, 40, 40, 70]


# half of a scrape, and old ones -------------------------------------------------------------------

HALVES = {
    "total": Attempts(0, 598, 2, 0),
    "success": Attempts(600, 0, 2, 0),
    "error": Attempts(600, 598, 0, 0),
    "all": Attempts(),
}


def counting(looks: float, **half: Attempts) -> Source:
    """20 attempts of the candidate a look, of which two failed early, and 180 of stable."""
    n = 20.0 * looks
    ours = half.get("ours", Attempts(n, n - 2, 2))
    old = ClusterCounts({"b": Attempts(9 * n, 9 * n)})
    read = source(1000.0 + 10 * looks, cand=ClusterCounts({"a": ours}), old=old)
    return replace(read, born=900.0)


@pytest.mark.parametrize("missing", HALVES)
def test_a_scrape_of_which_a_half_is_shown_counts_nothing_a_second_time(missing: str) -> None:
    _, memory = take([counting(29)], ("cand",), ("old",), Memory())
    for _ in range(2):  # of which the second is whole, and one tick later
        found, memory = take([counting(30, ours=HALVES[missing])], ("cand",), ("old",), memory)
        assert found["r1"].candidate == Counters(attempts=580, errors=2)
    found, _ = take([counting(31)], ("cand",), ("old",), memory)
    assert found["r1"].candidate == Counters(attempts=620, errors=2)
    assert found["r1"].stable == (Counters(attempts=9 * 620),)


def test_half_a_scrape_is_left_out_with_both_sides_and_is_no_fresh_sample() -> None:
    first, memory = take([counting(29)], ("cand",), ("old",), Memory())
    half, after = take([counting(30, ours=HALVES["success"])], ("cand",), ("old",), memory)
    assert half == first
    assert after == memory


def test_counts_that_contradict_the_last_for_a_minute_are_a_new_beginning() -> None:
    _, memory = take([counting(30)], ("cand",), ("old",), Memory())
    for look in range(31, 37):
        # Its new life has more attempts than the old one had, and fewer errors.
        anew = Attempts(20.0 * look, 20.0 * look)
        found, memory = take([counting(look, ours=anew)], ("cand",), ("old",), memory)
        assert found["r1"].candidate.attempts == (600 if look < 36 else 600 + 720)
    assert found["r1"].candidate.errors == 2


@pytest.mark.parametrize("errors", [0, 5])
def test_an_endpoint_that_begins_anew_counts_at_once_however_it_does(errors: int) -> None:
    _, memory = take([counting(30)], ("cand",), ("old",), Memory())
    anew = Attempts(9, 7 - errors, errors, 2)
    found, _ = take([counting(31, ours=anew)], ("cand",), ("old",), memory)
    assert found["r1"].candidate == Counters(attempts=609, errors=2 + errors, unfinished=2)


def test_a_router_that_is_known_to_have_begun_anew_is_not_held_to_its_last_counts() -> None:
    _, memory = take([counting(30)], ("cand",), ("old",), Memory())
    anew = replace(counting(31, ours=Attempts(600, 600)), born=1305.0)
    found, _ = take([anew], ("cand",), ("old",), memory)
    assert found["r1"].candidate == Counters(attempts=1200, errors=2)


def test_a_scrape_that_is_older_than_the_last_is_no_new_life() -> None:
    """Two Prometheus servers behind one address, one of them behind."""
    _, memory = take([counting(30)], ("cand",), ("old",), Memory())
    late, memory = take([counting(29.5)], ("cand",), ("old",), memory)
    assert late["r1"].candidate == Counters(attempts=600, errors=2)
    assert late["r1"].time == counting(29.5).at
    found, _ = take([counting(31)], ("cand",), ("old",), memory)
    assert found["r1"].candidate == Counters(attempts=620, errors=2)


def test_after_a_clock_was_set_back_scrapes_go_on() -> None:
    _, memory = take([counting(30)], ("cand",), ("old",), Memory())
    back = replace(counting(31), at=counting(31).at - 3600)
    found, _ = take([back], ("cand",), ("old",), memory)
    assert (found["r1"].candidate.attempts, found["r1"].time) == (620, back.at)
