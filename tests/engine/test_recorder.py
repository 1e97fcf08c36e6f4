"""Events: the same again counts up, nothing grows without bound, nothing here ends the process."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.engine.objects import model

from mooring.adapters.kube import ApiError
from mooring.core.events import Event
from mooring.core.kinds import Kind
from mooring.engine import recorder as recorder_module
from mooring.engine.recorder import Recorder

READY = Event("Normal", "Ready", "2 of 2 pods")
FAILED = Event("Warning", "NotReady", "1 of 2 pods")


class Server:
    """Keeps Events by name."""

    def __init__(self) -> None:
        self.events: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []
        self.error: Exception | None = None

    async def create(self, kind: Kind, namespace: str, body: dict[str, Any]) -> dict[str, Any]:
        self.calls.append("create")
        if self.error is not None:
            raise self.error
        name = body["metadata"]["name"]
        assert name not in self.events
        self.events[name] = body
        return body

    async def patch(
        self, kind: Kind, namespace: str, name: str, body: dict[str, Any]
    ) -> dict[str, Any]:
        self.calls.append("patch")
        if name not in self.events:
            raise ApiError(404, "NotFound", "gone")
        self.events[name] |= body
        return self.events[name]


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def recorder(server: Server) -> Recorder:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    return Recorder(server, lambda: moment, "me")  # type: ignore[arg-type]


async def flush(recorder: Recorder) -> None:
    """Lets the recorder write everything that waits."""
    running = asyncio.create_task(recorder.run())
    async with asyncio.timeout(5):
        while not recorder._queue.empty():
            await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)
    assert not running.done()
    running.cancel()


async def test_the_same_event_again_counts_up_instead_of_making_another(
    recorder: Recorder, server: Server
) -> None:
    resource = model("fraud", 1)
    for _ in range(3):
        recorder.record(resource, READY)
    await flush(recorder)
    assert server.calls == ["create", "patch", "patch"]
    (event,) = server.events.values()
    assert event["count"] == 3


async def test_another_message_or_another_object_is_another_event(
    recorder: Recorder, server: Server
) -> None:
    recorder.record(model("fraud", 1, uid="u1"), READY)
    recorder.record(model("fraud", 1, uid="u1"), FAILED)
    recorder.record(model("fraud", 1, uid="u2"), READY)
    await flush(recorder)
    assert server.calls == ["create"] * 3


async def test_an_event_that_the_server_has_forgotten_is_made_anew(
    recorder: Recorder, server: Server
) -> None:
    recorder.record(model("fraud", 1), READY)
    await flush(recorder)
    server.events.clear()
    recorder.record(model("fraud", 1), READY)
    await flush(recorder)
    (event,) = server.events.values()
    assert event["count"] == 1


async def test_an_event_points_at_exactly_the_object_it_is_about(
    recorder: Recorder, server: Server
) -> None:
    recorder.record(model("fraud", 7), READY)
    await flush(recorder)
    (event,) = server.events.values()
    about = event["involvedObject"]
    assert (about["kind"], about["namespace"], about["name"]) == (
        "ModelDeployment",
        "shop",
        "fraud",
    )
    assert (about["uid"], about["apiVersion"]) == ("u1", "mooring.dev/v1alpha1")
    assert event["metadata"]["namespace"] == "shop"


async def test_too_many_events_are_dropped_not_queued(
    recorder: Recorder, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(10_000):
        recorder.record(model("fraud", 1), Event("Normal", "R", str(number)))
    await flush(recorder)
    assert len(server.events) == 1_000
    assert caplog.messages == [
        f"too many events wait to be written; shop/fraud: R: {number}"
        for number in range(1_000, 10_000)
    ]


async def test_what_is_remembered_is_bounded(
    recorder: Recorder, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "_REMEMBERED", 10)
    for number in range(50):
        recorder.record(model("fraud", 1), Event("Normal", "R", str(number)))
    await flush(recorder)
    assert len(recorder._series) == 10


async def test_a_long_message_is_cut(recorder: Recorder, server: Server) -> None:
    recorder.record(model("fraud", 1), Event("Normal", "R", "x" * 5_000))
    await flush(recorder)
    (event,) = server.events.values()
    assert len(event["message"]) == 1_000


@pytest.mark.parametrize(
    "error", [ApiError(403, "Forbidden", "no"), ApiError(0, "Unreachable", ""), KeyError("odd")]
)
async def test_an_event_that_cannot_be_written_is_lost_and_the_next_one_is_not(
    recorder: Recorder, server: Server, error: Exception
) -> None:
    server.error = error
    recorder.record(model("fraud", 1), READY)
    await flush(recorder)
    server.error = None
    recorder.record(model("fraud", 1), FAILED)
    await flush(recorder)
    assert [event["reason"] for event in server.events.values()] == ["NotReady"]
