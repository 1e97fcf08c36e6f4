"""What has gone or changed since it was decided upon is not made again by what was decided."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from tests.engine.test_reconciler import FRAUD, Setting

from mooring.core import kinds
from mooring.core.kinds import Kind, Ref
from mooring.engine.second_look import Conflict

Json = dict[str, Any]


@pytest.fixture
def setting() -> Setting:
    return Setting()


async def test_a_child_that_goes_with_its_deployment_is_not_made_again(setting: Setting) -> None:
    """Its own deletion may be seen later than its children's, or never."""
    await setting.settle()
    before = len(setting.server.writes)
    del setting.server.objects[Ref("ModelDeployment", "fraud")]
    policy = setting.server.objects.pop(Ref("NetworkPolicy", "fraud"))
    setting.store.remove(kinds.NETWORK_POLICY, policy, gone=True)
    with pytest.raises(Conflict):
        await setting.reconciler.reconcile(FRAUD)
    assert setting.server.writes[before:] == []
    await setting.reconciler.reconcile(FRAUD)
    assert setting.server.writes[before:] == [], "and it is known to be gone"


async def test_a_child_that_goes_amid_a_round_is_not_made_by_what_was_decided_before(
    setting: Setting,
) -> None:
    """Found by a fault run: pods of an aborted revision were started again as they went."""
    await setting.settle()
    resource = copy.deepcopy(setting.server.objects[Ref("ModelDeployment", "fraud")])
    resource["metadata"] |= {"generation": 2, "resourceVersion": str(next(setting.server.versions))}
    resource["spec"]["replicas"] = 5  # has status written first
    setting.server.objects[Ref("ModelDeployment", "fraud")] = resource
    setting.store.put(kinds.MODEL_DEPLOYMENT, copy.deepcopy(resource))
    write = setting.server.patch_status

    async def goes(kind: Kind, namespace: str, name: str, body: Json) -> Json:
        policy = setting.server.objects.pop(Ref("NetworkPolicy", "fraud"))
        setting.store.remove(kinds.NETWORK_POLICY, policy)
        return await write(kind, namespace, name, body)

    setting.server.patch_status = goes  # type: ignore[method-assign]
    before = len(setting.server.writes)
    with pytest.raises(Conflict):
        await setting.reconciler.reconcile(FRAUD)
    assert "apply NetworkPolicy fraud" not in setting.server.writes[before:]
    setting.server.patch_status = write  # type: ignore[method-assign]
    await setting.reconciler.reconcile(FRAUD)
    assert setting.child("NetworkPolicy"), "the next round decides anew"


async def test_a_status_in_another_form_is_written_over(setting: Setting) -> None:
    await setting.settle()
    resource = copy.deepcopy(setting.server.objects[Ref("ModelDeployment", "fraud")])
    resource["metadata"]["resourceVersion"] = str(next(setting.server.versions))
    resource["status"]["rollout"] = 5
    setting.server.objects[Ref("ModelDeployment", "fraud")] = resource
    setting.store.put(kinds.MODEL_DEPLOYMENT, copy.deepcopy(resource))
    before = len(setting.server.writes)
    await setting.settle()
    assert setting.server.writes[before:] == ["status"]
    written = setting.server.objects[Ref("ModelDeployment", "fraud")]["status"]["rollout"]
    assert isinstance(written, dict)


async def test_a_child_of_one_that_was_made_anew_meanwhile_is_left_to_the_new_one(
    setting: Setting,
) -> None:
    await setting.settle()
    before = len(setting.server.writes)
    resource = setting.server.objects[Ref("ModelDeployment", "fraud")]
    resource["metadata"] |= {
        "uid": "another",
        "resourceVersion": str(next(setting.server.versions)),
    }
    policy = setting.server.objects.pop(Ref("NetworkPolicy", "fraud"))
    setting.store.remove(kinds.NETWORK_POLICY, policy, gone=True)
    with pytest.raises(Conflict):
        await setting.reconciler.reconcile(FRAUD)
    assert setting.server.writes[before:] == []


async def test_an_apply_names_the_object_that_it_was_decided_on(setting: Setting) -> None:
    """With a uid the API server makes nothing anew; found by a fault run."""
    await setting.settle()
    policy = copy.deepcopy(setting.server.objects[Ref("NetworkPolicy", "fraud")])
    policy["spec"]["ingress"] = []
    policy["metadata"]["resourceVersion"] = str(next(setting.server.versions))
    setting.store.put(kinds.NETWORK_POLICY, copy.deepcopy(policy))
    sent: list[Json] = []
    apply = setting.server.apply

    async def listens(kind: Kind, manifest: Json, **more: Any) -> Json:
        sent.append(manifest)
        return await apply(kind, manifest, **more)

    setting.server.apply = listens  # type: ignore[method-assign]
    await setting.settle()
    assert [m["metadata"]["uid"] for m in sent] == [policy["metadata"]["uid"]]
