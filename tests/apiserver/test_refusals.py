"""Names that others hold, rights that are missing, records that cannot be read, and defects: each
stalls the one object that it concerns, says so, and leaves what serves alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.apiserver.cluster import (
    RICH_RUNTIME,
    RICH_SPEC,
    Api,
    Operator,
    deploy,
    install,
    settings,
    simple_spec,
    until,
)
from tests.apiserver.pods import Pods
from tests.apiserver.rights import RULES, grant
from tests.faults.proxy import Proxy

from mooring.core import kinds
from mooring.core.kinds import KIND_BY_NAME, Kind, Ref
from mooring.core.observed import Observed
from mooring.core.plan import Plan, decide
from mooring_dev.control_plane import ControlPlane

pytestmark = pytest.mark.apiserver

Json = dict[str, Any]

_PORTS = [{"name": "x", "port": 1}]
_POD: Json = {"metadata": {"labels": {"of": "others"}},
              "spec": {"containers": [{"name": "c", "image": "i"}]}}  # fmt: skip
#: The least that the API server takes for each kind of child.
BODIES: dict[str, Json] = {
    "ControllerRevision": {"revision": 1, "data": {"of": "others"}},
    "ConfigMap": {"data": {"of": "others"}},
    "ServiceAccount": {},
    "NetworkPolicy": {"spec": {"podSelector": {"matchLabels": {"of": "others"}}}},
    "PodDisruptionBudget": {
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"of": "others"}}}
    },
    "Service": {"spec": {"ports": _PORTS, "selector": {"of": "others"}}},
    "Deployment": {"spec": {"selector": {"matchLabels": {"of": "others"}}, "template": _POD}},
    "HorizontalPodAutoscaler": {
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1",
                 "kind": "Deployment", "name": "others"}}
    },
}  # fmt: skip


async def _foreign(api: Api, namespace: str, ref: Ref) -> Json:
    """Somebody else's object under a name that we need."""
    body = {"metadata": {"name": ref.name}, **BODIES[ref.kind]}
    return await api.create(KIND_BY_NAME[ref.kind], namespace, body)


async def _version(api: Api, kind: Kind, namespace: str, name: str) -> str:
    found = await api.get(kind, namespace, name)
    assert found is not None
    return str(found["metadata"]["resourceVersion"])


async def test_a_foreign_object_of_each_kind_is_left_alone_and_named(
    cluster: ControlPlane, api: Api, namespace: str
) -> None:
    await install(api, namespace, RICH_RUNTIME)
    async with (
        Operator.run(cluster.kubeconfig, settings(namespace)) as operator,
        Pods(api, namespace),
    ):
        # The names of a revision's children follow from the spec: one model shows them.
        await deploy(api, namespace, "model", RICH_SPEC)
        await until(lambda: api.ready(namespace, "model"), "Ready")
        await operator.settled()
        taken = {}
        for number, ref in enumerate(sorted(await api.children(namespace, "model"))):
            name = f"taken{number}"
            theirs = Ref(ref.kind, ref.name.replace("model", name, 1))
            found = await _foreign(api, namespace, theirs)
            taken[name] = theirs, found["metadata"]["resourceVersion"]
            await deploy(api, namespace, name, RICH_SPEC)
        assert {ref.kind for ref, _ in taken.values()} == set(BODIES)

        async def told(name: str, ref: Ref) -> bool:
            found = await api.condition(namespace, name, "Stalled")
            return found.get("reason") == "NameTaken" and ref.name in found["message"]

        for name, (ref, _) in taken.items():
            await until(lambda name=name, ref=ref: told(name, ref), f"{name}: {ref} is taken")
        await operator.round()  # it asks whether the name is free by now, and no more than that
        for ref, version in taken.values():
            kind = KIND_BY_NAME[ref.kind]
            assert await _version(api, kind, namespace, ref.name) == version, ref
        assert await api.ready(namespace, "model")


async def test_what_serves_serves_on_while_a_name_of_its_successor_is_taken(
    cluster: ControlPlane, api: Api, namespace: str
) -> None:
    second = simple_spec("s3://models/fraud/v2")
    async with Operator.run(cluster.kubeconfig, settings(namespace)), Pods(api, namespace):
        await deploy(api, namespace, "other", second)
        await deploy(api, namespace)
        for name in ("other", "fraud"):
            await until(lambda name=name: api.ready(namespace, name), f"{name} is Ready")
        status = (await api.resource(namespace, "other"))["status"]
        theirs = Ref("Deployment", f"fraud-{status['stable']['revision']}")
        await _foreign(api, namespace, theirs)
        serving = (await api.resource(namespace, "fraud"))["status"]["stable"]["revision"]
        pods = f"fraud-{serving}"
        before = await api.get(kinds.DEPLOYMENT, namespace, pods)
        service = await _version(api, kinds.SERVICE, namespace, "fraud")
        await deploy(api, namespace, spec=second)

        async def stalled() -> bool:
            return await api.stalled(namespace, "fraud") == "NameTaken"

        await until(stalled, "the name is taken")
        after = await api.get(kinds.DEPLOYMENT, namespace, pods)
        assert before is not None
        assert after is not None
        assert after["metadata"]["generation"] == before["metadata"]["generation"]
        assert await _version(api, kinds.SERVICE, namespace, "fraud") == service
        # As soon as the name is free, the rollout goes on by itself.
        await api.delete(kinds.DEPLOYMENT, namespace, theirs.name)

        async def served() -> bool:
            status = (await api.resource(namespace, "fraud"))["status"]
            return bool(status["stable"]["modelUri"] == second["model"]["uri"])

        await until(served, "v2 serves")


