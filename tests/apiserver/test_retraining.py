"""Retraining against a real API server: asked once, trained once, adopted once."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.apiserver.cluster import (
    DIGEST,
    SECONDS,
    Api,
    Json,
    Operator,
    deploy,
    settings,
    simple_spec,
    until,
)
from tests.apiserver.jobs import BY_JOB, TEMPLATE, finish_job
from tests.apiserver.pods import Pods

from mooring.adapters import kube
from mooring.adapters.sinks import signature
from mooring.core import kinds
from mooring.settings import SinkSettings
from mooring_dev.control_plane import ControlPlane

pytestmark = pytest.mark.apiserver

KEY = "a key of more than sixteen bytes"
V2 = {"uri": "s3://models/fraud/v2", "digest": "sha256:" + "2" * 64}


async def serving(api: Api, namespace: str, retraining: Json, **changes: Any) -> str:
    """Deploys and waits until it serves; returns the stable revision."""
    await deploy(api, namespace, spec=simple_spec(retraining=retraining, **changes))
    await until(lambda: api.ready(namespace, "fraud"), "Ready")
    status = (await api.resource(namespace, "fraud"))["status"]
    return str(status["stable"]["revision"])


async def outcome(api: Api, namespace: str, wanted: str) -> bool:
    """Whether the last request is known to have come to this."""
    status = (await api.resource(namespace, "fraud"))["status"]
    return bool(status["retraining"].get("outcome") == wanted)


async def verb(api: Api, namespace: str, action: str) -> None:
    await api.patch(
        kinds.MODEL_DEPLOYMENT, namespace, "fraud",
        {"metadata": {"annotations": {kinds.ANNOTATION_ACTION: action}}},
    )  # fmt: skip


async def requests(api: Api, namespace: str) -> list[Json]:
    return await api.list(kinds.RETRAINING_REQUEST, namespace)


async def phase(api: Api, namespace: str, wanted: str) -> Json | None:
    """The only request, once it has this phase."""
    for found in await requests(api, namespace):
        if (found.get("status") or {}).get("phase") == wanted:
            return found
    return None


async def stable_uri(api: Api, namespace: str) -> str:
    status = (await api.resource(namespace, "fraud")).get("status") or {}
    return str((status.get("stable") or {}).get("modelUri"))


async def test_a_person_asks_a_job_trains_and_its_model_serves_until_git_says_otherwise(
    cluster: ControlPlane, api: Api, namespace: str
) -> None:
    await api.create(kinds.POD_TEMPLATE, namespace, TEMPLATE)
    async with Operator.run(cluster.kubeconfig, settings(namespace)), Pods(api, namespace):
        stable = await serving(api, namespace, BY_JOB)
        await verb(api, namespace, f"retrain/{stable}/1")
        found = await until(lambda: phase(api, namespace, "Running"), "Running")
        name = found["metadata"]["name"]
        assert len(await requests(api, namespace)) == 1
        assert [j["metadata"]["name"] for j in await api.list(kinds.JOB, namespace)] == [name]
        assert found["spec"]["revision"] == stable

        words = json.dumps({**V2, "metrics": {"accuracy": 0.93}})
        await finish_job(api, namespace, name, words)
        await until(lambda: phase(api, namespace, "Succeeded"), "Succeeded")

        async def serves(uri: str) -> bool:
            return await stable_uri(api, namespace) == uri

        await until(lambda: serves(V2["uri"]), "the new model serves")
        resource = await api.resource(namespace, "fraud")
        assert resource["spec"]["model"]["uri"] == "s3://models/fraud/v1"
        assert resource["status"]["adoptedModel"]["request"] == name

        await api.delete(kinds.RETRAINING_REQUEST, namespace, name)
        model = {"uri": "s3://models/fraud/v3", "digest": DIGEST}
        await api.patch(kinds.MODEL_DEPLOYMENT, namespace, "fraud", {"spec": {"model": model}})
        await until(lambda: serves("s3://models/fraud/v3"), "Git wins")
        assert await requests(api, namespace) == []


class Killed(BaseException):
    """The process ends before the next write."""


async def test_killed_between_any_two_writes_it_asks_and_trains_once(
    cluster: ControlPlane, api: Api, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.create(kinds.POD_TEMPLATE, namespace, TEMPLATE)
    async with (
        Operator.run(cluster.kubeconfig, settings(namespace)) as operator,
        Pods(api, namespace),
    ):
        stable = await serving(api, namespace, BY_JOB)
        await operator.settled()  # status is written before the record that says it is stable
    writes: list[str] = []
    allowed = 0
    real = kube.KubeClient._write

    async def counted(self: Any, verb: str, kind: kinds.Kind, *args: Any, **given: Any) -> Json:
        if kind != kinds.EVENT and len(writes) >= allowed:
            await asyncio.Event().wait()  # what is written now, the process does not live to see
        written = await real(self, verb, kind, *args, **given)
        if kind != kinds.EVENT:  # what is carried out counts: a slow disk may outlast the process
            writes.append(f"{verb} {kind.name}")
        return written

    monkeypatch.setattr(kube.KubeClient, "_write", counted)
    await verb(api, namespace, f"retrain/{stable}/1")
    made: list[str] = []
    quiet = 0
    while quiet < 2:
        done = {"create RetrainingRequest", "create Job"} <= set(made)
        assert len(made) < 40, made
        writes.clear()
        allowed = 1
        async with Operator.run(cluster.kubeconfig, settings(namespace)) as operator:
            with contextlib.suppress(AssertionError) if done else contextlib.nullcontext():
                await until(lambda: len(writes) >= 1, "a write", seconds=3.0 if done else SECONDS)
            await asyncio.sleep(0.1)
            operator.task.cancel()
        made += writes
        quiet = quiet + 1 if done and not writes else 0
        assert len(await requests(api, namespace)) <= 1
        assert len(await api.list(kinds.JOB, namespace)) <= 1
    assert made.count("create RetrainingRequest") == 1
    assert made.count("create Job") == 1
    assert await phase(api, namespace, "Running") is not None


async def test_a_template_that_does_not_exist_is_said_to_be_missing(
    cluster: ControlPlane, api: Api, namespace: str
) -> None:
    async with Operator.run(cluster.kubeconfig, settings(namespace)), Pods(api, namespace):
        stable = await serving(api, namespace, BY_JOB)
        await verb(api, namespace, f"retrain/{stable}/1")
        found = await until(lambda: phase(api, namespace, "Pending"), "Pending")
        assert found["status"]["message"] == (
            f"PodTemplate train does not exist in namespace {namespace}: create it, or correct "
            "spec.retraining.action.job.templateRef"
        )


async def test_a_request_by_hand_is_fulfilled_by_a_patch_and_a_wrong_result_is_refused(
    cluster: ControlPlane, api: Api, namespace: str
) -> None:
    async with Operator.run(cluster.kubeconfig, settings(namespace)), Pods(api, namespace):
        await serving(api, namespace, {"action": {"none": {}}})
        body = {"metadata": {"name": "by-hand"}, "spec": {"deploymentRef": {"name": "fraud"}}}
        await api.create(kinds.RETRAINING_REQUEST, namespace, body)
        await until(lambda: phase(api, namespace, "Pending"), "Pending")

        async def bring(result: Json) -> None:
            patch = {"status": {"result": result}}
            await api.patch(kinds.RETRAINING_REQUEST, namespace, "by-hand", patch, "status")

        await bring({**V2, "uri": "s3://models/other/v2"})
        found = await until(lambda: phase(api, namespace, "Running"), "refused")
        assert "none of the allowed prefixes" in found["status"]["message"]
        await bring(V2)

        async def serves() -> bool:
            return await stable_uri(api, namespace) == V2["uri"]

        await until(serves, "the new model serves")


class Receiver:
    """A sink that answers as it is told."""

    def __init__(self, answers: list[int]) -> None:
        self.answers = answers
        self.events: list[tuple[Json, Json]] = []

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_post("/events", self._take)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        try:
            yield f"http://127.0.0.1:{port}/events"
        finally:
            await runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        headers = dict(request.headers)
        moment = int(headers["webhook-timestamp"])
        event = json.loads(body)
        assert headers["webhook-signature"] == signature(KEY.encode(), event["id"], moment, body)
        self.events.append((event, headers))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return web.Response(status=answer)


async def test_a_sink_is_told_again_after_500_with_the_same_id_and_once_after_200(
    cluster: ControlPlane,
    api: Api,
    namespace: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mooring.core.retrain import request as attending

    monkeypatch.setattr(attending, "_FIRST_WAIT", timedelta(seconds=0.2))
    key = tmp_path / "key"
    key.write_text(KEY + "\n")
    receiver = Receiver([500, 200])
    async with receiver.run() as url:
        sink = SinkSettings(name="pipelines", url=url, signing_key_file=key, allow_http=True)
        wanted = settings(namespace, sinks=(sink,))
        async with Operator.run(cluster.kubeconfig, wanted), Pods(api, namespace):
            stable = await serving(api, namespace, {"action": {"sink": {"name": "pipelines"}}})
            await verb(api, namespace, f"retrain/{stable}/1")

            async def told() -> Json | None:
                for found in await requests(api, namespace):
                    for condition in (found.get("status") or {}).get("conditions") or ():
                        if condition["reason"] == "Delivered":
                            return found
                return None

            found = await until(told, "delivered")
        async with Operator.run(cluster.kubeconfig, wanted) as operator:
            await operator.settled()
    assert found["status"]["attempts"] == 2
    assert len(receiver.events) == 2
    assert {event["id"] for event, _ in receiver.events} == {found["spec"]["idempotencyKey"]}
    assert {headers["webhook-id"] for _, headers in receiver.events} == {
        found["spec"]["idempotencyKey"]
    }
    assert receiver.events[0][0] == receiver.events[1][0]


async def test_requests_that_have_ended_go_beyond_the_limit(
    cluster: ControlPlane, api: Api, namespace: str
) -> None:
    wanted = {"action": {"none": {}}, "cooldown": "0s", "historyLimit": 1}
    names = []
    async with Operator.run(cluster.kubeconfig, settings(namespace)) as operator:
        async with Pods(api, namespace):
            stable = await serving(api, namespace, wanted)
            for token in ("1", "2"):
                await verb(api, namespace, f"retrain/{stable}/{token}")
                found = await until(lambda: phase(api, namespace, "Pending"), "asked")
                names.append(found["metadata"]["name"])
                given_up = {"status": {"phase": "Failed", "message": "no data"}}
                await api.patch(kinds.RETRAINING_REQUEST, namespace, names[-1], given_up, "status")
                # Until that is seen, the request is in flight, and another verb is refused.
                await until(lambda: outcome(api, namespace, "Failed"), "its end is seen")

            async def kept() -> bool:
                return [r["metadata"]["name"] for r in await requests(api, namespace)] == names[1:]

            await until(kept, "the older one is gone")
            await operator.settled()
            assert await kept()
