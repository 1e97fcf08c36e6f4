"""What the collector exports is what the operator asks for, label by label."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families
from tests.collector.references import answer, exchange, exposed, infer, telemetry

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


def test_a_collector_that_nobody_has_asked_is_seen_to_be_there() -> None:
    text = exposed(telemetry())

    (rows,) = [line for line in text.splitlines() if line.startswith("mooring_telemetry_rows")]
    assert rows.endswith(',revision=""} 0')
