"""Pods and traffic that move from one revision to another: what fits, and what serves meanwhile."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.core.sizing import Side, by_pods, comparable, sizes


@pytest.mark.parametrize(
    ("total", "weight", "pods"),
    [
        (10, 0, 0),
        (10, 5, 1),
        (10, 10, 2),  # 10 · .1/.9 = 1.1
        (10, 25, 4),  # 3.3
        (10, 40, 7),  # 6.7
        (10, 50, 10),
        (10, 90, 10),
        (1, 5, 1),
        (100, 20, 25),
        (0, 50, 0),
    ],
)
def test_the_load_per_pod_is_comparable(total: int, weight: int, pods: int) -> None:
    assert comparable(total, weight) == pods


def test_where_both_fit_stable_stays_whole_until_the_promotion() -> None:
    for weight in (5, 25, 50, 90):
        found = sizes(10, 10, weight, 1, Side(10, 10, weight), Side(10, 10, 100 - weight))
        assert found.outgoing == 10
        assert found.weight == weight
        assert found.staffed


def test_no_traffic_moves_before_the_pods_of_the_step_are_there() -> None:
    before = sizes(10, 10, 25, 1, Side(1, 1, 5), Side(10, 10, 95))
    assert (before.incoming, before.weight, before.staffed) == (4, 5, False)
    after = sizes(10, 10, 25, 1, Side(4, 4, 5), Side(10, 10, 95))
    assert (after.incoming, after.weight, after.staffed) == (4, 25, True)


def test_a_candidate_that_loses_pods_keeps_no_more_traffic_than_they_can_carry() -> None:
    assert sizes(10, 10, 50, 1, Side(3, 10, 50), Side(10, 10, 50)).weight == 30
    assert sizes(10, 10, 50, 1, Side(0, 10, 50), Side(10, 10, 50)).weight == 0


def converge(total: int, surge: int, weight: int, least: int) -> tuple[list[Side], list[Side]]:
    """Plays a cluster in which pods become ready one at a time, and routes are taken at once."""
    incoming, outgoing = Side(0, 0, 0), Side(total, total, 100)
    coming, going = [incoming], [outgoing]
    for _ in range(20 * total + 40):
        found = sizes(total, surge, weight, least, incoming, outgoing)
        pods = found.incoming
        ready = min(pods, incoming.available + (1 if pods > incoming.available else 0))
        stays = min(found.outgoing, max(found.outgoing, outgoing.pods))
        following = (
            Side(ready, pods, found.weight),
            Side(min(stays, found.outgoing), found.outgoing, 100 - found.weight),
        )
        if following == (incoming, outgoing):
            break
        incoming, outgoing = following
        coming.append(incoming)
        going.append(outgoing)
    return coming, going


TOTALS = st.integers(1, 30)


@given(TOTALS, st.integers(1, 40), st.integers(1, 100))
def test_every_step_is_reached_and_never_costs_capacity(
    total: int, surge: int, weight: int
) -> None:
    coming, going = converge(total, surge, weight, 1)
    for incoming, outgoing in zip(coming, going, strict=True):
        assert incoming.pods + outgoing.pods <= total + surge
        assert incoming.available + outgoing.available >= total
        assert incoming.available * 100 >= incoming.weight * total or incoming.weight == 0
        assert outgoing.available >= math.floor(total * (100 - incoming.weight) / 100)
    last = coming[-1]
    assert last.weight == weight
    assert sizes(total, surge, weight, 1, last, going[-1]).staffed


@given(TOTALS)
def test_without_room_for_one_more_pod_all_move_over_with_one_missing_at_most(total: int) -> None:
    coming, going = converge(total, 0, 100, total)
    for incoming, outgoing in zip(coming, going, strict=True):
        assert incoming.pods + outgoing.pods <= total
        assert incoming.available + outgoing.available >= total - 2
    assert coming[-1].available == total
    assert going[-1].pods == 0


@given(
    st.integers(0, 50), st.integers(0, 60), st.integers(0, 100), st.integers(0, 60),
    st.integers(0, 60), st.integers(0, 60), st.integers(0, 100),
)  # fmt: skip
def test_any_numbers_give_sizes_within_bounds(
    total: int, surge: int, weight: int, least: int, available: int, other: int, now: int
) -> None:
    for arrange in (sizes, by_pods):
        found = arrange(
            total, surge, weight, least, Side(available, available, now), Side(other, other, 100)
        )
        assert 0 <= found.incoming <= total
        assert 0 <= found.outgoing <= total
        assert 0 <= found.weight <= 100


@pytest.mark.parametrize(
    ("weight", "incoming", "outgoing"), [(10, 2, 10), (50, 10, 10), (75, 10, 4), (90, 10, 2)]
)
def test_by_pods_their_ratio_is_the_weight(weight: int, incoming: int, outgoing: int) -> None:
    found = by_pods(10, 10, weight, 1, Side(incoming, incoming, 0), Side(10, 10, 100))
    assert (found.incoming, found.outgoing) == (incoming, outgoing)
    assert incoming / (incoming + outgoing) == pytest.approx(weight / 100, abs=0.08)


def test_by_pods_stable_gives_none_up_before_the_others_are_there() -> None:
    assert by_pods(10, 10, 75, 1, Side(9, 10, 0), Side(10, 10, 100)).outgoing == 10


def test_by_pods_both_sides_get_requests_while_the_outgoing_one_is_not_whole() -> None:
    cut = Side(2, 2, 0)
    assert by_pods(10, 10, 90, 1, Side(9, 10, 0), cut).weight == 90
    assert by_pods(10, 10, 90, 1, Side(9, 10, 0), Side(10, 10, 0)).weight == 0
    assert by_pods(10, 10, 100, 1, Side(9, 10, 0), cut).weight == 81, "not 100: both are needed"
    assert by_pods(10, 2, 100, 10, Side(9, 10, 0), cut).weight == 81
    assert by_pods(10, 2, 100, 10, Side(10, 10, 0), cut).weight == 100


def test_by_pods_a_side_alone_at_weight_100_leaves_the_other_whole() -> None:
    assert by_pods(10, 10, 100, 1, Side(10, 10, 0), Side(10, 10, 0)).outgoing == 10


@given(TOTALS, st.integers(0, 30), st.integers(0, 30))
def test_by_pods_what_was_cut_gets_back_what_the_other_side_lost(
    total: int, available: int, kept: int
) -> None:
    available, kept = min(available, total), min(kept, total)
    found = by_pods(total, total, 90, 1, Side(available, total, 0), Side(kept, kept, 0))
    assert available + found.outgoing >= total
    assert available == total or found.outgoing >= kept
