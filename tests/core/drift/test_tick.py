"""Window after window of one deployment: what is concluded, remembered and told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tests.core.drift.collected import HOUR, ROWS, STABLE, cells, reference, spec, traffic

from mooring.api.conditions import DATA_HEALTHY, DRIFTED
from mooring.api.modeldeployment_status import ModelDeploymentStatus
from mooring.core.conditions import Finding
from mooring.core.drift.memory import MOST_REVISIONS, PLOTTED, Memory
from mooring.core.drift.rebase import spans
from mooring.core.drift.tick import Earlier, begun, judge, rebasing, skipped, unread
from mooring.core.drift.watch import Watch
from mooring.core.monitoring import Report
from mooring.core.telemetry import Counted, joined

WATCH = Watch(spec(), STABLE)


def followed(
    windows: dict[int, Counted], watch: Watch = WATCH, restart: bool = False
) -> list[tuple[Memory, Report]]:
    """Every window judged in turn; with ``restart`` all is written down and read between them."""
    memory, report = begun(min(windows) * HOUR, (min(windows) + 1) * HOUR)
    found = []
    for hour, counted in windows.items():
        span = hour * HOUR, (hour + 1) * HOUR
        memory, report = judge(watch, reference(), counted, memory, report, *span)
        if restart:
            memory = Memory.from_bytes(memory.to_bytes())
            report = Report.from_text(report.to_text())
        found.append((memory, report))
    return found


def states(found: list[tuple[Memory, Report]]) -> list[str]:
    return [report.drift["state"] for _, report in found]


def test_the_same_traffic_for_two_days_raises_no_alarm() -> None:
    found = followed({hour: traffic(hour) for hour in range(1, 49)})

    assert set(states(found)) == {"Steady"}
    assert all(report.conditions[DRIFTED].status == "False" for _, report in found)
    assert all(report.conditions[DATA_HEALTHY].status == "True" for _, report in found)


def test_a_lasting_shift_drifts_names_the_feature_and_where_it_began() -> None:
    found = followed({h: traffic(h, shift=0.5 if h >= 6 else 0.0) for h in range(1, 13)})

    _, report = found[-1]
    assert report.drift["state"] == "Drifted"
    assert report.conditions[DRIFTED].status == "True"
    assert "amount (sudden, PSI 0.2" in report.conditions[DRIFTED].message
    assert report.facts is not None
    assert report.facts.features == ("amount",)
    assert report.facts.change_point is not None
    assert report.facts.change_point.timestamp() == 6 * HOUR
    assert report.facts.healthy


def test_an_episode_keeps_its_number_until_the_alarm_ends_and_the_next_one_has_another() -> None:
    shifts = {**dict.fromkeys(range(4, 10), 0.8), **dict.fromkeys(range(24, 30), 0.8)}
    found = followed({h: traffic(h, shift=shifts.get(h, 0.0)) for h in range(1, 30)})

    facts = [report.facts for _, report in found if report.facts and report.facts.drifted]
    episodes = [one.episode for one in facts]
    assert len(set(episodes)) == 2
    assert episodes == sorted(episodes)
    assert 0 not in episodes
    assert states(found)[22] == "Steady"


def test_half_of_a_feature_missing_is_broken_data_and_never_drift() -> None:
    found = followed({h: traffic(h, missing=0.5 if h >= 4 else 0.0) for h in range(1, 20)})

    _, report = found[-1]
    assert report.conditions[DATA_HEALTHY].status == "False"
    assert report.conditions[DATA_HEALTHY].reason == "Missing"
    assert "amount is missing (2000 rows); 1.0% is tolerated" in report.drift["message"]
    assert report.conditions[DRIFTED].status == "False"
    assert report.facts is not None
    assert not report.facts.drifted
    assert not report.facts.healthy
    ((began, ended),) = report.facts.unhealthy_windows
    assert (began.timestamp(), ended.timestamp()) == (4 * HOUR, 20 * HOUR)


def test_a_restart_between_any_two_windows_changes_nothing() -> None:
    windows = {
        h: traffic(h, shift=0.3 if h >= 6 else 0.0, missing=0.4 if h == 9 else 0.0)
        for h in range(1, 15)
    }

    assert followed(windows, restart=True) == followed(windows)


def test_answers_of_stable_that_change_are_drift_and_those_of_a_candidate_are_shown_only() -> None:
    def windows(revision: str) -> dict[int, Counted]:
        return {
            h: traffic(h, score_shift=0.15 if h >= 4 else 0.0, revision=revision)
            for h in range(1, 16)
        }

    _, stable = followed(windows(STABLE))[-1]
    _, candidate = followed(windows("candidate"))[-1]

    assert stable.facts is not None
    assert stable.facts.features == ("score@abc",)
    assert "the answers' score" in stable.drift["message"]
    assert candidate.drift["state"] == "Steady"
    assert candidate.drift["features"][0]["revision"] == "candidate"
    assert candidate.drift["features"][0]["state"] == "Drifted"


def test_answers_that_lose_their_variety_step_by_step_are_told_of_and_steady_ones_are_not() -> None:
    def narrower(hour: int, width: float) -> Counted:
        score = np.clip(0.28 + (np.random.default_rng(hour).beta(2, 5, ROWS) - 0.28) * width, 0, 1)
        (output,) = reference().outputs
        counted = {(STABLE, "score"): cells(output.grid.count(score))}
        return traffic(hour, outputs={reference().grid_hash: counted})

    narrow = followed({h: narrower(h, 1 - 0.06 * h) for h in range(1, 13)}, restart=True)
    steady = followed({h: narrower(h, 0.4) for h in range(1, 13)})

    words = "the answers lose their variety from window to window: score ("
    assert words in narrow[-1][1].conditions[DRIFTED].message
    assert all(words not in report.conditions[DRIFTED].message for _, report in steady)
    _, other = judge(
        Watch(spec(), "def"), reference(), traffic(13, revision="def"), *narrow[-1], 13 * HOUR,
        14 * HOUR,
    )  # fmt: skip
    assert words not in other.conditions[DRIFTED].message


def test_a_new_revision_begins_its_variety_anew_also_when_it_answers_a_window_later() -> None:
    def answers(hour: int, revision: str, width: float) -> Counted:
        score = np.clip(0.28 + (np.random.default_rng(hour).beta(2, 5, ROWS) - 0.28) * width, 0, 1)
        (output,) = reference().outputs
        counted = {(revision, "score"): cells(output.grid.count(score))}
        return traffic(hour, outputs={reference().grid_hash: counted})

    memory, report = begun(HOUR, 2 * HOUR)
    for hour in range(1, 20):
        watch = Watch(spec(), "old" if hour < 10 else "new")  # the tenth window holds old answers
        counted = answers(hour, "old", 1.0) if hour < 11 else answers(hour, "new", 0.45)
        span = hour * HOUR, (hour + 1) * HOUR
        memory, report = judge(watch, reference(), counted, memory, report, *span)
        assert "lose their variety" not in report.conditions[DRIFTED].message


def test_only_the_last_revisions_are_remembered() -> None:
    found = followed({h: traffic(h, revision=f"r{h}") for h in range(1, 12)}, Watch(spec(), None))

    assert len(found[-1][0].outputs) == MOST_REVISIONS
    assert "r11" in found[-1][0].outputs


def test_without_scrapes_nothing_is_concluded_and_an_alarm_stays() -> None:
    *_, (memory, report) = followed({h: traffic(h, shift=0.8) for h in range(1, 10)})

    after, told = judge(WATCH, reference(), Counted(), memory, report, 10 * HOUR, 11 * HOUR)

    assert after == replace(memory, last_end=11 * HOUR, past=after.past)
    assert told.conditions[DATA_HEALTHY].reason == "NotScraped"
    assert told.conditions[DATA_HEALTHY].status == "Unknown"
    assert told.conditions[DRIFTED].status == "True"
    assert told.facts is not None
    assert told.facts.drifted
    assert not told.facts.healthy


def test_counts_that_cannot_be_told_from_earlier_ones_are_not_used() -> None:
    _, report = followed({1: traffic(1, gap=True)})[0]

    assert report.drift["state"] == "NoData"
    assert "cannot be told apart" in report.conditions[DRIFTED].message


def test_counts_of_another_grid_are_not_compared() -> None:
    other = traffic(1, features={"0123456789abcdef": {"amount": {0: 5.0}}}, outputs={})

    _, report = followed({1: other})[0]

    assert report.conditions[DATA_HEALTHY].reason == "WrongGrid"
    assert report.conditions[DATA_HEALTHY].message == (
        "the collector counts on grid 0123456789abcdef, but ConfigMap fraud-reference holds "
        f"{reference().grid_hash}: if that was just named, the next window can be judged; if it "
        "was made anew under its old name, the collector keeps the old one: build it under a new "
        "name, and set spec.monitoring.reference.configMap to that"
    )


def test_a_reference_of_another_model_is_said_to_be_one() -> None:
    foreign = traffic(1, features={}, outputs={}, violations={"colour": {"schema": 2000.0}})

    _, report = followed({1: foreign})[0]

    assert report.conditions[DATA_HEALTHY].reason == "ReferenceOfAnotherModel"
    assert "2 of 2 features of ConfigMap fraud-reference" in (
        report.conditions[DATA_HEALTHY].message
    )
    assert report.conditions[DRIFTED].status == "False"


def test_one_whose_features_are_all_missing_from_the_bodies_is_another_model_s_too() -> None:
    first, second = reference().features
    grid = reference().grid_hash
    lost = {
        "amount": {first.grid.missing: 2000.0},
        "branch": {second.grid.missing: 2000.0},
    }

    _, report = followed({1: traffic(1, features={grid: lost}, outputs={})})[0]

    assert report.conditions[DATA_HEALTHY].reason == "ReferenceOfAnotherModel"


def test_a_stray_tensor_is_no_finding_and_one_in_many_requests_is() -> None:
    def told(rows: float) -> str:
        counted = traffic(1, violations={"colour": {"schema": rows}, "(answer)": {"schema": 50.0}})
        return followed({1: counted})[0][1].conditions[DATA_HEALTHY].message

    assert "no expectation is broken" in told(5.0)
    assert "colour is sent, but the reference does not know it" in told(500.0)


def test_an_output_of_another_length_than_its_answer_is_no_unknown_feature() -> None:
    counted = traffic(1, violations={"score": {"schema": 500.0}})

    _, report = followed({1: counted})[0]

    assert "no expectation is broken" in report.conditions[DATA_HEALTHY].message


def test_half_of_the_bodies_unreadable_is_a_finding_though_each_of_the_others_has_many_rows() -> (
    None
):
    _, report = followed({1: traffic(1, requests={"answered": 20.0, "unparsed": 20.0})})[0]

    assert report.conditions[DATA_HEALTHY].reason == "Schema"
    assert "50.0% of the bodies is unreadable" in report.conditions[DATA_HEALTHY].message


def test_requests_of_which_no_row_was_counted_say_what_became_of_them() -> None:
    lost = {"unparsed": 90.0, "failed": 10.0}

    _, report = followed({1: traffic(1, rows=0, requests=lost, features={}, outputs={})})[0]
    _, silent = followed({1: traffic(1, rows=0, requests={}, features={}, outputs={})})[0]

    assert report.conditions[DATA_HEALTHY].reason == "NothingCounted"
    assert report.conditions[DATA_HEALTHY].message == (
        "of 100 requests in the last window no row was counted: 90 could not be read as what the "
        "runtime's protocol says, 10 had no answer of 2xx"
    )
    assert report.facts is None or not report.facts.healthy
    assert silent.conditions[DATA_HEALTHY].reason == "NoTraffic"


def test_a_name_that_the_reference_does_not_know_is_told_before_anything_is_judged() -> None:
    watch = Watch(spec(features=[{"name": "amount"}, {"name": "colour"}]), STABLE)

    _, report = followed({1: traffic(1)}, watch)[0]

    assert report.conditions[DRIFTED].reason == "ReferenceUnsuitable"
    assert "does not know colour" in report.conditions[DRIFTED].message


def test_features_that_are_listed_are_the_only_ones_and_excluded_ones_are_left_out() -> None:
    listed = Watch(spec(features=[{"name": "amount"}]), STABLE)
    excluded = Watch(spec(features=[{"name": "amount", "exclude": True}]), STABLE)

    assert [one.name for one in listed.watched(reference())] == ["amount"]
    assert [one.name for one in excluded.watched(reference())] == ["branch"]


def test_a_few_rows_are_too_few_and_say_how_many_are_needed() -> None:
    _, report = followed({1: traffic(1, rows=5)})[0]

    assert report.drift["state"] == "InsufficientData"
    assert "at least" in report.drift["message"]
    assert report.conditions[DRIFTED].status == "False"


def test_a_window_that_cannot_be_read_waits_and_keeps_what_is_known() -> None:
    *_, (_, report) = followed({h: traffic(h, shift=0.8) for h in range(1, 10)})
    problem = Finding("PrometheusUnavailable", "it is down", "Unknown")

    waiting = unread(report, problem)

    assert waiting.drift == {**report.drift, "message": "it is down"}
    assert waiting.conditions[DRIFTED] == report.conditions[DRIFTED]
    assert waiting.facts is not None
    assert not waiting.facts.healthy


def test_another_reference_begins_anew() -> None:
    *_, (memory, report) = followed({h: traffic(h, shift=0.8) for h in range(1, 10)})
    rebuilt = replace(reference(), source={"file": "v2"})

    after, told = judge(WATCH, rebuilt, traffic(10), memory, report, 10 * HOUR, 11 * HOUR)

    assert after.reference == rebuilt.hash != memory.reference
    assert told.drift["state"] == "Steady"
    assert told.facts is not None
    assert told.facts.episode == 0


def test_a_day_with_a_season_is_steady_against_the_same_hours_and_drifts_when_it_moves() -> None:
    day = 24
    watch = Watch(
        spec(reference={"configMap": "fraud-reference", "seasonal": {"offset": "24h", "weeks": 3}}),
        STABLE,
    )

    def of(hour: int, moved: float = 0.0) -> Counted:
        swing = 0.5 if hour % day < 12 else -0.5
        return traffic(hour, shift=swing + moved)

    def run(moved: float) -> Report:
        memory, report = begun(4 * day * HOUR, (4 * day + 1) * HOUR)
        for hour in range(4 * day, 4 * day + 20):
            earlier = [
                Earlier(at * HOUR, (at + 1) * HOUR, of(at))
                for back in (1, 2, 3)
                for at in (hour - back * day - 1, hour - back * day, hour - back * day + 1)
            ]
            memory, report = judge(
                watch, reference(), of(hour, moved), memory, report,
                hour * HOUR, (hour + 1) * HOUR, earlier,
            )  # fmt: skip
        return report

    assert run(0.0).drift["state"] == "Steady"
    assert run(0.4).drift["state"] == "Drifted"


def test_what_is_told_fits_the_schema_of_status() -> None:
    found = followed({h: traffic(h, shift=0.8, missing=0.1) for h in range(1, 10)})
    found.append(skipped(*found[-1], Finding("NoData", "x", "Unknown"), 10 * HOUR, 11 * HOUR))

    for _, report in found:
        drift = ModelDeploymentStatus.model_validate({"drift": report.drift}).drift
        assert drift is not None
        assert (drift.state, drift.message) == (report.drift["state"], report.drift.get("message"))


def test_what_is_remembered_is_bounded() -> None:
    found = followed({h: traffic(h, shift=(h % 3) * 0.4) for h in range(1, 55)})

    assert len(found[-1][0].past) == PLOTTED
    assert len(found[-1][0].to_bytes()) < 8_000


def test_a_retrained_revision_is_compared_with_what_it_was_trained_on_and_the_alarm_ends() -> None:
    watch = Watch(spec(), "new", retrained=True)
    windows = {h: traffic(h, shift=0.6 if h >= 4 else 0.0) for h in range(1, 13)}
    memory, report = followed(windows)[-1]
    assert report.drift["state"] == "Drifted"
    wanted = rebasing(watch, memory, report, 13 * HOUR)
    fresh = joined(windows[h] for h in range(5, 13))

    span = 13 * HOUR, 14 * HOUR
    after, told = judge(
        watch, reference(), traffic(13, shift=0.6), memory, report, *span, fresh=fresh
    )

    assert wanted == ((5 * HOUR, 13 * HOUR),), "the window of the change holds both"
    assert told.drift["state"] == "Steady"
    assert told.facts is not None
    assert told.facts.episode == 0
    assert "the traffic that revision new was retrained on" in told.conditions[DRIFTED].message
    assert rebasing(watch, after, told, 14 * HOUR) == ()
    assert Memory.from_bytes(after.to_bytes()) == after
    back = after, told
    for hour in range(14, 18):  # and the world that was there before is now another one
        back = judge(watch, reference(), traffic(hour), *back, hour * HOUR, (hour + 1) * HOUR)
    assert back[1].drift["state"] == "Drifted"


def test_a_base_leaves_broken_windows_out_and_reaches_back_two_weeks_at_most() -> None:
    broken = ((5 * HOUR, 6 * HOUR), (7 * HOUR, 30 * HOUR))

    assert spans(4 * HOUR, 12 * HOUR, HOUR, broken) == (
        (4 * HOUR, 5 * HOUR),
        (6 * HOUR, 7 * HOUR),
    )
    assert spans(None, 100 * HOUR, HOUR, ()) == ((76 * HOUR, 100 * HOUR),)
    assert spans(0.0, 1000 * HOUR, HOUR, ()) == ((664 * HOUR, 1000 * HOUR),)


def test_too_few_rows_make_no_base_and_another_revision_puts_it_down() -> None:
    watch = Watch(spec(), "new", retrained=True)
    memory, report = followed({h: traffic(h, shift=0.6) for h in range(1, 9)})[-1]

    def next_hour(
        hour: int, asked: Watch, known: tuple[Memory, Report], fresh: Counted | None
    ) -> tuple[Memory, Report]:
        counted = traffic(hour, shift=0.6)
        span = hour * HOUR, (hour + 1) * HOUR
        return judge(asked, reference(), counted, *known, *span, fresh=fresh)

    few = next_hour(9, watch, (memory, report), traffic(8, shift=0.6, rows=900))
    assert few[0].base is None
    assert few[1].drift["state"] == "Drifted"
    enough = next_hour(10, watch, few, joined(traffic(h, shift=0.6) for h in range(1, 10)))
    assert enough[0].base is not None
    assert enough[1].drift["state"] == "Steady"
    undone = next_hour(11, Watch(spec(), STABLE), enough, None)
    assert undone[0].base is None


def test_a_drift_slower_than_a_seasonal_reference_is_found_over_whole_seasons() -> None:
    seasonal = {"configMap": "fraud-reference", "seasonal": {"offset": "24h", "weeks": 1}}
    watch = Watch(spec(reference=seasonal), STABLE)
    memory, report = begun(23 * HOUR, 24 * HOUR)
    told = []
    for day in range(1, 15):
        slow = 0.04 * day  # a day's step is far below the floor
        hour = 24 * day - 1
        earlier = [Earlier((hour - 24) * HOUR, (hour - 23) * HOUR,
                           traffic(hour + 1000, shift=slow - 0.04))]  # fmt: skip
        season = joined(traffic(24 * day + h, shift=slow) for h in range(6))
        memory, report = judge(
            watch, reference(), traffic(hour, shift=slow), memory, report,
            hour * HOUR, (hour + 1) * HOUR, earlier,
            seasons=[Earlier((hour - 23) * HOUR, (hour + 1) * HOUR, season)],
        )  # fmt: skip
        told.append(report)

    assert told[2].drift["state"] == "Steady"
    first = next(one for one in told if one.drift["state"] == "Drifted")
    assert "against the anchor" in first.drift["message"]
    assert first.facts is not None
    assert first.facts.features == ("amount",)


def test_a_status_that_was_lost_ends_no_episode() -> None:
    windows = {h: traffic(h, score_shift=0.15 if h >= 4 else 0.0) for h in range(1, 13)}
    memory, report = followed(windows)[-1]
    assert report.facts is not None

    after, told = judge(
        Watch(spec(), None), reference(), traffic(13, score_shift=0.15), memory, report,
        13 * HOUR, 14 * HOUR,
    )  # fmt: skip

    assert report.facts.features == ("score@abc",)
    assert told.facts is not None
    assert told.facts.features == ("score@abc",)
    assert told.facts.episode == report.facts.episode
    assert after.stable == STABLE


def test_a_pattern_that_is_none_is_told() -> None:
    watch = Watch(spec(features=[{"name": "branch", "pattern": "[a-z"}]), STABLE)

    _, report = followed({1: traffic(1)}, watch)[0]

    assert report.conditions[DATA_HEALTHY].reason == "PatternInvalid"
    assert "the pattern of feature branch" in report.drift["message"]


def test_a_pattern_of_re2_that_python_does_not_read_is_judged_by() -> None:
    watch = Watch(spec(features=[{"name": "branch", "pattern": r"\p{Ll}+"}]), STABLE)

    _, report = followed({1: traffic(1)}, watch)[0]

    assert report.conditions[DATA_HEALTHY].reason == "AsExpected"


def test_a_captured_reference_is_the_first_traffic_whatever_the_training_table_was() -> None:
    captured = {"configMap": "fraud-reference", "captured": {"window": "24h"}}
    watch = Watch(spec(reference=captured), STABLE)
    windows = {h: traffic(h, shift=0.5) for h in range(1, 40)}
    memory, report = begun(HOUR, 2 * HOUR)
    told = {}
    for hour, counted in windows.items():
        wanted = rebasing(watch, memory, report, hour * HOUR)
        fresh = joined(windows[h] for h in range(1, hour)) if wanted else None
        memory, report = judge(
            watch, reference(), counted, memory, report, hour * HOUR, (hour + 1) * HOUR,
            fresh=fresh,
        )  # fmt: skip
        told[hour] = report

    assert told[24].drift["state"] == "Drifted"
    assert {told[hour].drift["state"] for hour in range(25, 40)} == {"Steady"}
    assert memory.base is not None
    assert (memory.base.start, memory.base.end) == (HOUR, 25 * HOUR)
    assert "compared with the first traffic" in told[39].conditions[DRIFTED].message
    assert rebasing(watch, memory, report, 40 * HOUR) == ()
    other = judge(
        Watch(watch.spec, "git"), reference(), traffic(40, shift=0.5), memory, report,
        40 * HOUR, 41 * HOUR,
    )  # fmt: skip
    assert other[0].base == memory.base
