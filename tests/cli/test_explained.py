"""What ``mooring explain`` prints of a diagnosis: a cause is told once."""

from __future__ import annotations

import pytest
from rich.console import Console

from mooring.cli.diagnosis import Diagnosis, Finding
from mooring.cli.explain import show, without_repetition

CAUSE = "errors: 43.64% of the attempts fail against 0.00% on stable, over 55 requests"


def test_a_condition_and_an_event_of_the_same_cause_tell_it_once() -> None:
    found = Diagnosis(
        ready=True,
        headline="fraud is Ready: 2 of 2 pods serve.",
        findings=(
            Finding("Stalled", "RevisionRejected", f"revision b was rejected: {CAUSE}; retry it"),
            Finding("RolledBack", "AnalysisFailed", f"revision b was taken back: {CAUSE}"),
        ),
        events=(f"12:00:00Z RevisionRejected: revision b: {CAUSE}",),
        next=("read its numbers",),
    )
    out = Console(width=200, no_color=True)
    with out.capture() as captured:
        show(found, out)
    text = captured.get()
    assert text.count(CAUSE) == 1
    assert "Stalled  RevisionRejected: revision b was rejected: errors: 43.64%" in text
    assert "RolledBack  AnalysisFailed: revision b was taken back (see above)\n" in text
    assert "12:00:00Z RevisionRejected: revision b (see above)\n" in text


@pytest.mark.parametrize(
    "text",
    [
        "revision b: another cause that is long enough to be told",
        "revision b: a short one",
        "no colon at all",
        "ends with a colon: ",
        CAUSE.replace("55 requests", "5"),
    ],
)
def test_what_was_not_said_or_is_short_stays_whole(text: str) -> None:
    assert without_repetition(text, ["revision a: a short one", CAUSE]) == text
