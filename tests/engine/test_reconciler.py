"""One round: what is written, what is not, and what becomes of errors."""

from __future__ import annotations

import asyncio
import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.engine.no_routers import NoRouters
from tests.engine.objects import Json
from tests.engine.server import Server

from mooring.adapters.kube import ApiError
from mooring.adapters.sinks import SinkClient
from mooring.core import kinds
from mooring.core.kinds import KIND_BY_NAME, Ref
from mooring.core.observed import Observed, RenderSettings
from mooring.core.router_counters import ScrapeLabels
from mooring.engine import reconciler as reconciler_module
from mooring.engine.deliveries import Deliveries
from mooring.engine.evidence import Examiner
from mooring.engine.lease import Fence
from mooring.engine.metrics import Metrics
from mooring.engine.performance import PerformanceWatch
from mooring.engine.performance_metrics import PerformanceMetrics
from mooring.engine.queue import Key, KeyedQueue
from mooring.engine.reconciler import Reconciler
from mooring.engine.registry import RegistryWatch
from mooring.engine.retraining import RetrainingIO
from mooring.engine.row_counts import RowCounts
from mooring.engine.second_look import Conflict
from mooring.engine.store import Store

FRAUD = Key("shop", "fraud")
SPEC: Json = {
    "model": {"uri": "s3://models/fraud/v1", "digest": "sha256:" + "1" * 64},
    "runtime": {"name": "onnx"},
    "traffic": {"router": "replicas"},
    "replicas": 2,
}
RUNTIME: Json = {
    "formats": [{"name": "onnx"}],
    "protocols": ["open-inference-v2"],
    "image": "example.com/onnx-server:1",
    "ports": [{"name": "http", "containerPort": 8080}],
}


class Told:
    def __init__(self) -> None:
        self.events: list[str] = []

    def record(self, resource: Json, event: Any) -> None:
        self.events.append(event.reason)


class Setting:
    def __init__(self) -> None:
        self.server = Server()
        self.store = Store()
        self.server.watched = self.store.remove
        self.queue = KeyedQueue(self.clock)
        self.metrics = Metrics()
        self.told = Told()
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.reconciler = Reconciler(
            self.server,  # type: ignore[arg-type]
            self.store,
            self.queue,
            self.told,  # type: ignore[arg-type]
            self.metrics,
            RenderSettings(),
            NoRouters(),
            RetrainingIO(
                self.server,  # type: ignore[arg-type]
                self.store,
                self.metrics,
                Deliveries(SinkClient(), self.queue, self.metrics, Fence(), lambda: self.now),
                RowCounts(None, self.queue, lambda: self.now),
                PerformanceWatch(
                    self.server,  # type: ignore[arg-type]
                    None,
                    ScrapeLabels(),
                    self.queue,
                    lambda: self.now,
                    PerformanceMetrics(self.metrics.registry),
                ),
            ),
            lambda: self.now,
            lambda: None,
            Examiner(None, self.queue, self.metrics, lambda: self.now, interval=10.0),
            RegistryWatch(None, self.queue, 30.0),
        )
        resource = {
            "apiVersion": "mooring.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": "fraud", "namespace": "shop", "uid": "u1", "generation": 1,
                         "resourceVersion": "10"},
            "spec": copy.deepcopy(SPEC),
        }  # fmt: skip
        self.server.objects[Ref("ModelDeployment", "fraud")] = resource
        self.store.put(kinds.MODEL_DEPLOYMENT, resource)
        runtime = {"metadata": {"name": "onnx", "uid": "r", "resourceVersion": "5"}}
        self.store.put(kinds.CLUSTER_MODEL_RUNTIME, {**runtime, "spec": RUNTIME})

    def clock(self) -> float:
        return self.now.timestamp()

    async def settle(self) -> None:
        for _ in range(6):
            before = len(self.server.writes)
            await self.reconciler.reconcile(FRAUD)
            if len(self.server.writes) == before:
                return
        raise AssertionError(f"does not settle: {self.server.writes[-8:]}")

    def due(self, seconds: float) -> bool:
        """Whether the key is worked on within so many seconds from now."""
        self.now += timedelta(seconds=seconds)
        self.queue._move_due()
        return self.queue.depth > 0

    def take_all(self) -> None:
        while self.queue.depth:
            with pytest.raises(StopIteration):
                self.queue.get().send(None)
            self.queue.done(FRAUD)

    def child(self, kind: str) -> Json:
        return next(o for ref, o in self.server.objects.items() if ref.kind == kind)

    def stalled(self) -> str:
        resource = self.server.objects[Ref("ModelDeployment", "fraud")]
        found = {c["type"]: c for c in resource["status"]["conditions"]}["Stalled"]
        return str(found["reason"]) if found["status"] == "True" else ""


