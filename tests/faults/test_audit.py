"""What is read from the API server's audit log, and what is found in it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.apiserver.cluster import Api, install
from tests.faults.audit import Audit, Written, judge_writes
from tests.faults.proxy import Proxy

from mooring.adapters.kube import KubeClient, load_configuration
from mooring.core import kinds
from mooring_dev.control_plane import AUDIT_LOG

RESTED = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
GUARDED: dict[str, Any] = {"metadata": {"resourceVersion": "7"}, "status": {"phase": "Ready"}}


def written(verb: str, resource: str, at: str = "11:59:59.999999", **body: Any) -> Written:
    parts = dict(zip(("resource", "subresource"), resource.split("/"), strict=False))
    return Written.read(
        {
            "requestReceivedTimestamp": f"2026-11-21T{at}Z",
            "verb": verb,
            "objectRef": {**parts, "name": "fraud", "namespace": "n"},
            "responseStatus": {"code": 200},
            "requestObject": body or None,
        }
    )


@pytest.mark.parametrize(
    "good",
    [
        written("patch", "modeldeployments/status", **GUARDED),
        written("delete", "services", preconditions={"uid": "1"}),
        written("patch", "deployments"),
        written("create", "retrainingrequests"),
    ],
    ids=str,
)
def test_what_the_operator_may_write_is_no_breach(good: Written) -> None:
    assert judge_writes([good], RESTED) == []


@pytest.mark.parametrize(
    ("bad", "found"),
    [
        (written("patch", "deployments", at="12:00:00.000001"), "I1"),
        (written("patch", "modeldeployments", spec={}), "I10"),
        (written("patch", "modeldeployments/status", **GUARDED, spec={}), "I10"),
        (written("patch", "modeldeployments/status", status={}), "I9"),
        (written("delete", "services"), "I2"),
        (written("delete", "services", preconditions={"resourceVersion": "7"}), "I2"),
        (written("deletecollection", "services"), "I2"),
    ],
    ids=["at rest", "the object", "spec in status", "unguarded", "no conditions", "no uid", "all"],
)
def test_what_it_may_not_is_found_with_the_request(bad: Written, found: str) -> None:
    [text] = judge_writes([bad], RESTED)
    assert text.startswith(f"{found}: ")
    assert text.endswith(f"({bad})")


def test_a_line_that_is_being_written_is_left_for_later(tmp_path: Path) -> None:
    log = tmp_path / AUDIT_LOG
    log.write_text("before\n")
    audit = Audit.of(Api(None, "", tmp_path), "n")  # type: ignore[arg-type]
    line = json.dumps(
        {
            "requestReceivedTimestamp": "2026-11-21T12:00:00.000000Z",
            "verb": "patch",
            "userAgent": "mooring",
            "objectRef": {"resource": "services", "name": "fraud", "namespace": "n"},
            "responseStatus": {"code": 200},
        },
        separators=(",", ":"),
    )
    log.write_text(f"before\n{line}\n{line[:80]}")
    assert len(audit.writes()) == 1


@pytest.mark.faults
@pytest.mark.allow_hosts(["127.0.0.0/8", "::1", "localhost"])
async def test_the_log_tells_the_operators_writes_from_all_others(api: Api, tmp_path: Path) -> None:
    """Through the proxy, which passes on who asks; a deletion and a status with their bodies."""
    namespace, other = await api.namespace("a"), await api.namespace("a")
    for name in (namespace, other):
        await install(api, name)
    audit = Audit.of(api, namespace)
    made = {"metadata": {"name": "fraud", "namespace": namespace}, "data": {"a": "1"}}
    await api.create(kinds.CONFIG_MAP, namespace, made)
    proxy = Proxy(api.session, api.server)
    async with proxy.run(tmp_path) as kubeconfig:
        client = KubeClient(await load_configuration(str(kubeconfig)), _Held())
        try:
            live = await client.get(kinds.CONFIG_MAP, namespace, "fraud")
            assert live is not None
            body = {**made, "apiVersion": "v1", "kind": "ConfigMap"}
            for where in (namespace, other):
                meta = {"name": "fraud", "namespace": where}
                await client.apply(kinds.CONFIG_MAP, {**body, "metadata": meta})
            await client.delete(kinds.CONFIG_MAP, namespace, "fraud", live["metadata"]["uid"])
        finally:
            await client.close()
    applied, deleted = audit.writes()
    assert (applied.verb, applied.resource, applied.body) == ("patch", "configmaps", {})
    assert (deleted.verb, deleted.name, deleted.code) == ("delete", "fraud", 200)
    assert deleted.body["preconditions"] == {"uid": live["metadata"]["uid"]}
    assert judge_writes([applied, deleted], None) == []


class _Held:
    """A fence that lets everything through."""

    def remaining(self) -> float:
        return 60.0
