"""``status`` and ``get -w``: when a wait is over, and that it outlives the connection."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.cli import objects
from tests.cli.api_server import FakeApi
from tests.cli.conftest import Mooring
from tests.cli.objects import condition

from mooring.cli.snapshot import Snapshot
from mooring.cli.status import judge_for

pytestmark = pytest.mark.process

OPERATOR = Path(__file__).parents[2] / "operator"
READY = condition("Ready", "True", "Serving", "3 of 3 pods")
NOT_READY = condition("Ready", "False", "Starting", "1 of 3 pods")
STALLED = condition("Stalled", "True", "WriteRefused", "a quota is full")
ROLLED_BACK = condition("RolledBack", "True", "ErrorRate", "errors rose")


def status(*conditions: Any, seen: int = 3, **parts: Any) -> dict[str, Any]:
    return {"observedGeneration": seen, "conditions": list(conditions), **parts}


STABLE: dict[str, Any] = {"stable": objects.stable()}
BOTH: dict[str, Any] = {**STABLE, "candidate": objects.candidate()}


@pytest.mark.parametrize(
    ("found", "ready", "rolled_out"),
    [
        (None, None, None),
        (status(READY, **STABLE), 0, 0),
        (status(READY, seen=2, **STABLE), None, None),
        (status(NOT_READY, **STABLE), None, None),
        (status(READY, **BOTH), 0, None),
        (status(READY, STALLED, **BOTH), 0, 1),
        (status(NOT_READY, STALLED), 1, 1),
        (status(NOT_READY, STALLED, seen=2), None, None),
        (status(READY, ROLLED_BACK, **STABLE), 0, 1),
        (status(NOT_READY, candidate=objects.candidate()), None, None),
        (status(READY), 0, None),
    ],
)
def test_a_wait_is_over_when_the_status_of_this_spec_says_so(
    found: Any, ready: int | None, rolled_out: int | None
) -> None:
    snapshot = Snapshot(objects.deployment(found))
    for goal, wanted in (("ready", ready), ("rolled-out", rolled_out)):
        verdict = judge_for(goal)(snapshot)
        assert (verdict and verdict.code) == wanted, goal


def test_what_is_done_already_ends_at_once(api: FakeApi, mooring: Mooring) -> None:
    api.put(objects.DEPLOYMENTS, objects.deployment(objects.serving()))
    found = mooring("status", "fraud")
    assert (found.exit_code, found.output) == (
        0,
        "rolled out: revision hcqmvwrtzb serves s3://models/fraud/v7\n",
    )


def test_a_rollout_in_a_step_is_neither_done_nor_failed(mooring: Mooring) -> None:
    found = mooring("status", "fraud", "--timeout", "0s")
    assert found.exit_code == 3
    assert found.output.splitlines()[-1] == (
        "not rolled-out within 0s: waits for the step's time to be over"
    )
    assert mooring("status", "fraud", "--timeout", "0s", "--for", "ready").exit_code == 0


def test_the_end_is_data_when_asked_for(api: FakeApi, mooring: Mooring) -> None:
    api.put(objects.DEPLOYMENTS, objects.deployment(objects.stalled()))
    found = mooring("status", "fraud", "-o", "json")
    assert found.exit_code == 1
    value = json.loads(found.output)
    assert (value["result"], value["status"]["phase"]) == ("Failed", "Stalled")


def test_a_status_of_an_older_spec_is_waited_out(api: FakeApi, mooring: Mooring) -> None:
    behind = objects.deployment(objects.serving(), generation=4)
    api.put(objects.DEPLOYMENTS, behind)
    found = mooring("status", "fraud", "--timeout", "0s")
    assert found.exit_code == 3
    assert "has not looked at the newest spec: is it running?" in found.output


def test_a_wait_goes_on_after_the_connection_was_cut(api: FakeApi, mooring: Mooring) -> None:
    def story() -> None:
        api.wait_for_watches(1)
        api.drop()
        api.wait_for_watches(2)
        api.put(objects.DEPLOYMENTS, objects.deployment(objects.serving()))

    teller = threading.Thread(target=story)
    teller.start()
    found = mooring("status", "fraud", "--timeout", "20s")
    teller.join()
    assert found.exit_code == 0
    lines = found.output.splitlines()
    assert lines[0].startswith("RollingOut; ")
    assert any(text.startswith("connection lost, trying again: ") for text in lines)
    assert lines[-1].startswith("rolled out: ")


def test_what_happens_while_nobody_is_connected_is_seen_afterwards(
    api: FakeApi, mooring: Mooring
) -> None:
    def story() -> None:
        api.wait_for_watches(1)
        api.silent = True
        api.drop()
        api.put(objects.DEPLOYMENTS, objects.deployment(objects.stalled()))
        time.sleep(0.6)  # longer than the first pause, so that one attempt fails
        api.silent = False

    teller = threading.Thread(target=story)
    teller.start()
    found = mooring("status", "fraud", "--timeout", "20s")
    teller.join()
    assert found.exit_code == 1
    assert "stalled: FetchFailed" in found.output


def test_a_wait_for_what_is_deleted_ends_with_7(api: FakeApi, mooring: Mooring) -> None:
    def story() -> None:
        api.wait_for_watches(1)
        api.delete(objects.DEPLOYMENTS, "fraud")

    teller = threading.Thread(target=story)
    teller.start()
    found = mooring("status", "fraud", "--timeout", "20s")
    teller.join()
    assert found.exit_code == 7
    assert "ModelDeployment fraud was deleted" in found.output


def test_a_watch_without_a_terminal_prints_a_line_for_every_change(
    api: FakeApi, mooring: Mooring
) -> None:
    def story() -> None:
        api.wait_for_watches(2)  # the ModelDeployment and its pods
        api.drop()
        api.wait_for_watches(4)
        changed = objects.rolling_out()
        changed["candidate"] = objects.candidate(weight=50)
        api.put(objects.DEPLOYMENTS, objects.deployment(changed))
        api.put(objects.DEPLOYMENTS, objects.deployment(changed))
        api.delete(objects.DEPLOYMENTS, "fraud")

    teller = threading.Thread(target=story)
    teller.start()
    found = mooring("get", "fraud", "-w")
    teller.join()
    assert found.exit_code == 7
    words = [text.partition(" ")[2] for text in found.output.splitlines()]
    assert words[0].startswith("RollingOut; stable hcqmvwrtzb 75% 3/3; candidate bkdzxfpnlt 25%")
    assert any(text.startswith("connection lost: ") for text in words)
    assert "connected again" in words
    assert sum("candidate bkdzxfpnlt 50%" in text for text in words) <= 1


def test_a_watch_as_json_prints_a_document_a_line(api: FakeApi, mooring: Mooring) -> None:
    def story() -> None:
        api.wait_for_watches(2)
        api.delete(objects.DEPLOYMENTS, "fraud")

    teller = threading.Thread(target=story)
    teller.start()
    found = mooring("get", "fraud", "-w", "-o", "json")
    teller.join()
    documents = [json.loads(text) for text in found.stdout.splitlines()]
    assert documents[-1]["status"]["phase"] == "RollingOut"
    assert len(documents[-1]["pods"]) == 7


@contextmanager
def terminal(kubeconfig: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The program in a terminal of 100 columns; yields the process and the terminal's other end."""
    ours, theirs = pty.openpty()
    environment = {
        "PYTHONPATH": str(OPERATOR), "KUBECONFIG": str(kubeconfig), "TERM": "xterm-256color",
        "COLUMNS": "100", "LINES": "50",
    }  # fmt: skip
    command = [sys.executable, "-m", "mooring", *arguments]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    )
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def read_until(terminal: int, text: str, seconds: float = 20) -> str:
    """All output up to and with this text."""
    seen, end = b"", time.monotonic() + seconds
    while text.encode() not in seen:
        assert time.monotonic() < end, f"{text!r} not in {seen.decode()}"
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                seen += os.read(terminal, 65536)
            except OSError:  # the other end is closed
                break
    assert text.encode() in seen, seen.decode()
    return seen.decode()