async def test_a_right_that_is_missing_is_told_and_keeps_nothing_else_back(
    cluster: ControlPlane, api: Api, namespace: str
) -> None:
    user = f"operator-{namespace}"
    group = kinds.NETWORK_POLICY.group
    fewer = [
        {**rule, "verbs": ["get", "list", "watch"]} if rule["apiGroups"] == [group] else rule
        for rule in RULES
    ]
    cluster.kubectl("apply", "-f", "-", input=grant(namespace, user, fewer))
    async with (
        Operator.run(cluster.client(user), settings(namespace)) as operator,
        Pods(api, namespace),
    ):
        await deploy(api, namespace)

        async def refused() -> Json:
            found = await api.condition(namespace, "fraud", "Stalled")
            return found if found.get("reason") == "WriteRefused" else {}

        found = await until(refused, "the refusal is told")
        assert "networkpolicies" in found["message"]
        assert "forbidden" in found["message"].lower()
        kinds_there = {ref.kind for ref in await api.children(namespace)}
        assert kinds_there >= {"Deployment", "Service", "PodDisruptionBudget"}
        assert "NetworkPolicy" not in kinds_there
        cluster.kubectl("apply", "-f", "-", input=grant(namespace, user, RULES))

        async def recovered() -> bool:
            for key in operator.process.store.all_keys():
                operator.process.queue.add(key)  # it would try again by itself, in a while
            return await api.ready(namespace, "fraud") and not await api.stalled(namespace, "fraud")

        await until(recovered, "it recovers once it may")


async def test_a_refusal_for_one_object_stalls_no_other(
    cluster: ControlPlane, api: Api, namespace: str, tmp_path: Path
) -> None:
    proxy = Proxy(api.session, api.server)
    proxy.rule = lambda point: (
        "forbidden" if (point.verb, point.target) == ("apply", "NetworkPolicy fraud") else None
    )
    async with (
        proxy.run(tmp_path) as kubeconfig,
        Operator.run(kubeconfig, settings(namespace)),
        Pods(api, namespace),
    ):
        for name in ("fraud", "other"):
            await deploy(api, namespace, name)
        await until(lambda: api.ready(namespace, "other"), "the other is Ready")

        async def stalled() -> bool:
            return await api.stalled(namespace, "fraud") == "WriteRefused"

        await until(stalled, "the refusal is told")
        assert not await api.stalled(namespace, "other")


async def test_a_record_that_cannot_be_read_stops_everything_for_its_object(
    cluster: ControlPlane, api: Api, namespace: str
) -> None:
    async with (
        Operator.run(cluster.kubeconfig, settings(namespace)) as operator,
        Pods(api, namespace),
    ):
        await deploy(api, namespace)
        await deploy(api, namespace, "other")
        await until(lambda: api.ready(namespace, "fraud"), "Ready")
        await operator.settled()
        resource = await api.resource(namespace, "fraud")
        meta = {
            "name": "fraud-broken",
            "labels": {
                kinds.LABEL_MANAGED_BY: kinds.MANAGED_BY,
                kinds.LABEL_DEPLOYMENT: "fraud",
                kinds.LABEL_REVISION: "broken",
            },
            "ownerReferences": [
                {"apiVersion": resource["apiVersion"], "kind": "ModelDeployment", "name": "fraud",
                 "uid": resource["metadata"]["uid"]}
            ],
        }  # fmt: skip
        body = {"metadata": meta, "revision": 9, "data": {"inputs": "none"}}
        await api.create(kinds.CONTROLLER_REVISION, namespace, body)

        async def stalled() -> bool:
            return await api.stalled(namespace, "fraud") == "RecordUnreadable"

        await until(stalled, "the broken record is told")
        before = await api.versions(namespace)
        await deploy(api, namespace, spec=simple_spec("s3://models/fraud/v2"))
        await operator.settled()
        after = await api.versions(namespace)
        changed = {k for k in after if after[k] != before.get(k) and "/other" not in k}
        assert changed == {"ModelDeployment/fraud"}
        await until(lambda: api.ready(namespace, "other"), "the other is Ready")
        found = await api.condition(namespace, "fraud", "Stalled")
        assert "fraud-broken" in found["message"]
        await api.delete(kinds.CONTROLLER_REVISION, namespace, "fraud-broken")

        async def served() -> bool:
            status = (await api.resource(namespace, "fraud"))["status"]
            return str(status["stable"].get("modelUri")).endswith("/v2")

        await until(served, "v2 serves once the record is gone")


async def test_a_defect_in_deciding_stalls_its_own_object_alone(
    cluster: ControlPlane, api: Api, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(observed: Observed) -> Plan:
        if observed.name == "fraud":
            raise ZeroDivisionError("a defect")
        return decide(observed)

    async with (
        Operator.run(cluster.kubeconfig, settings(namespace)) as operator,
        Pods(api, namespace),
    ):
        await deploy(api, namespace)
        await until(lambda: api.ready(namespace, "fraud"), "Ready")
        await operator.settled()
        before = await api.versions(namespace)
        monkeypatch.setattr("mooring.engine.reconciler.decide", wrong)
        await deploy(api, namespace, spec=simple_spec("s3://models/fraud/v2"))
        await deploy(api, namespace, "other")

        async def stalled() -> bool:
            return await api.stalled(namespace, "fraud") == "InternalError"

        await until(stalled, "the defect is told")
        await until(lambda: api.ready(namespace, "other"), "the other is Ready")
        after = await api.versions(namespace)
        assert {k for k in before if after[k] != before[k]} == {"ModelDeployment/fraud"}
        assert "a defect" in (await api.condition(namespace, "fraud", "Stalled"))["message"]
