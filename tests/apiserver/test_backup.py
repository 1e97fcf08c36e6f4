"""A cluster restored from `mooring export`: the same revision serves, and no verb fires again."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.apiserver.cluster import Api, Operator, deploy, settings, simple_spec, until
from tests.apiserver.pods import Pods

from mooring.cli import main
from mooring.core import kinds
from mooring_dev.control_plane import ControlPlane

pytestmark = pytest.mark.apiserver


async def _act(api: Api, namespace: str, action: str) -> None:
    body = {"metadata": {"annotations": {kinds.ANNOTATION_ACTION: action}}}
    await api.patch(kinds.MODEL_DEPLOYMENT, namespace, "fraud", body)


async def _stable(api: Api, namespace: str) -> str:
    status = (await api.resource(namespace, "fraud")).get("status") or {}
    return str((status.get("stable") or {}).get("revision", ""))


async def _with_history(cluster: ControlPlane, api: Api, namespace: str) -> str:
    """A first model, a second one, and a restart of it by a verb; returns what serves then."""
    async with Operator.run(cluster.kubeconfig, settings(namespace)) as operator:
        async with Pods(api, namespace):
            await deploy(api, namespace)
            await until(lambda: api.ready(namespace, "fraud"), "the first model serves")
            first = await _stable(api, namespace)
            await deploy(api, namespace, spec=simple_spec("s3://models/fraud/v2"))

            async def second() -> str:
                now = await _stable(api, namespace)
                return now if now != first else ""

            before = await until(second, "the second model serves")
            await _act(api, namespace, f"restart/{before}/once")

            async def restarted() -> str:
                now = await _stable(api, namespace)
                return now if now not in (first, before) else ""

            serving: str = await until(restarted, "the restarted revision serves")
            await operator.settled()
            return serving


async def _wipe(api: Api, namespace: str) -> None:
    await api.delete(kinds.MODEL_DEPLOYMENT, namespace, "fraud")

    async def gone() -> bool:
        return not await api.children(namespace)

    # Without the operator: its children follow their owner, and nothing waits for a finalizer.
    # Garbage collection learns of new kinds every half minute.
    await until(gone, "the children have followed")


async def test_the_same_model_is_served_by_the_same_revision_and_no_verb_fires_twice(
    cluster: ControlPlane, api: Api, namespace: str, tmp_path: Path
) -> None:
    serving = await _with_history(cluster, api, namespace)
    before = await api.children(namespace, "fraud")
    deployment = kinds.Ref("Deployment", f"fraud-{serving}")
    # In a process of its own loop: the command has one, too.
    exported = await _export(cluster, namespace)
    assert "ownerReferences" not in exported
    assert "\nstatus:" not in exported

    await _wipe(api, namespace)
    cluster.kubectl("apply", "--server-side", "-f", "-", input=exported)

    async with (
        Operator.run(cluster.kubeconfig, settings(namespace)) as operator,
        Pods(api, namespace),
    ):
        await until(lambda: api.ready(namespace, "fraud"), "Ready after the restore")
        await operator.settled()
        after = await api.children(namespace, "fraud")
        assert await _stable(api, namespace) == serving
        assert after[deployment]["spec"]["template"] == before[deployment]["spec"]["template"]
        assert _revisions(after) == _revisions(before)
        assert [ref for ref in after if ref.kind == "Deployment"] == [deployment]
        resource = await api.resource(namespace, "fraud")
        assert resource["status"].get("candidate") is None
        for child in after.values():
            owners = child["metadata"]["ownerReferences"]
            assert [o["uid"] for o in owners] == [resource["metadata"]["uid"]]


def _revisions(children: dict[kinds.Ref, dict[str, object]]) -> list[str]:
    return sorted(ref.name for ref in children if ref.kind == "ControllerRevision")


async def _export(cluster: ControlPlane, namespace: str) -> str:
    import asyncio

    result = await asyncio.to_thread(
        CliRunner().invoke,
        main,
        ["export", "-n", namespace, "--kubeconfig", str(cluster.kubeconfig)],
    )
    assert result.exit_code == 0, result.output
    return result.stdout
