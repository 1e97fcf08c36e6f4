"""Router gateway with the real definitions of the Gateway API, and a controller that is faked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.apiserver.cluster import (
    DIGEST,
    Api,
    Operator,
    Refused,
    deploy,
    install,
    settings,
    simple_spec,
    until,
)
from tests.apiserver.fake_gateway import FakeGateway
from tests.apiserver.pods import Pods

from mooring.core import kinds
from mooring_dev.control_plane import ControlPlane
from mooring_dev.definitions import gateway_api_definitions
from mooring_dev.errors import DevError

pytestmark = pytest.mark.apiserver

REPOSITORY = Path(__file__).parents[2]
ROUTES = "gateway.networking.k8s.io_httproutes.yaml"
V2 = "s3://models/fraud/v2"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane of its own: what is installed here concerns no other test."""
    with ControlPlane.start(tmp_path_factory.mktemp("gateway")) as plane:
        plane.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds"))
        plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        yield plane


@pytest.fixture
async def api(cluster: ControlPlane) -> AsyncIterator[Api]:
    async with Api.connect(cluster.kubeconfig) as connected:
        yield connected


@pytest.fixture
async def namespace(api: Api) -> str:
    name = await api.namespace()
    await install(api, name)
    return name


def install_gateway_api(cluster: ControlPlane) -> None:
    cluster.kubectl("apply", "--server-side", "-f", str(gateway_api_definitions() / ROUTES))
    end = time.monotonic() + 30
    while True:  # `kubectl wait` fails on a definition that has no status yet
        try:
            cluster.kubectl("get", "--raw", kinds.HTTP_ROUTE.path(None))
        except DevError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
        else:
            return


def remove_gateway_api(cluster: ControlPlane) -> None:
    name = "crd/httproutes.gateway.networking.k8s.io"
    cluster.kubectl("delete", name, "--ignore-not-found", "--timeout=30s")


@pytest.fixture
def gateway_api(cluster: ControlPlane) -> None:
    install_gateway_api(cluster)


def gateway_spec(*parents: dict[str, str], **changes: Any) -> dict[str, Any]:
    gateway = {
        "parentRefs": list(parents) or [{"name": "public", "namespace": "infra"}],
        "hostnames": ["fraud.example.com"],
    }
    return simple_spec(traffic={"router": "gateway", "gateway": gateway}, **changes)


async def weights(api: Api, namespace: str) -> dict[str, int]:
    route = await api.get(kinds.HTTP_ROUTE, namespace, "fraud")
    assert route is not None
    rule = route["spec"]["rules"][-1]
    return {
        ref["name"].removeprefix("fraud-").removesuffix("-gateway"): ref["weight"]
        for ref in rule["backendRefs"]
    }


async def test_a_cluster_without_the_gateway_api_says_so_and_gets_its_routes_once_it_has_it(
    cluster: ControlPlane, api: Api, namespace: str
) -> None:
    remove_gateway_api(cluster)
    async with (
        Operator.run(cluster.kubeconfig, settings(namespace)) as operator,
        Pods(api, namespace),
        FakeGateway(api, namespace),
    ):
        await deploy(api, namespace, spec=gateway_spec())

        async def reason() -> str:
            return await api.stalled(namespace, "fraud")

        async def missing() -> bool:
            return await reason() == "GatewayApiMissing"

        async def serves() -> bool:
            return await reason() == "" and await api.ready(namespace, "fraud")

        await until(missing, "GatewayApiMissing")
        await operator.settled()
        before = operator.requests()
        await operator.round()
        assert operator.requests() == before, "a kind that is unknown is not asked for"
        await asyncio.to_thread(install_gateway_api, cluster)
        await until(serves, "Ready behind the Gateway")
        watched = operator.metric("mooring_watch_events_total", kind="HTTPRoute")
        assert watched > 0, "the Gateway's word came by a watch"
        await asyncio.to_thread(remove_gateway_api, cluster)
        await until(missing, "GatewayApiMissing again")
        assert await api.ready(namespace, "fraud"), "pods serve at the Service as before"
        await asyncio.to_thread(install_gateway_api, cluster)
        await until(serves, "the route is back")


