"""Delayed labels: joined by id in bounded memory, or counted as late, unknown or refused."""

from __future__ import annotations

import asyncio
import math
import re
from typing import Any

import httpx
import numpy as np
import pytest
from tests.collector.references import answer, exchange, infer, reference, telemetry

from mooring.core.drift.building import categorical_grid
from mooring.core.drift.reference import Reference, feature_reference
from mooring.core.retrain.figures import measured
from mooring.core.retrain.measuring import Labels
from mooring_collector.app import MOST_FEEDBACK_BYTES, MOST_HELD_BYTES, Application
from mooring_collector.feedback import Feedback, InvalidFeedback, Prediction, Waiting, read_feedback
from mooring_collector.service import Service
from mooring_collector.settings import Bounds
from mooring_collector.telemetry import Telemetry, Traffic

SCORE = reference().outputs[0].grid


def observed(found: Telemetry, name: str, *scores: float, at: float = 0.0,
             revision: str = "aa", traffic: Traffic = "live") -> None:  # fmt: skip
    body = infer(*[[1, 2, 3]] * len(scores), id=name)
    found.count(revision, traffic, exchange(body, answer(*scores)), at)


def label(found: Telemetry, at: float = 1.0, **piece: Any) -> list[str]:
    return [taken(found, one, at) for one in read_feedback(piece)]


def taken(found: Telemetry, one: Feedback, at: float) -> str:
    try:
        return found.label(one, at)
    except InvalidFeedback as refusal:
        return str(refusal)


def kinds() -> Reference:
    """The reference of a model that answers with classes."""
    texts = ["cat"] * 700 + ["dog"] * 300
    output = feature_reference(categorical_grid("kind", texts), texts, "string")
    return Reference(reference().features, (output,))


def outcomes(found: Telemetry, revision: str = "aa") -> dict[tuple[str, int, str], int]:
    return dict(found.revision(revision).outcomes.counts)


def test_a_label_is_counted_at_the_cell_of_its_score_and_revision() -> None:
    found = telemetry(feedback={"maturity": 60})
    observed(found, "one", 0.25)
    observed(found, "two", 0.75, revision="bb")
    assert label(found, id="one", label=True) == ["joined"]
    assert label(found, id="two", label=0) == ["joined"]
    assert outcomes(found) == {("score", SCORE.cells and _cell(0.25), "1"): 1}
    assert outcomes(found, "bb") == {("score", _cell(0.75), "0"): 1}


def _cell(score: float) -> int:
    return int(SCORE.count(np.array([score])).argmax())


def test_rows_of_one_request_have_labels_of_their_own() -> None:
    found = telemetry(feedback={"maturity": 60})
    observed(found, "one", 0.25, 0.5, 0.75)
    assert label(found, id="one", labels=[1, None, 0]) == ["joined", "joined"]
    assert outcomes(found) == {("score", _cell(0.25), "1"): 1, ("score", _cell(0.75), "0"): 1}


def test_a_second_label_of_a_prediction_is_unknown_so_nothing_counts_twice() -> None:
    found = telemetry(feedback={"maturity": 60})
    observed(found, "one", 0.25)
    assert label(found, id="one", label=1) + label(found, id="one", label=1) == [
        "joined",
        "unknown",
    ]


def test_labels_after_their_time_are_late_and_of_others_unknown() -> None:
    found = telemetry(feedback={"maturity": 60})
    observed(found, "one", 0.25)
    assert label(found, 61.0, id="one", label=1) == ["late"]
    assert label(found, id="nobody", label=1) == ["unknown"]
    assert outcomes(found) == {}


def test_the_requests_header_names_it_where_its_body_does_not() -> None:
    found = telemetry(feedback={"maturity": 60})
    found.count("aa", "live", exchange(infer([1, 2, 3]), answer(0.5), request_id="h"), 0.0)
    assert label(found, id="h", label=1) == ["joined"]


def test_what_a_shadow_answered_gets_the_label_too() -> None:
    found = telemetry(feedback={"maturity": 60})
    observed(found, "one", 0.25)
    observed(found, "one", 0.75, revision="bb", traffic="shadow")
    assert label(found, id="one", label=True) == ["joined"]
    assert outcomes(found) == {("score", _cell(0.25), "1"): 1}
    assert outcomes(found, "bb") == {("score", _cell(0.75), "1"): 1}


def test_a_label_that_only_a_copys_answer_does_not_take_was_joined() -> None:
    found = telemetry(feedback={"maturity": 60})
    observed(found, "one", 0.25)
    observed(found, "one", math.nan, revision="bb", traffic="shadow")
    assert label(found, id="one", label=1) == ["joined"]
    assert found.revision("bb").feedback == {"refused": 1}


def test_where_no_prediction_waits_an_id_is_refused_and_told_what_to_set() -> None:
    found = telemetry()
    observed(found, "one", 0.25)
    (said,) = label(found, id="one", label=1)
    assert "set spec.monitoring.groundTruth" in said
    assert found.revision("").feedback == {"refused": 1}


