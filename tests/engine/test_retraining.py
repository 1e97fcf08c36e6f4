"""What is made for a RetrainingRequest where something of its name exists."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.engine.objects import Json, child, raw
from tests.engine.server import Server

from mooring.adapters.kube import ApiError
from mooring.adapters.sinks import SinkClient
from mooring.core import kinds
from mooring.core.kinds import KIND_BY_NAME, Kind, Ref
from mooring.core.plan import Plan
from mooring.core.router_counters import ScrapeLabels
from mooring.engine.deliveries import Deliveries
from mooring.engine.lease import Fence
from mooring.engine.metrics import Metrics
from mooring.engine.performance import PerformanceWatch
from mooring.engine.performance_metrics import PerformanceMetrics
from mooring.engine.queue import Key, KeyedQueue
from mooring.engine.retraining import RetrainingIO
from mooring.engine.row_counts import RowCounts
from mooring.engine.store import Store

FRAUD = Key("shop", "fraud")
RESOURCE: Json = {"metadata": {"name": "fraud", "uid": "u1"}, "spec": {}}


class Setting:
    """The request by-hand of fraud, and the two objects that are made for it."""

    def __init__(self) -> None:
        self.server, self.store = Server(), Store()
        queue, metrics = KeyedQueue(), Metrics()

        def now() -> datetime:
            return datetime(2026, 1, 1, tzinfo=UTC)

        self.io = RetrainingIO(
            self.server,  # type: ignore[arg-type]
            self.store,
            metrics,
            Deliveries(SinkClient(), queue, metrics, Fence(), now),
            RowCounts(None, queue, now),
            PerformanceWatch(
                self.server,  # type: ignore[arg-type]
                None, ScrapeLabels(), queue, now, PerformanceMetrics(metrics.registry),
            ),
        )  # fmt: skip
        spec = {"deploymentRef": {"name": "fraud"}}
        self.store.put(
            kinds.RETRAINING_REQUEST,
            raw(kinds.RETRAINING_REQUEST, "by-hand", 1, uid="r1", spec=spec),
        )

    async def write(self, *names: str) -> None:
        """A round that makes the file and the Job."""
        made = tuple(
            child(KIND_BY_NAME[name], "by-hand", 0, owner="r1")
            for name in names or ("ConfigMap", "Job")
        )

        async def send(key: Key, kind: Kind, name: str, write: Awaitable[Json]) -> Json:
            written = await write
            self.store.put(kind, written)
            return written

        await self.io.write(FRAUD, Plan(create=made), send)

    def exists(self, kind: str, owner: str, *, watched: bool) -> None:
        """Somebody has made an object of the request's name; with our labels, the watch tells."""
        found = child(KIND_BY_NAME[kind], "by-hand", 50, uid="theirs", owner=owner)
        self.server.objects[Ref(kind, "by-hand")] = found
        if watched:
            self.store.put(KIND_BY_NAME[kind], found)

    def gone(self, kind: str) -> None:
        found = self.server.objects.pop(Ref(kind, "by-hand"))
        self.store.remove(KIND_BY_NAME[kind], found)

    async def taken(self) -> dict[str, str]:
        return dict((await self.io.observe(FRAUD, RESOURCE)).taken)

    def owner(self, kind: str) -> str:
        found = self.server.objects.get(Ref(kind, "by-hand"))
        return found["metadata"]["ownerReferences"][0]["uid"] if found else ""


@pytest.fixture
def setting() -> Setting:
    return Setting()


@pytest.mark.parametrize("watched", [False, True], ids=["unlabelled", "labelled"])
@pytest.mark.parametrize("owner", ["u1", "r0"], ids=["the-deployment", "an-earlier-request"])
async def test_no_job_mounts_a_config_map_that_is_not_its_own_requests(
    setting: Setting, owner: str, watched: bool
) -> None:
    """Else who may make requests could read it, or have a model trained on what it says."""
    setting.exists("ConfigMap", owner, watched=watched)
    for _ in range(2):
        await setting.write()
        assert await setting.taken() == {"by-hand": "ConfigMap"}
        assert (setting.owner("ConfigMap"), setting.owner("Job")) == (owner, "")
    setting.gone("ConfigMap")
    await setting.write()
    assert await setting.taken() == {}
    assert (setting.owner("ConfigMap"), setting.owner("Job")) == ("r1", "r1")


@pytest.mark.parametrize("watched", [False, True], ids=["unlabelled", "labelled"])
async def test_a_job_of_somebody_else_is_said_and_its_end_waited_for(
    setting: Setting, watched: bool
) -> None:
    setting.exists("Job", "r0", watched=watched)
    for _ in range(2):
        await setting.write()
        assert await setting.taken() == {"by-hand": "Job"}
        assert setting.owner("Job") == "r0"
    setting.gone("Job")
    await setting.write()
    assert await setting.taken() == {}
    assert setting.owner("Job") == "r1"


async def test_a_file_that_is_refused_keeps_its_job_back(setting: Setting) -> None:
    setting.server.errors["create ConfigMap"] = ApiError(403, "Forbidden", "exceeded quota")
    await setting.write()
    assert setting.owner("Job") == ""
    facts = await setting.io.observe(FRAUD, RESOURCE)
    assert "exceeded quota" in facts.refused["by-hand"]
    setting.server.errors.clear()
    await setting.write()
    assert setting.owner("Job") == "r1"


async def test_a_request_of_another_deployment_under_a_triggers_name_is_said(
    setting: Setting,
) -> None:
    other: dict[str, Any] = {"deploymentRef": {"name": "other"}}
    found = raw(kinds.RETRAINING_REQUEST, "by-hand", 50, uid="theirs", spec=other)
    setting.server.objects[Ref("RetrainingRequest", "by-hand")] = found
    setting.store.put(kinds.RETRAINING_REQUEST, found)
    await setting.write("RetrainingRequest")
    assert await setting.taken() == {"by-hand": "RetrainingRequest"}