@pytest.mark.usefixtures("gateway_api")
async def test_a_canary_goes_through_and_a_second_resync_writes_nothing(
    cluster: ControlPlane, api: Api, namespace: str
) -> None:
    steps = [
        {"mirror": 50, "duration": "1s"},
        {"match": [{"header": "X-Tester", "exact": "yes"}], "duration": "1s"},
        {"weight": 20, "duration": "1s"},
        {"pause": {}},
    ]
    async with (
        Operator.run(cluster.kubeconfig, settings(namespace)) as operator,
        Pods(api, namespace),
        FakeGateway(api, namespace) as gateway,
    ):
        await deploy(api, namespace, spec=gateway_spec(rollout={"steps": steps}))
        await until(lambda: api.ready(namespace, "fraud"), "Ready")
        stable = (await api.resource(namespace, "fraud"))["status"]["stable"]["revision"]
        assert await weights(api, namespace) == {stable: 100}
        model = {"uri": V2, "digest": DIGEST}
        await deploy(api, namespace, spec=gateway_spec(rollout={"steps": steps}, model=model))

        async def paused() -> bool:
            status = (await api.resource(namespace, "fraud"))["status"]
            return bool(status.get("rollout", {}).get("doing") == "pause until promote")

        await until(paused, "the pause after the steps")
        status = (await api.resource(namespace, "fraud"))["status"]
        candidate = status["candidate"]["revision"]
        assert (status["stable"]["weight"], status["candidate"]["weight"]) == (80, 20)
        public = await api.get(kinds.SERVICE, namespace, "fraud")
        assert public is not None
        assert public["spec"]["selector"][kinds.LABEL_REVISION] == stable
        action = {kinds.ANNOTATION_ACTION: f"promote/{candidate}/1"}
        await api.patch(
            kinds.MODEL_DEPLOYMENT, namespace, "fraud", {"metadata": {"annotations": action}}
        )

        await until(
            lambda: gateway.seen[-1] == {f"fraud-{candidate}-gateway": 100},
            "the candidate alone in the route",
            60,
        )
        names = {"stable": f"fraud-{stable}-gateway", "candidate": f"fraud-{candidate}-gateway"}
        turns = [
            {key: found.get(name) for key, name in names.items() if name in found}
            for found in gateway.seen
        ]
        assert turns == [
            {"stable": 100},
            {"stable": 100, "candidate": 0},
            {"stable": 80, "candidate": 20},
            {"stable": 0, "candidate": 100},
            {"candidate": 100},
        ]

        async def left() -> bool:
            return await api.get(kinds.SERVICE, namespace, names["stable"]) is None

        await until(left, "the old revision is gone")
        await operator.settled()
        written = operator.writes
        await operator.resync()
        await operator.round()
        assert operator.writes == written


@pytest.mark.usefixtures("gateway_api")
async def test_a_refused_parent_stalls_the_rollout_while_stable_serves(
    cluster: ControlPlane, api: Api, namespace: str
) -> None:
    async with (
        Operator.run(cluster.kubeconfig, settings(namespace)),
        Pods(api, namespace),
        FakeGateway(api, namespace) as gateway,
    ):
        await deploy(api, namespace, spec=gateway_spec(rollout={"steps": [{"weight": 20}]}))
        await until(lambda: api.ready(namespace, "fraud"), "Ready")
        stable = (await api.resource(namespace, "fraud"))["status"]["stable"]["revision"]
        gateway.refuses = "namespace is not allowed by any listener"
        await deploy(
            api,
            namespace,
            spec=gateway_spec(
                rollout={"steps": [{"weight": 20}]}, model={"uri": V2, "digest": DIGEST}
            ),
        )

        async def refused() -> bool:
            return await api.stalled(namespace, "fraud") == "GatewayRefused"

        await until(refused, "GatewayRefused")
        condition = await api.condition(namespace, "fraud", "Stalled")
        assert "Gateway infra/public" in condition["message"]
        assert gateway.refuses in condition["message"]
        assert await api.ready(namespace, "fraud")
        public = await api.get(kinds.SERVICE, namespace, "fraud")
        assert public is not None
        assert public["spec"]["selector"][kinds.LABEL_REVISION] == stable
        gateway.refuses = ""

        async def through() -> bool:
            status = (await api.resource(namespace, "fraud"))["status"]
            return status["stable"]["revision"] != stable and len(await weights(api, namespace)) < 2

        await until(through, "the rollout goes on")