def test_feedback_that_carries_its_score_and_revision_needs_no_memory() -> None:
    found = telemetry()
    found.revision("aa")
    assert label(found, revision="aa", score=0.25, label=1) == ["joined"]
    assert label(found, revision="zz", score=0.25, label=1) == ["unknown"]
    (wrong,) = label(found, revision="aa", score="much", label=1)
    assert wrong == "output score is a number: a score of it is one"
    (other,) = label(found, revision="aa", output="other", score=0.25, label=1)
    assert other == "output is one of score"
    assert found.revision("aa").feedback == {"joined": 1, "refused": 2}
    assert outcomes(found) == {("score", _cell(0.25), "1"): 1}


def test_a_flood_of_labels_ends_in_one_series() -> None:
    found = telemetry(kinds(), bounds=Bounds(names=3))
    found.revision("aa")
    for number in range(50):
        label(found, revision="aa", score="cat", label=f"l{number}")
    assert {name for _, _, name in outcomes(found)} == {"l0", "l1", "l2", "(other)"}


def classifier(classes: int) -> Reference:
    """The reference of a model of so many classes, all as frequent."""
    texts = [f"class{number:02d}" for number in range(classes)] * 20
    output = feature_reference(categorical_grid("kind", texts), texts, "string")
    return Reference(reference().features, (output,))


@pytest.mark.parametrize(("classes", "mistyped"), [(40, 0), (64, 0), (10, 20), (40, 100)])
def test_a_right_classifier_is_right_however_many_classes_and_mistyped_labels_there_are(
    classes: int, mistyped: int
) -> None:
    known = classifier(classes)
    found = telemetry(known)
    found.revision("aa")
    for number in range(mistyped):
        label(found, revision="aa", score="class00", label=f"clas{number}")
    names = known.outputs[0].grid.categories
    for name in names * 20:
        assert label(found, revision="aa", score=name, label=name) == ["joined"]
    labelled = {key: float(count) for key, count in outcomes(found).items()}
    predicted = {("kind", cell): 20.0 for cell in range(classes)}
    predicted["kind", 0] += mistyped

    accuracy = measured(Labels(predicted, labelled), known).metrics["accuracy"]

    right = classes * 20
    assert accuracy.value == pytest.approx(right / (right + mistyped))
    assert accuracy.samples == right + mistyped
    # Beside its classes 20 texts and "(other)".
    assert len({text for _, _, text in labelled} - set(names)) == min(mistyped, 21)


def test_labels_that_are_no_class_are_told_apart_for_each_output() -> None:
    known = Reference(reference().features, (*kinds().outputs, *reference().outputs))
    found = telemetry(known, bounds=Bounds(names=2))
    found.revision("aa")
    for text in ("cow", "hen", "pig"):
        label(found, revision="aa", output="kind", score="cat", label=text)
    label(found, revision="aa", output="score", score=0.25, label=1)
    assert {(output, text) for output, _, text in outcomes(found)} == {
        ("kind", "cow"), ("kind", "hen"), ("kind", "(other)"), ("score", "1"),
    }  # fmt: skip


def test_an_id_that_comes_again_takes_its_own_place_and_not_a_free_one_before_it() -> None:
    waiting = Waiting(4, 1)  # one set of four places
    for place in range(4):
        waiting.put(str(place), 0, (place,), float(place))
    for early in range(3):
        assert waiting.take(str(early)) is not None
        waiting.put("3", 0, (7 + early,), 4.0 + early)
    assert waiting.take("3") == Prediction(0, (9,), 6.0)
    assert waiting.take("3") is None


def test_a_free_place_is_taken_before_the_oldest_prediction_also_at_the_clocks_beginning() -> None:
    waiting = Waiting(4, 1)
    for place in range(4):
        waiting.put(str(place), 0, (place,), 0.0)
    assert all(waiting.take(str(place)) is not None for place in range(4))


def test_the_oldest_predictions_make_room_and_memory_stays_as_it_is() -> None:
    waiting = Waiting(1024, 1)
    for number in range(10_000):
        waiting.put(str(number), 0, (number % 60,), float(number))
    found = [number for number in range(10_000) if waiting.take(str(number)) is not None]
    assert len(found) <= 1024
    assert len(found) > 900
    # Four places for each id: whatever was lost late, nothing very old stays.
    assert min(found) > 10_000 - 8 * 1024


def test_cells_come_back_as_they_were_put() -> None:
    waiting = Waiting(64, 3, 1)
    waiting.put("a", 7, (0, -1, 65_000), 1.5, [0.1])
    assert waiting.take("b") is None
    assert waiting.take("a") == Prediction(7, (0, -1, 65_000), 1.5, (0.1,))
    assert waiting.take("a") is None