@pytest.fixture
def setting() -> Setting:
    return Setting()


async def test_a_round_that_would_change_nothing_sends_nothing(setting: Setting) -> None:
    await setting.settle()
    avoided = setting.metrics.registry.get_sample_value("mooring_applies_avoided_total")
    assert avoided is not None
    assert avoided > 0


async def test_rounds_that_send_nothing_leave_the_loop_its_turns(setting: Setting) -> None:
    """Else probes and the renewal of the lease would wait for the last of thousands."""
    names = [Key("shop", f"gone-{index}") for index in range(100)]
    for key in names:
        setting.queue.add(key)
    workers = [asyncio.create_task(setting.reconciler.work()) for _ in range(4)]
    depths = []
    while setting.queue.depth:
        depths.append(setting.queue.depth)
        await asyncio.sleep(0)
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    assert depths[2:] == list(range(96, 0, -4)), "no worker takes a second key in one turn"


async def test_nothing_is_sent_again_where_the_server_stores_another_form(
    setting: Setting,
) -> None:
    def normalise(obj: Json) -> None:
        if obj["kind"] == "NetworkPolicy":
            obj["spec"]["policyTypes"] = ["Egress", "Ingress"]

    setting.server.normalise = normalise
    await setting.settle()
    assert sum("NetworkPolicy" in call for call in setting.server.writes) == 1


async def test_an_edit_by_somebody_else_is_taken_back(setting: Setting) -> None:
    await setting.settle()
    before = len(setting.server.writes)
    policy = setting.child("NetworkPolicy")
    policy["spec"]["ingress"] = []
    policy["metadata"]["resourceVersion"] = str(next(setting.server.versions))
    setting.store.put(kinds.NETWORK_POLICY, copy.deepcopy(policy))
    await setting.settle()
    assert setting.server.writes[before:] == ["apply NetworkPolicy fraud"]
    assert setting.child("NetworkPolicy")["spec"]["ingress"]


async def test_status_is_written_before_any_child(setting: Setting) -> None:
    await setting.reconciler.reconcile(FRAUD)
    assert setting.server.writes[0] == "status"


async def test_a_record_that_cannot_be_written_keeps_everything_made_from_it_back(
    setting: Setting,
) -> None:
    setting.server.errors["apply ControllerRevision"] = ApiError(403, "Forbidden", "no")
    await setting.reconciler.reconcile(FRAUD)
    assert [call.split()[1] for call in setting.server.writes if call != "status"] == [
        "ControllerRevision"
    ]


async def test_one_refused_kind_keeps_no_other_back_and_is_told(setting: Setting) -> None:
    setting.server.errors["apply NetworkPolicy"] = ApiError(403, "Forbidden", "no")
    await setting.reconciler.reconcile(FRAUD)
    assert setting.child("Deployment")
    assert setting.due(0), "status has to say so at once"
    await setting.reconciler.reconcile(FRAUD)
    assert setting.stalled() == "WriteRefused"


async def test_a_refused_write_is_tried_ever_more_rarely_even_if_each_answer_differs(
    setting: Setting,
) -> None:
    """An admission webhook that puts the time into its answer must not make a hot loop."""
    setting.server.objects[Ref("ModelDeployment", "fraud")]["spec"]["replicas"] = (
        0  # no pods to see
    )
    waits = []
    for number in range(6):
        setting.server.errors["apply NetworkPolicy"] = ApiError(403, "Forbidden", f"at {number}")
        await setting.reconciler.reconcile(FRAUD)
        start = setting.now
        while not setting.due(1):
            assert setting.now - start < timedelta(minutes=5)
        waits.append((setting.now - start).total_seconds())
        setting.take_all()
        setting.queue._due.clear()
    assert waits[0] <= 1
    assert waits[1:] == sorted(waits[1:])
    assert waits[-1] >= 30


