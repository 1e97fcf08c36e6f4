"""What the judge is given never falls while a router lives, and misses no attempt."""

from __future__ import annotations

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
