"""What a retrained model is compared with, once it is stable: its own data, its own answers."""

from __future__ import annotations

from dataclasses import replace

from tests.core.drift.collected import HOUR, reference, spec, traffic

from mooring.api.conditions import DATA_HEALTHY, DRIFTED
from mooring.core.drift.memory import Memory
from mooring.core.drift.rebase import after_change
from mooring.core.drift.state import SHAPE, FeatureState
from mooring.core.drift.tick import begun, judge, rebasing
from mooring.core.drift.watch import Watch
from mooring.core.monitoring import Report
from mooring.core.telemetry import Counted, joined

OLD, NEW = Watch(spec(), "abc"), Watch(spec(), "new", retrained=True)
SHIFT, PROMOTED = 0.8, 8


def followed(windows: dict[int, Counted]) -> tuple[Memory, dict[int, Report]]:
    """Every window judged, with the base read when it is asked for; ``new`` is stable at last."""
    memory, report = begun(HOUR, 2 * HOUR)
    told = {}
    for hour, counted in windows.items():
        watch = NEW if hour >= PROMOTED else OLD
        start, end = hour * HOUR, (hour + 1) * HOUR
        wanted = rebasing(watch, memory, report, start)
        fresh = joined(
            windows[h] for h in windows for a, b in wanted if a <= h * HOUR and (h + 1) * HOUR <= b
        )
        memory, report = judge(
            watch, reference(), counted, memory, report, start, end,
            fresh=fresh if wanted else None,
        )  # fmt: skip
        memory = Memory.from_bytes(memory.to_bytes())
        told[hour] = report
    return memory, told


def world(answers: float, later: float | None = None, rows: int = 2000) -> dict[int, Counted]:
    """The data changes in the middle of hour 4; from ``PROMOTED`` on another model answers."""
    windows = {h: traffic(h) for h in range(1, 4)}
    windows[4] = joined((traffic(4, rows=1000), traffic(104, rows=1000, shift=SHIFT)))
    windows |= {h: traffic(h, shift=SHIFT) for h in range(5, PROMOTED)}
    for hour in range(PROMOTED, 20):
        moved = later if later is not None and hour >= 14 else answers
        windows[hour] = traffic(hour, shift=SHIFT, score_shift=moved, revision="new", rows=rows)
    return windows


def test_a_model_that_never_answered_before_is_not_held_to_its_predecessors_answers() -> None:
    memory, told = followed(world(0.3))

    assert told[PROMOTED - 1].drift["state"] == "Drifted"
    for hour in range(PROMOTED, 20):
        assert told[hour].conditions[DRIFTED].status == "False", told[hour].drift["message"]
        assert told[hour].conditions[DATA_HEALTHY].status == "True"
    assert memory.base is not None
    assert memory.base.knows_answers


def test_its_first_answers_are_gathered_over_windows_of_little_traffic() -> None:
    memory, told = followed(world(0.3, rows=200))

    assert {told[hour].conditions[DRIFTED].status for hour in range(PROMOTED, 20)} == {"False"}
    assert memory.base is not None
    assert 500 <= sum(memory.base.outputs["score"]) < 1000


def test_when_its_own_answers_change_there_is_an_alarm() -> None:
    _, told = followed(world(0.0, later=0.3))

    assert told[13].drift["state"] == "Steady"
    assert told[19].drift["state"] == "Drifted"
    assert told[19].facts is not None
    assert told[19].facts.features == ("score@new",)


def test_the_window_in_which_the_data_changed_is_no_part_of_the_base() -> None:
    memory, _ = followed(world(0.0))

    assert memory.base is not None
    assert memory.base.start == 5 * HOUR
    assert sum(memory.base.counts["amount"]) == 3 * 2000


def test_there_is_no_base_until_a_window_after_the_change_is_over() -> None:
    assert after_change(4 * HOUR, 5 * HOUR, HOUR) is None
    assert after_change(4 * HOUR, 6 * HOUR, HOUR) == 5 * HOUR


def test_a_feature_whose_sum_was_just_above_0_does_not_bring_the_old_world_into_the_base() -> None:
    windows = {h: traffic(h, shift=SHIFT if h >= 5 else 0.0) for h in range(1, 8)}
    memory, report = begun(HOUR, 2 * HOUR)
    for hour, counted in windows.items():
        memory, report = judge(OLD, reference(), counted, memory, report, hour * HOUR,
                               (hour + 1) * HOUR)  # fmt: skip
    amount = memory.features.features["amount"]
    early = FeatureState({SHAPE: replace(amount.streams[SHAPE], zero_at=4 * HOUR)})
    both = {"amount": amount, "branch": early}
    memory = replace(memory, features=replace(memory.features, features=both))

    assert rebasing(NEW, memory, report, 8 * HOUR) == ((6 * HOUR, 8 * HOUR),)