async def test_an_edit_that_an_apply_cannot_take_back_is_replaced(setting: Setting) -> None:
    """An apply leaves others' entries in a list, and beside them ours may be invalid."""
    await setting.settle()
    before = len(setting.server.writes)
    policy = setting.child("NetworkPolicy")
    policy["spec"]["ingress"] = []
    policy["metadata"]["resourceVersion"] = str(next(setting.server.versions))
    setting.store.put(kinds.NETWORK_POLICY, copy.deepcopy(policy))
    setting.server.errors["apply NetworkPolicy"] = ApiError(422, "Invalid", "no")
    with pytest.raises(Conflict):
        await setting.reconciler.reconcile(FRAUD)
    setting.server.errors.clear()
    await setting.settle()
    assert setting.server.writes[before:] == [
        "apply NetworkPolicy fraud",
        "patch NetworkPolicy fraud",
    ]
    assert setting.child("NetworkPolicy")["spec"]["ingress"]
    assert setting.stalled() != "WriteRefused"


async def test_nothing_is_deleted_while_something_is_refused(setting: Setting) -> None:
    await setting.settle()
    stray = copy.deepcopy(setting.child("ConfigMap"))
    stray["metadata"] |= {"name": "fraud-old", "uid": "old"}
    setting.server.objects[Ref("ConfigMap", "fraud-old")] = stray
    setting.store.put(kinds.CONFIG_MAP, stray)
    policy = setting.child("NetworkPolicy")
    policy["spec"]["ingress"] = []
    policy["metadata"]["resourceVersion"] = str(next(setting.server.versions))
    setting.store.put(kinds.NETWORK_POLICY, copy.deepcopy(policy))
    for verb in ("apply", "patch"):
        setting.server.errors[f"{verb} NetworkPolicy"] = ApiError(422, "Invalid", "no")
    await setting.reconciler.reconcile(FRAUD)
    assert "delete ConfigMap fraud-old" not in setting.server.writes
    setting.server.errors.clear()
    await setting.settle()
    assert "delete ConfigMap fraud-old" in setting.server.writes


@pytest.mark.parametrize("status", [404, 409])
async def test_nothing_is_made_when_the_deployment_has_changed_or_gone_meanwhile(
    setting: Setting, status: int
) -> None:
    setting.server.errors["status"] = ApiError(status, "", "meanwhile")
    with pytest.raises(Conflict):
        await setting.reconciler.reconcile(FRAUD)
    assert setting.server.writes == ["status"]


async def test_a_foreign_object_is_not_touched_and_named(setting: Setting) -> None:
    foreign = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "fraud", "namespace": "shop", "uid": "x", "resourceVersion": "50"},
        "spec": {"ports": []},
    }
    setting.server.objects[Ref("Service", "fraud")] = copy.deepcopy(foreign)
    await setting.reconciler.reconcile(FRAUD)
    await setting.reconciler.reconcile(FRAUD)
    assert setting.server.objects[Ref("Service", "fraud")] == foreign
    assert setting.stalled() == "NameTaken"


