"""From Prometheus' samples to counts per router pod, cluster and endpoint."""

from __future__ import annotations

import math
import re

import promql_parser
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.core.answers import Keyed
from mooring.core.endpoint_lives import Lives
from mooring.core.router_counters import (
    Attempts,
    ClusterCounts,
    Reading,
    ScrapeLabels,
    Target,
    query,
    read,
    shards,
)

POD = "fraud-router-5c8d9f7b9c-abcde"
TARGET = Target("shop", "fraud", ("cand", "stab-a"))
RQ = "envoy_cluster_endpoint_rq_"


def answer(**series: float) -> Keyed:
    return Keyed(series, 1000.0)


def scrape(pod: str = POD, more: dict[str, float] | None = None) -> dict[str, float]:
    return {
        f"shop|{pod}": 996.0,
        f"shop|{pod}|envoy_server_uptime": 90.0,
        f"shop|{pod}|cand|10.0.0.1:80|{RQ}total": 12,
        f"shop|{pod}|cand|10.0.0.1:80|{RQ}success": 9,
        f"shop|{pod}|cand||envoy_cluster_outlier_detection_ejections_active": 1,
        **{f"shop|{pod}|{key}": value for key, value in (more or {}).items()},
    }


def test_the_query_is_promql_that_names_what_it_reads_once() -> None:
    text = query([TARGET, Target("bank", "loans", ("x", "y-a"), edges=(10.0, 1.3))])
    promql_parser.parse(text)
    assert text.count('namespace=~"bank|shop"') == 3
    assert text.count('envoy_cluster_name=~"cand|stab-a|x|y-a"') == 2
    # Latency is read of those alone that ask for it.
    assert 'namespace=~"bank",envoy_cluster_name=~"x|y-a"' in text
    assert 'le=~"1[.]3|10([.]0)?|[+]Inf"' in text


def test_without_latency_no_bucket_is_read() -> None:
    assert "bucket" not in query([TARGET])


def test_the_label_names_of_the_scrape_configuration_are_used() -> None:
    text = query([TARGET], ScrapeLabels("kubernetes_namespace", "kubernetes_pod_name"))
    assert 'kubernetes_namespace=~"shop"' in text
    assert '"kubernetes_namespace","kubernetes_pod_name"' in text
    with pytest.raises(ValueError, match="label"):
        ScrapeLabels('x="a"} or y{')


@pytest.mark.parametrize("wrong", ['a"b', "a|b", ".*", "", "a b", "a\\d"])
def test_a_name_that_would_be_an_expression_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        Target("shop", "fraud", (wrong,))
    with pytest.raises(ValueError, match="not a name"):
        Target(wrong, "fraud", ("cand",))


def test_counts_are_sorted_by_pod_cluster_and_endpoint() -> None:
    reading = read(answer(**scrape()), [TARGET])
    (one,) = reading.sources["shop", "fraud"]
    assert (one.pod, one.at, one.age, one.born) == (POD, 996.0, 4.0, 906.0)
    # What the scrape does not have is 0, and gauges are not known.
    assert one.clusters == {
        "cand": ClusterCounts({"10.0.0.1:80": Attempts(total=12, success=9)}, ejected=1)
    }


@pytest.mark.parametrize(
    ("pod", "mine"),
    [
        (POD, True),
        ("fraud-router-5c8d9-abcde", True),
        # Kubernetes cut it to 63 characters.
        ("fraud-router-5c8d9f7b9cabcde", True),
        ("fraud-5c8d9f7b9c-abcde", False),
        ("other-router-5c8d9f7b9c-abcde", False),
        ("fraud-router-x-router-5c8d9f7b9c-abcde", False),
        ("evil", False),
    ],
)
def test_only_router_pods_of_the_rollout_are_believed(pod: str, mine: bool) -> None:
    assert bool(read(answer(**scrape(pod)), [TARGET]).sources) is mine


def test_named_pods_are_believed_and_no_others() -> None:
    named = Target("shop", "fraud", ("cand",), pods=("chosen",))
    assert read(answer(**scrape("chosen")), [named]).sources
    assert not read(answer(**scrape(POD)), [named]).sources


def test_a_pod_of_the_same_name_elsewhere_is_not_taken() -> None:
    there = {key.replace("shop", "bank"): value for key, value in scrape().items()}
    assert read(answer(**there), [TARGET]) == Reading()


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, -1.0])
def test_a_pod_with_a_value_that_cannot_be_is_left_out(odd: float) -> None:
    other = "fraud-router-5c8d9f7b9c-other"
    mixed = scrape(more={f"cand|10.0.0.1:80|{RQ}error": odd}) | scrape(other)
    (one,) = read(answer(**mixed), [TARGET]).sources["shop", "fraud"]
    assert one.pod == other


def test_counters_without_the_time_of_their_scrape_are_left_out() -> None:
    untimed = {key: value for key, value in scrape().items() if key.count("|") != 1}
    assert read(answer(**untimed), [TARGET]) == Reading()


@pytest.mark.parametrize("key", ["", "shop", "a|b|c|d|e|f", "|||", "||", f"shop|{POD}|cand|x|up"])
def test_a_series_that_nobody_asked_for_does_no_harm(key: str) -> None:
    reading = read(answer(**scrape(), **{key: 5.0}), [TARGET])
    assert set(reading.sources) == {("shop", "fraud")}


