"""Two operator processes and one Lease: who may write, and what a death in between leaves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from tests.apiserver.cluster import (
    LEASE,
    SECONDS,
    Api,
    Json,
    Operator,
    deploy,
    install,
    settings,
    simple_spec,
    until,
)
from tests.apiserver.pods import Pods
from tests.faults.history import History, end_state
from tests.faults.oracles import judge
from tests.faults.proxy import Point, Proxy

from mooring.core import kinds
from mooring_dev.control_plane import ControlPlane

pytestmark = pytest.mark.apiserver

_OPERATOR = Path(__file__).parents[2] / "operator"
_WRITES = ("apply", "scale", "create", "delete", "patch", "patch-status")
#: A Lease of whole seconds, as short as the settings allow.
_LEASE = {"duration": "4s", "renewDeadline": "2500ms", "retryPeriod": "1s"}


@dataclass(frozen=True)
class Member:
    """One operator process; ``log`` is what it has said."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    async def ended(self, seconds: float = SECONDS) -> int:
        async with asyncio.timeout(seconds):
            return await self.process.wait()


@contextlib.asynccontextmanager
async def member(
    name: str, folder: Path, kubeconfig: Path, namespace: str
) -> AsyncIterator[Member]:
    """Runs ``mooring run`` as a process of its own; it is killed at the end."""
    config, log = folder / f"{name}.yaml", folder / f"{name}.log"
    config.write_text(
        yaml.safe_dump({"namespaces": [namespace], "port": 0, "drain": "200ms", "lease": _LEASE})
    )
    environment = {**os.environ, "MOORING_NAMESPACE": namespace, "POD_NAME": name}
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "mooring", "run", "--config", str(config),
            "--kubeconfig", str(kubeconfig),
            stdout=out, stderr=out, cwd=_OPERATOR, env=environment,
        )  # fmt: skip
    try:
        yield Member(name, process, log)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _holds(api: Api, namespace: str, name: str) -> bool:
    lease = await api.get(LEASE, namespace, "mooring-operator")
    return lease is not None and lease["spec"].get("holderIdentity") == name


async def _serves(api: Api, namespace: str, uri: str, name: str = "fraud") -> bool:
    status = (await api.resource(namespace, name)).get("status") or {}
    stable = status.get("stable") or {}
    return stable.get("modelUri") == uri and await api.ready(namespace, name)


def _has_compared(proxy: Proxy) -> bool:
    """Whether it has listed what it decides on, has begun to watch it, and compared once."""
    return Point("list", "ModelDeployment", 3) in proxy.seen


def _written(proxy: Proxy) -> list[str]:
    return [str(point) for point in proxy.seen if point.verb in _WRITES]


async def test_a_leader_that_slept_past_its_lease_writes_nothing_when_it_wakes(
    cluster: ControlPlane, api: Api, namespace: str, tmp_path: Path
) -> None:
    """I9. It wakes with work to do: what it has not seen yet was changed meanwhile."""
    proxy = Proxy(api.session, api.server)
    async with (
        proxy.run(tmp_path) as behind,
        member("first", tmp_path, behind, namespace) as first,
        Pods(api, namespace),
    ):
        await until(lambda: _holds(api, namespace, "first"), "the first one leads")
        await deploy(api, namespace)
        await until(lambda: _serves(api, namespace, "s3://models/fraud/v1"), "v1 serves")
        await _at_rest(api, namespace)
        async with member("second", tmp_path, cluster.kubeconfig, namespace):
            first.signal(signal.SIGSTOP)
            written = len(_written(proxy))
            # Before anybody else leads: this is the first one's work, and it will wake up to it.
            await deploy(api, namespace, spec=simple_spec("s3://models/fraud/v2"))
            await until(lambda: _holds(api, namespace, "second"), "the second one leads")
            await until(lambda: _serves(api, namespace, "s3://models/fraud/v2"), "v2 serves")
            await until(lambda: _only_one_revision_lives(api, namespace), "v1's pods are gone")
            await _at_rest(api, namespace)
            versions = await api.versions(namespace)
            first.signal(signal.SIGCONT)
            assert await first.ended() == 1, "it ends, so that it begins with a fresh view"
            assert first.log.read_text().splitlines()[-1].startswith("the lease was lost: ")
            assert _written(proxy)[written:] == []
            assert await api.versions(namespace) == versions
            assert await _holds(api, namespace, "second")


