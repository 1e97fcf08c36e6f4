"""What the collector exports is what the operator asks for, label by label."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from prometheus_client.parser import text_string_to_metric_families
from tests.collector.references import answer, exchange, exposed, infer, telemetry
from tests.collector.test_labels import label

from mooring.core.retrain import measuring
from mooring.core.router_counters import ScrapeLabels
from mooring.core.telemetry import Part, Watched, query

QUESTION = query([Watched("shop", "fraud")], Part(0.0, 3600.0, 3600.0))
READ = {"requests", "rows", "feature_rows", "output_rows", "violations"}


def test_every_label_of_a_counter_is_kept_apart_by_the_question() -> None:
    found = telemetry()
    for traffic in ("live", "shadow", "match"):
        found.count("aa", traffic, exchange(infer([1, 2, 3]), answer(0.5)), 0.0)
    found.count("aa", "live", exchange(b"what?", answer(0.5)), 0.0)
    text = exposed(found)
    kept = set(QUESTION.split("max by (", 1)[1].split(")", 1)[0].split(","))
    seen = set()

    for family in text_string_to_metric_families(text):
        name = family.name.removeprefix("mooring_telemetry_")
        if name in READ:
            seen.add(name)
            assert {label for one in family.samples for label in one.labels} <= kept, name
            assert all("life" in one.labels for one in family.samples)

    assert {"requests", "rows", "feature_rows", "output_rows"} <= seen


def test_what_was_true_is_kept_apart_in_the_place_of_a_requests_kind() -> None:
    found = telemetry()
    found.count("aa", "live", exchange(infer([1, 2, 3]), answer(0.5)), 0.0)
    for true in (0, 1, True, False, 2.5, 7):
        label(found, revision="aa", score=0.5, label=true)
    assert "label_replace(label_replace(last_over_time(" in QUESTION
    assert '"kind","$1","label","(.+)")' in QUESTION
    (pattern,) = set(re.findall('label=~"([^"]+)"', QUESTION))
    kept = set(QUESTION.split("max by (", 1)[1].split(")", 1)[0].split(","))

    (outcomes,) = (
        one for one in text_string_to_metric_families(exposed(found))
        if one.name == "mooring_telemetry_outcomes"
    )  # fmt: skip

    assert {one.labels["label"] for one in outcomes.samples} == {"0", "1", "(number)"}
    for one in outcomes.samples:
        assert re.fullmatch(pattern, one.labels["label"]), one
        assert set(one.labels) <= kept | {"label"}
        assert "kind" not in one.labels
    assert re.fullmatch(pattern, ""), "all other counters have no label"


def test_a_collector_that_nobody_has_asked_is_seen_to_be_there() -> None:
    text = exposed(telemetry())

    (rows,) = [line for line in text.splitlines() if line.startswith("mooring_telemetry_rows")]
    assert rows.endswith(',revision=""} 0')


def test_every_counter_of_labels_is_asked_for_with_all_that_tells_its_series_apart() -> None:
    found = telemetry()
    found.count("aa", "live", exchange(infer([1, 2, 3]), answer(0.5)), 0.0)
    label(found, revision="aa", score=0.5, label=1)
    what = measuring.Measurement("aa", "r", timedelta(hours=1), "shop", "fraud")
    text = measuring.query(what, datetime(2026, 1, 1, tzinfo=UTC), ScrapeLabels())
    (names,) = set(re.findall('__name__=~"([^"]+)"', text))
    kept = set(text.split("max by (", 1)[1].split(")", 1)[0].split(","))
    asked = []

    for family in text_string_to_metric_families(exposed(found)):
        if re.fullmatch(names, f"{family.name}_total"):
            asked.append(family.name)
            for one in family.samples:
                # Of one revision; what shadows and matched requests were answered is not asked for.
                assert set(one.labels) <= kept | {"revision", "traffic"}, one

    assert {name.removeprefix("mooring_telemetry_") for name in asked} == {
        "outcomes", "output_rows", "labelled_rows", "absolute_errors", "squared_errors",
        "quartic_errors",
    }  # fmt: skip