def test_a_watched_tree_is_redrawn_in_place_and_ends_cleanly(
    api: FakeApi, kubeconfig: Path
) -> None:
    with terminal(kubeconfig, "get", "fraud", "-w") as (process, screen):
        seen = read_until(screen, "last action")
        api.wait_for_watches(2)
        changed = objects.rolling_out()
        changed["candidate"] = objects.candidate(weight=50, measuredWeight=49)
        api.put(objects.DEPLOYMENTS, objects.deployment(changed))
        seen += read_until(screen, "(measured 49 %)")
        api.silent = True
        api.drop()
        seen += read_until(screen, "connection lost, trying again")
        api.silent = False
        process.send_signal(signal.SIGINT)
        seen += read_until(screen, "\x1b[?25h")  # the cursor is shown again
        assert process.wait(10) == 0
    assert "\x1b[?1049h" not in seen, "no alternate screen: the history of the terminal stays"
    assert "\x1b[2J" not in seen, "the whole screen is never cleared: it would flicker"
    assert "Traceback" not in seen


def test_ctrl_c_ends_a_wait_without_a_word(api: FakeApi, kubeconfig: Path) -> None:
    with terminal(kubeconfig, "status", "fraud") as (process, screen):
        read_until(screen, "RollingOut; ")
        api.wait_for_watches(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