async def test_a_standby_whose_watches_had_stopped_catches_up_before_it_leads(
    cluster: ControlPlane, api: Api, namespace: str, tmp_path: Path
) -> None:
    """It goes on from what the leader before it did, long before the next resync."""
    proxy = Proxy(api.session, api.server)
    proxy.rule = lambda point: "drop" if point.verb == "watch" else None
    history = History()
    async with (
        proxy.run(tmp_path) as behind,
        history.watch(api, namespace),
        member("first", tmp_path, cluster.kubeconfig, namespace) as first,
        Pods(api, namespace),
    ):
        await until(lambda: _holds(api, namespace, "first"), "the first one leads", 30)
        async with member("second", tmp_path, behind, namespace):
            await until(lambda: _has_compared(proxy), "the second one stands by", 40)
            await deploy(api, namespace)
            await until(lambda: _serves(api, namespace, "s3://models/fraud/v1"), "v1 serves")
            first.signal(signal.SIGKILL)
            await deploy(api, namespace, spec=simple_spec("s3://models/fraud/v2"))
            await until(lambda: _holds(api, namespace, "second"), "the second one leads", 30)
            proxy.rule = lambda point: None
            await until(lambda: _serves(api, namespace, "s3://models/fraud/v2"), "v2 serves")
            await until(lambda: _only_one_revision_lives(api, namespace), "v1's pods are gone")
    assert judge(history.in_order()) == []


async def test_a_leader_that_is_told_to_stop_gives_its_lease_up(
    cluster: ControlPlane, api: Api, namespace: str, tmp_path: Path
) -> None:
    """A standby need not wait for it to run out."""
    async with member("first", tmp_path, cluster.kubeconfig, namespace) as first:
        await until(lambda: _holds(api, namespace, "first"), "it leads")
        first.signal(signal.SIGTERM)
        assert await first.ended() == 0
        lease = await api.get(LEASE, namespace, "mooring-operator")
        assert lease is not None
        assert not lease["spec"].get("holderIdentity")


async def test_a_leader_killed_amid_its_applies_leaves_what_another_one_completes(
    cluster: ControlPlane, api: Api, namespace: str, tmp_path: Path
) -> None:
    undisturbed = await api.namespace("k")
    await install(api, undisturbed)
    async with Operator.run(cluster.kubeconfig, settings(undisturbed)), Pods(api, undisturbed):
        await _deploy_all(api, undisturbed)
        await _all_serve(api, undisturbed)
        await _at_rest(api, undisturbed)
    wanted = await end_state(api, undisturbed)

    async with Pods(api, namespace):
        async with member("first", tmp_path, cluster.kubeconfig, namespace) as first:
            await until(lambda: _holds(api, namespace, "first"), "it leads")
            await _deploy_all(api, namespace)
            await until(lambda: _some_children(api, namespace), "some children are made")
            first.signal(signal.SIGKILL)
            await first.ended()
        async with Operator.run(cluster.kubeconfig, settings(namespace)):
            await _all_serve(api, namespace)
            await until(lambda: _ended(api, namespace, wanted), "the same end state")
            await _at_rest(api, namespace)
            assert await end_state(api, namespace) == wanted


_NAMES = ("fraud", "churn", "price", "spam")


async def _deploy_all(api: Api, namespace: str) -> None:
    for name in _NAMES:
        await deploy(api, namespace, name)


async def _all_serve(api: Api, namespace: str) -> None:
    for name in _NAMES:
        await until(
            lambda name=name: _serves(api, namespace, "s3://models/fraud/v1", name),
            f"{name} serves",
        )


async def _ended(api: Api, namespace: str, wanted: Json) -> bool:
    return await end_state(api, namespace) == wanted


async def _at_rest(api: Api, namespace: str) -> None:
    """Waits until nothing has been written for a second."""
    before: dict[str, str] = {}
    async with asyncio.timeout(SECONDS):
        while (now := await api.versions(namespace)) != before:
            before = now
            await asyncio.sleep(1.0)


async def _only_one_revision_lives(api: Api, namespace: str) -> bool:
    per_revision = (kinds.DEPLOYMENT, kinds.CONFIG_MAP)
    return [len(await api.list(k, namespace, kinds.LABEL_REVISION)) for k in per_revision] == [1, 1]


async def _some_children(api: Api, namespace: str) -> bool:
    return len(await api.list(kinds.CONFIG_MAP, namespace, kinds.LABEL_DEPLOYMENT)) >= 2
