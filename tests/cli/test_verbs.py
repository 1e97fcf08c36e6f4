"""Verbs: which revision each names, what is written, and how the answer is told."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from tests.cli import objects
from tests.cli.api_server import FakeApi, Json
from tests.cli.conftest import Mooring
from tests.cli.objects import CANDIDATE, REJECTED, STABLE

from mooring.core.verbs import parse_action

ACTION = "mooring.dev/action"


def written(api: FakeApi) -> str:
    """The one annotation that was written."""
    [(path, body)] = api.patches
    assert path == f"{objects.DEPLOYMENTS}/fraud"
    assert list(body) == ["metadata"]
    assert list(body["metadata"]) == ["annotations"]
    [(key, value)] = body["metadata"]["annotations"].items()
    assert key == ACTION
    return str(value)


def answers(result: str, message: str, **changes: Any) -> Any:
    """An operator that answers to every verb."""

    def act(obj: Json) -> None:
        verb, revision, token = obj["metadata"]["annotations"][ACTION].split("/")
        obj["status"]["lastAction"] = {
            "verb": verb, "revision": revision, "token": token, "result": result,
            "message": message, **changes,
        }  # fmt: skip

    return act


@pytest.mark.parametrize(
    ("command", "verb", "revision"),
    [
        (("promote",), "promote", CANDIDATE),
        (("promote", "--full"), "promote-full", CANDIDATE),
        (("abort",), "abort", CANDIDATE),
        (("pause",), "pause", CANDIDATE),
        (("resume",), "resume", CANDIDATE),
        (("retry",), "retry", REJECTED),
        (("undo",), "undo", STABLE),
        (("restart",), "restart", STABLE),
        (("retrain",), "retrain", STABLE),
        (("retry", "--revision", "xyz"), "retry", "xyz"),
        (("retry", "--revision", "fraud-xyz"), "retry", "xyz"),
    ],
)
def test_a_verb_names_the_revision_that_status_shows(
    api: FakeApi, mooring: Mooring, command: tuple[str, ...], verb: str, revision: str
) -> None:
    found = mooring(*command, "fraud", "--no-wait")
    assert found.exit_code == 0, found.output
    action = parse_action(written(api), "fraud")
    assert (action.verb, action.revision) == (verb, revision)
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", action.token)


def test_the_same_verb_twice_carries_two_tokens(api: FakeApi, mooring: Mooring) -> None:
    for _ in range(2):
        mooring("pause", "fraud", "--no-wait")
    first, second = (body["metadata"]["annotations"][ACTION] for _, body in api.patches)
    assert first != second


def test_an_accepted_verb_ends_with_0(api: FakeApi, mooring: Mooring) -> None:
    api.on_patch = answers("Accepted", "revision bkdzxfpnlt is rejected")
    found = mooring("abort", "fraud")
    assert (found.exit_code, found.output) == (
        0,
        "Accepted: abort bkdzxfpnlt: revision bkdzxfpnlt is rejected\n",
    )


def test_a_refused_verb_ends_with_1(api: FakeApi, mooring: Mooring) -> None:
    api.on_patch = answers("Refused", "revision bkdzxfpnlt is not paused")
    found = mooring("resume", "fraud")
    assert (found.exit_code, found.output) == (
        1,
        "Refused: resume bkdzxfpnlt: revision bkdzxfpnlt is not paused\n",
    )


def test_without_an_answer_it_ends_with_3_and_says_that_the_verb_stands(mooring: Mooring) -> None:
    found = mooring("pause", "fraud", "--timeout", "100ms")
    assert found.exit_code == 3
    assert found.output.startswith("Not acknowledged: pause bkdzxfpnlt: no answer within")
    assert "It acts on it once it does" in found.output


def test_the_answer_to_somebody_elses_verb_is_no_answer(api: FakeApi, mooring: Mooring) -> None:
    api.on_patch = answers("Accepted", "done", token="another")
    assert mooring("pause", "fraud", "--timeout", "100ms").exit_code == 3


def test_the_answer_is_data_when_asked_for(api: FakeApi, mooring: Mooring) -> None:
    api.on_patch = answers("Refused", "too late")
    found = mooring("undo", "fraud", "-o", "json")
    assert found.exit_code == 1
    action = json.loads(found.output)
    assert (action["verb"], action["revision"], action["result"]) == ("undo", STABLE, "Refused")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("promote", "nothing is rolling out: there is no candidate"),
        ("abort", "nothing is rolling out: there is no candidate"),
        ("retry", "no revision is rejected"),
    ],
)
def test_nothing_is_written_when_there_is_nothing_to_name(
    api: FakeApi, mooring: Mooring, command: str, words: str
) -> None:
    api.put(objects.DEPLOYMENTS, objects.deployment(objects.serving()))
    found = mooring(command, "fraud")
    assert found.exit_code == 1
    assert found.output == f"Error: {words}\n"
    assert api.patches == []


def test_undo_before_the_first_stable_revision_is_refused_here(
    api: FakeApi, mooring: Mooring
) -> None:
    api.put(objects.DEPLOYMENTS, objects.deployment(objects.stalled()))
    assert mooring("undo", "fraud").output == "Error: there is no stable revision yet\n"
    assert mooring("restart", "fraud", "--no-wait").exit_code == 0
    assert written(api).startswith(f"restart/{CANDIDATE}/")


def test_a_revision_that_no_annotation_can_hold_is_wrong_usage(
    api: FakeApi, mooring: Mooring
) -> None:
    found = mooring("retry", "fraud", "--revision", "A/b")
    assert found.exit_code == 2
    assert api.patches == []