async def test_a_defect_in_deciding_stalls_the_object_and_says_so(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(observed: Observed) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(reconciler_module, "decide", broken)
    await setting.reconciler.reconcile(FRAUD)
    assert setting.stalled() == "InternalError"
    assert setting.server.writes == ["status"]
    errors = setting.metrics.registry.get_sample_value(
        "mooring_reconcile_errors_total", {"cause": "decide"}
    )
    assert errors == 1


async def test_what_is_remembered_of_a_deployment_goes_with_it(setting: Setting) -> None:
    await setting.settle()
    assert setting.reconciler._applied
    gone = setting.store.get(kinds.MODEL_DEPLOYMENT, "shop", "fraud")
    assert gone is not None
    setting.store.remove(kinds.MODEL_DEPLOYMENT, gone)
    await setting.reconciler.reconcile(FRAUD)
    assert not setting.reconciler._applied
    assert not setting.reconciler._refusals


async def test_the_echo_of_our_own_writes_does_not_queue_the_key(setting: Setting) -> None:
    """A watch is often faster than the answer to the write that it reports."""
    normal = setting.server.normalise

    def watched_first(found: Json) -> None:
        normal(found)
        assert setting.store.absorb(KIND_BY_NAME[found["kind"]], copy.deepcopy(found))

    setting.server.normalise = watched_first
    # The manager of replicas has nothing to do then.
    setting.server.objects[Ref("ModelDeployment", "fraud")]["spec"]["replicas"] = 1
    setting.take_all()
    await setting.reconciler.reconcile(FRAUD)
    assert setting.child("Deployment")
    assert setting.queue.depth == 0
    assert setting.due(1.1), "but what came of it is looked at soon"


async def test_a_change_that_our_write_brought_back_is_looked_at(setting: Setting) -> None:
    """Our apply may have gone over a version that we had not seen: its answer alone tells."""
    await setting.settle()
    setting.take_all()
    policy = setting.child("NetworkPolicy")
    policy["spec"]["ingress"] = []
    policy["metadata"]["resourceVersion"] = str(next(setting.server.versions))
    setting.store.put(kinds.NETWORK_POLICY, copy.deepcopy(policy))
    await setting.reconciler.reconcile(FRAUD)
    assert setting.server.writes[-1] == "apply NetworkPolicy fraud"
    assert setting.queue.depth == 1


async def test_what_a_record_says_is_told_once_it_is_written(setting: Setting) -> None:
    setting.server.errors["apply ControllerRevision"] = ApiError(500, "InternalError", "no")
    with pytest.raises(ApiError):
        await setting.reconciler.reconcile(FRAUD)
    assert "RevisionCreated" not in setting.told.events
    setting.server.errors.clear()
    await setting.reconciler.reconcile(FRAUD)
    assert setting.told.events.count("RevisionCreated") == 1


async def test_what_status_says_is_told_though_a_record_is_refused(setting: Setting) -> None:
    setting.server.errors["apply ControllerRevision"] = ApiError(403, "Forbidden", "no")
    await setting.reconciler.reconcile(FRAUD)
    await setting.reconciler.reconcile(FRAUD)
    assert "WriteRefused" in setting.told.events
    assert "RevisionCreated" not in setting.told.events


def _old_deployment(setting: Setting) -> Json:
    """Pods of a revision whose record we do not see."""
    old = copy.deepcopy(setting.child("Deployment"))
    old["metadata"] |= {"name": "fraud-old", "uid": "old"}
    setting.server.objects[Ref("Deployment", "fraud-old")] = old
    setting.store.put(kinds.DEPLOYMENT, old)
    return old


async def test_pods_that_no_record_wants_go(setting: Setting) -> None:
    await setting.settle()
    _old_deployment(setting)
    await setting.reconciler.reconcile(FRAUD)
    assert setting.server.writes[-1] == "delete Deployment fraud-old"


async def test_no_pods_go_for_a_record_that_only_our_view_lacks(setting: Setting) -> None:
    await setting.settle()
    _old_deployment(setting)
    record = copy.deepcopy(setting.child("ControllerRevision"))
    record["metadata"] |= {"name": "fraud-old", "uid": "r-old"}
    record["metadata"]["labels"][kinds.LABEL_REVISION] = "old"
    setting.server.objects[Ref("ControllerRevision", "fraud-old")] = record
    with pytest.raises(Conflict):
        await setting.reconciler.reconcile(FRAUD)
    assert "delete Deployment fraud-old" not in setting.server.writes
    assert setting.store.get(kinds.CONTROLLER_REVISION, "shop", "fraud-old") is not None


async def test_each_kind_is_known_by_name() -> None:
    assert {kind.name for kind in kinds.CHILD_KINDS} <= set(KIND_BY_NAME)


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (ApiError(0, "Unreachable", ""), "error"),
        (ApiError(500, "InternalError", ""), "error"),
        (ApiError(409, "Conflict", ""), "conflict"),
    ],
)
async def test_a_failed_round_is_counted_and_tried_again(
    setting: Setting, error: ApiError, result: str
) -> None:
    setting.server.errors["status"] = error
    await setting.reconciler._round(FRAUD)
    sample = setting.metrics.registry.get_sample_value
    assert sample("mooring_reconcile_total", {"result": result}) == 1
    assert setting.due(1), "after the first backoff"


async def test_the_wait_that_the_server_asks_for_is_kept(setting: Setting) -> None:
    setting.server.errors["status"] = ApiError(429, "TooManyRequests", "", retry_after=30.0)
    await setting.reconciler._round(FRAUD)
    assert not setting.due(29)
    assert setting.due(2)