@pytest.mark.usefixtures("gateway_api")
async def test_a_route_that_somebody_has_edited_or_deleted_is_mended(
    cluster: ControlPlane, api: Api, namespace: str
) -> None:
    async with (
        Operator.run(cluster.kubeconfig, settings(namespace)) as operator,
        Pods(api, namespace),
        FakeGateway(api, namespace),
    ):
        await deploy(api, namespace, spec=gateway_spec())
        await until(lambda: api.ready(namespace, "fraud"), "Ready")
        await operator.settled()
        whole = await weights(api, namespace)
        route = await api.get(kinds.HTTP_ROUTE, namespace, "fraud")
        assert route is not None
        route["spec"]["rules"][0]["backendRefs"][0]["weight"] = 7
        await api.request("PUT", kinds.HTTP_ROUTE.path(namespace, "fraud"), route)

        async def mended() -> bool:
            live = await api.get(kinds.HTTP_ROUTE, namespace, "fraud")
            return live is not None and await weights(api, namespace) == whole

        await until(mended, "the weight is back")
        await api.delete(kinds.HTTP_ROUTE, namespace, "fraud")
        await until(mended, "the route is back")
        await until(lambda: api.ready(namespace, "fraud"), "Ready again")


@pytest.mark.usefixtures("gateway_api")
async def test_what_only_the_route_s_own_definition_refuses_is_put_before_the_user(
    cluster: ControlPlane, api: Api, namespace: str
) -> None:
    twice = ({"name": "public"}, {"name": "public", "sectionName": "web"})
    async with Operator.run(cluster.kubeconfig, settings(namespace)), Pods(api, namespace):
        await deploy(api, namespace, spec=gateway_spec(*twice))

        async def refused() -> bool:
            return await api.stalled(namespace, "fraud") == "WriteRefused"

        await until(refused, "WriteRefused")
        words = (await api.condition(namespace, "fraud", "Stalled"))["message"]
        assert "HTTPRoute fraud" in words
        assert "sectionName" in words


@pytest.mark.usefixtures("gateway_api")
async def test_the_example_gets_its_route(cluster: ControlPlane, api: Api, namespace: str) -> None:
    example = yaml.safe_load((REPOSITORY / "examples/gateway/modeldeployment.yaml").read_text())
    async with (
        Operator.run(cluster.kubeconfig, settings(namespace)),
        Pods(api, namespace),
        FakeGateway(api, namespace),
    ):
        await deploy(api, namespace, spec=example["spec"])
        await until(lambda: api.ready(namespace, "fraud"), "Ready")
        assert list((await weights(api, namespace)).values()) == [100]


@pytest.mark.parametrize(
    ("traffic", "words"),
    [
        ({"router": "gateway"}, "router gateway needs gateway.parentRefs"),
        ({"gateway": {"parentRefs": [{"name": "a"}]}}, "no other router has a gateway"),
        ({"router": "gateway", "gateway": {"parentRefs": []}}, "parentRefs"),
        (
            {"router": "gateway", "gateway": {"parentRefs": [{"name": "a"}]},
             "sessionAffinity": {"header": "x-user"}},
            "only router envoy keeps sessions",
        ),
    ],
)  # fmt: skip
async def test_a_gateway_without_its_router_or_a_router_without_it_is_refused_at_apply(
    api: Api, namespace: str, traffic: dict[str, Any], words: str
) -> None:
    with pytest.raises(Refused, match=words):
        await deploy(api, namespace, spec=simple_spec(traffic=traffic))