@pytest.mark.parametrize(
    ("piece", "sentence"),
    [
        (3, "an object"),
        ({}, "neither the id"),
        ({"id": 3, "label": 1}, "are texts"),
        ({"id": "x" * 300, "label": 1}, "at most 256"),
        ({"id": "x"}, "a label is a text"),
        ({"id": "x", "label": math.nan}, "is finite"),
        ({"id": "x", "label": 10**400}, "is finite"),
        ({"id": "x", "label": ""}, "a label is a text"),
        ({"id": "x", "label": {"a": 1}}, "a label is a text"),
        ({"id": "x", "labels": []}, "a list of 1 to 64"),
        ({"score": 0.5, "label": 1}, "names its revision"),
        ({"score": [1], "revision": "a", "label": 1}, "a number or a text"),
    ],
)
def test_feedback_that_is_none_is_refused_in_a_sentence(piece: Any, sentence: str) -> None:
    with pytest.raises(InvalidFeedback, match=sentence):
        read_feedback(piece)


# --- over HTTP --------------------------------------------------------------------------------


def client(found: Telemetry) -> httpx.AsyncClient:
    application = Application(Service(found, Bounds()))
    transport = httpx.ASGITransport(application)
    return httpx.AsyncClient(transport=transport, base_url="http://collector")


async def test_feedback_over_http_says_what_became_of_each_piece() -> None:
    found = telemetry(feedback={"maturity": 60})
    observed(found, "one", 0.25, at=10**9)  # in the future of the clock: never late
    async with client(found) as http:
        answered = await http.post(
            "/feedback", json=[{"id": "one", "label": 1}, {"id": "?", "label": 1}, {"id": "x"}]
        )
        text = re.sub(r'life="[0-9.]+",', "", (await http.get("/metrics")).text)
    assert answered.status_code == 200
    said = answered.json()
    assert {key: said[key] for key in ("joined", "late", "unknown", "refused")} == {
        "joined": 1, "late": 0, "unknown": 1, "refused": 1,
    }  # fmt: skip
    assert "a label is a text" in said["errors"][0]
    assert 'mooring_telemetry_feedback_total{revision="aa",result="joined"} 1' in text
    assert 'mooring_telemetry_feedback_total{revision="",result="unknown"} 1' in text


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), (b"[" * 300, 400), (b'{"id": "x"}', 400), (b"[]", 200), (b" " * 2_000_000, 413),
     (b"[" + b"1," * 20_000 + b"1]", 413)],
)  # fmt: skip
async def test_a_wrong_body_is_answered_and_counted(body: bytes, status: int) -> None:
    found = telemetry()
    async with client(found) as http:
        answered = await http.post("/feedback", content=body)
    assert answered.status_code == status
    refused = found.revisions[""].feedback["refused"] if "" in found.revisions else 0
    assert refused == (0 if status == 200 else 1)


async def test_other_paths_and_methods_are_told_what_there_is() -> None:
    async with client(telemetry()) as http:
        assert (await http.get("/")).status_code == 404
        assert (await http.get("/feedback")).status_code == 405
        assert (await http.post("/metrics")).status_code == 405
        assert (await http.get("/healthz")).json() == {"status": "ok"}
        assert "sampleStore" in (await http.get("/sample")).json()["error"]


# --- senders of any kind ------------------------------------------------------------------------


async def sent(application: Application, *parts: bytes, ends: bool = True) -> int:
    """The status of feedback that comes in parts, and may never end."""
    waiting = list(parts)
    answered: list[Any] = []

    async def receive() -> dict[str, Any]:
        if not waiting:
            await asyncio.Event().wait()
        part = waiting.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(waiting) or not ends}

    async def send(message: Any) -> None:
        answered.append(message)

    await application({"type": "http", "method": "POST", "path": "/feedback"}, receive, send)
    return int(answered[0]["status"])


async def test_feedback_that_does_not_end_is_given_up_and_counted() -> None:
    found = telemetry(feedback={"maturity": 60})
    application = Application(Service(found, Bounds()), body_seconds=0.05)
    assert await sent(application, b"[", ends=False) == 408
    assert found.revision("").feedback["refused"] == 1
    assert await sent(application, b"[", b"]") == 200


async def test_senders_who_never_end_hold_a_bounded_number_of_bytes_together() -> None:
    found = telemetry(feedback={"maturity": 60})
    application = Application(Service(found, Bounds()), body_seconds=0.5)
    part = b" " * (MOST_FEEDBACK_BYTES - 1)
    most = MOST_HELD_BYTES // len(part)
    senders = [sent(application, part, ends=False) for _ in range(most + 3)]
    answers = await asyncio.gather(*senders)
    assert (answers.count(503), answers.count(408)) == (3, most)
    assert await sent(application, b"[]") == 200  # what they held is free again


async def test_others_get_their_turn_while_many_labels_are_counted() -> None:
    found = telemetry(feedback={"maturity": 60})
    body = b'[%s{"id": "y", "label": 1}]' % (b'{"id": "x", "label": 1},' * 5_000)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.create_task(other())
    assert await sent(Application(Service(found, Bounds())), body) == 200
    task.cancel()
    assert turns > 100


async def test_of_many_refusals_a_few_are_explained() -> None:
    async with client(telemetry(feedback={"maturity": 60})) as http:
        answered = await http.post("/feedback", json=[{}] * 9_000)
    assert answered.status_code == 400
    assert (answered.json()["refused"], len(answered.json()["errors"])) == (9_000, 5)