@pytest.mark.parametrize(
    ("buckets", "latency"),
    [
        ({"10": 1.0, "13": 3.0, "+Inf": 9.0}, (1, 2, 6)),
        ({"10.0": 1.0, "13.0": 3.0, "50.0": 4.0, "+Inf": 9.0}, (1, 2, 6)),
        ({}, None),
        ({"10": 1.0, "+Inf": 9.0}, None),
        ({"10": 1.0, "13": 3.0}, None),
        ({"10": 4.0, "13": 3.0, "+Inf": 9.0}, None),
    ],
)
def test_buckets_are_given_one_by_one_and_none_where_one_is_missing(
    buckets: dict[str, float], latency: tuple[float, ...] | None
) -> None:
    timed = Target("shop", "fraud", ("cand",), edges=(10.0, 13.0))
    series = scrape(more={f"cand|{edge}": value for edge, value in buckets.items()})
    (one,) = read(answer(**series), [timed]).sources["shop", "fraud"]
    assert one.clusters["cand"].latency == latency


def test_before_the_first_success_there_is_no_histogram_and_nothing_slow() -> None:
    timed = Target("shop", "fraud", ("cand",), edges=(10.0, 13.0))
    series = scrape() | {f"shop|{POD}|cand|10.0.0.1:80|{RQ}success": 0}
    (one,) = read(answer(**series), [timed]).sources["shop", "fraud"]
    assert one.clusters["cand"].latency == (0, 0, 0)


def test_shards_hold_every_rollout_once_and_are_of_a_size() -> None:
    targets = [Target(f"n{i % 7}", f"d{i}", ("a", "b", "c")) for i in range(500)]
    found = shards(targets, most=1500)
    assert sorted(t.key for shard in found for t in shard) == sorted(t.key for t in targets)
    assert all(sum(t.series for t in shard) <= 1500 for shard in found)
    assert len(found) == math.ceil(500 / (1500 // targets[0].series))
    assert shards(list(reversed(targets)), most=1500) == found
    assert shards([]) == ()
    assert len(shards([Target("a", "b", ("c",), endpoints=10_000)] * 2)) == 2


def test_the_query_of_a_full_shard_stays_small() -> None:
    targets = [
        Target(
            f"namespace-{i}", f"deployment-{i}", (f"cand{i:06}", f"stab{i:06}-a", f"stab{i:06}-b")
        )
        for i in range(1000)
    ]
    longest = max(len(query(shard)) for shard in shards(targets))
    assert longest < 32 * 1024
    assert not re.search(r"\n", query(targets[:2]))


def test_model_pods_that_do_not_answer_are_named_by_their_rollout() -> None:
    asking = Target("shop", "fraud", ("cand",), models=("fraud-aaa", "fraud-bbb"))
    assert 'up{namespace=~"shop",pod=~"fraud-aaa-.+|fraud-bbb-.+"}' in query([asking])
    assert "up{" not in query([TARGET])
    series = {
        "shop|fraud-aaa-5c8d9f7b9c-abcde|up": 0.0,
        "shop|fraud-aaa-5c8d9f7b9c-fghij|up": 1.0,
        "shop|fraud-aaa-x-5c8d9f7b9c-abcde|up": 0.0,
        "bank|fraud-bbb-5c8d9f7b9c-abcde|up": 0.0,
    }
    reading = read(answer(**scrape(), **series), [asking])
    assert reading.unscraped == {("shop", "fraud"): ("fraud-aaa-5c8d9f7b9c-abcde",)}


# --- lives --------------------------------------------------------------------------------------


def test_an_endpoint_that_goes_stays_in_the_sum() -> None:
    both = {"a": Attempts(10, 8, 2), "b": Attempts(5, 5)}
    lives = Lives().seen(both)
    assert lives.sum(both) == Attempts(15, 13, 2)
    one = {"a": Attempts(11, 9, 2)}
    lives = lives.seen(one)
    assert lives.sum(one) == Attempts(16, 14, 2)
    # The same pod again, after a scrape that missed it, and then a new one at its address.
    again = {**one, "b": Attempts(6, 6)}
    lives = lives.seen(again)
    assert lives.sum(again).total == 17
    anew = {**one, "b": Attempts(1, 0, 1)}
    lives = lives.seen(anew)
    assert lives.sum(anew) == Attempts(18, 15, 3)


@given(
    st.lists(
        st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 50), max_size=6), max_size=12
    )
)
def test_the_sum_never_falls(history: list[dict[str, int]]) -> None:
    lives, before = Lives(), 0.0
    for counts in history:
        endpoints = {name: Attempts(total=value) for name, value in counts.items()}
        lives = lives.seen(endpoints)
        assert lives.sum(endpoints).total >= before
        before = lives.sum(endpoints).total


def test_no_more_than_some_endpoints_are_remembered() -> None:
    lives = Lives()
    for number in range(1000):
        lives = lives.seen({f"10.0.0.{number}": Attempts(total=1)})
    assert len(lives.last) <= 201
    assert lives.sum({}).total == 1000
