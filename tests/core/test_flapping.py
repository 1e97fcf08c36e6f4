"""Measurements that go to and fro round their threshold move no traffic to and fro."""

from __future__ import annotations

from itertools import groupby

import pytest
from tests.core.test_evidence import judged

Share = tuple[tuple[str, int], ...]


def _life(flaps: tuple[float, ...], *, restarts: bool) -> tuple[list[Share], list[str], str]:
    """A candidate whose errors flap, tick by tick: the shares one after the other, the rejections
    that were told, and the last phase. With ``restarts`` the operator forgets all every third tick
    (two scrapes make a count, so one that never lives through two would only hold).
    """
    world, stable, candidate, traffic = judged()
    traffic.errors[stable] = 0.03
    shares: list[Share] = []
    for tick in range(40):
        traffic.errors[candidate] = flaps[tick % len(flaps)]
        if restarts and tick % 3 == 2:
            traffic.remembered = world.evidence = None
            world.connected_since = world.now
        traffic.tick()
        for revision in world.revisions():
            world.run_pods(revision)
        shares.append(tuple(sorted(world.route().items())))
    rejected = [line.split("; ")[0][:60] for line in world.told if "RevisionRejected" in line]
    return [share for share, _ in groupby(shares)], rejected, world.status["phase"]


@pytest.mark.parametrize(
    "flaps",
    [
        (0.02, 0.07),  # 0.045 in the middle: 1.5 times stable's 0.03, where the threshold is
        (0.0, 0.0, 0.0, 0.18),
        (0.04, 0.05),
        (0.02, 0.03),
        (0.05, 0.09),
    ],
)
def test_flapping_round_the_threshold_decides_once_with_and_without_restarts_in_between(
    flaps: tuple[float, ...],
) -> None:
    for restarts in (False, True):
        shares, rejected, phase = _life(flaps, restarts=restarts)
        assert len(set(shares)) == len(shares), "no share comes back once it was left"
        assert len(rejected) <= 1
        assert (len(rejected) == 1) == (phase == "Stalled")
