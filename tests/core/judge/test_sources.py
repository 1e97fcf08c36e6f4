"""What was read of a router pod, as the judge takes it."""

from __future__ import annotations

from mooring.core.judge import Counters
from mooring.core.judge.sources import scrape_of
from mooring.core.router_counters import Attempts, ClusterCounts, Source

CANDIDATE = ClusterCounts(
    {"10.0.0.1:80": Attempts(10, 6, 2, 1), "10.0.0.2:80": Attempts(5, 5)},
    latency=(3.0, 2.0),
    ejected=1.0,
)
HALF = ClusterCounts({"10.0.0.3:80": Attempts(50, 50)}, latency=(40.0, 10.0))
SOURCE = Source("router-0", 100.0, 101.0, {"new": CANDIDATE, "old-a": HALF, "old-b": HALF})


def test_attempts_of_all_endpoints_are_one_side_and_what_clients_gave_up_is_an_error() -> None:
    found = scrape_of(SOURCE, ("new",), ("old-a", "old-b"))
    assert found.time == 100.0
    # 10 attempts: 6 good, 2 bad, 1 under way, so 1 was given up.
    assert found.candidate == Counters(15, 3, 1, (3.0, 2.0))
    assert found.stable == (Counters(50, 0, 0, (40.0, 10.0)),) * 2
    assert found.ejections == 1


def test_a_cluster_that_is_not_there_counts_zero() -> None:
    found = scrape_of(SOURCE, ("gone",), ("old-a",))
    assert found.candidate == Counters()
    assert found.ejections == 0


def test_sums_over_the_lives_of_endpoints_win_over_those_there_now() -> None:
    found = scrape_of(SOURCE, ("new",), ("old-a",), {"new": Attempts(100, 90, 4, 2)}, born=7.0)
    assert found.candidate == Counters(100, 8, 2, (3.0, 2.0))
    assert found.born == 7.0
