"""What is rendered from a table, without an Envoy."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from tests.router.tables import PORTS, tables, traffics

from mooring.api.traffic_spec import TrafficSpec
from mooring.core import kinds
from mooring.core.observed import RenderSettings
from mooring.core.render.metadata import selector
from mooring.core.render.router.bootstrap import LATENCY_EDGES_MS, bootstrap
from mooring.core.render.router.envoy import (
    cluster_name,
    envoy_files,
    envoy_version,
    main_port,
    split_clusters,
)
from mooring.core.render.router.objects import (
    router_config_map,
    router_deployment,
    router_network_policy,
    router_pdb,
    router_selector,
    router_template,
)
from mooring.core.render.router.report import endpoints, report
from mooring.core.render.router.table import read_table
from mooring.core.traffic import Backend, BackendPort, Match, Route, Table

OWNER: dict[str, Any] = {"deployment": "fraud", "namespace": "shop", "uid": "uid-1"}
STABLE = Backend("aa", "fraud-aa.shop.svc.cluster.local", PORTS, halved=True)
NEXT = Backend("bb", "fraud-bb.shop.svc.cluster.local", PORTS)


def files(table: Table, traffic: TrafficSpec | None = None) -> dict[str, Any]:
    found = envoy_files(table, traffic or TrafficSpec(), deployment="fraud", namespace="shop")
    return {name: json.loads(content) for name, content in found.items()}


def routes(table: Table, port: str = "http", traffic: TrafficSpec | None = None) -> list[Any]:
    (configuration,) = files(table, traffic)[f"rds-{port}.json"]["resources"]
    (host,) = configuration["virtual_hosts"]
    found: list[Any] = host["routes"]
    return found


# --- clusters -----------------------------------------------------------------------------------


def test_a_backend_has_all_its_clusters_whatever_the_route_says_of_it() -> None:
    for route in (Route(), Route({"aa": 100}), Route({"aa": 100}, {"bb": 10})):
        names = {c["name"] for c in files(Table(route, (STABLE, NEXT)))["cds.json"]["resources"]}
        assert names == {
            "aa", "aa_grpc", "aa@bb", "aa_grpc@bb",
            "aa-a", "aa-b", "aa-match", "aa-shadow", "aa-fallback",
            "aa-a_grpc", "aa-b_grpc", "aa-match_grpc", "aa-shadow_grpc", "aa-fallback_grpc",
            "bb", "bb-match", "bb-shadow", "bb-fallback",
            "bb_grpc", "bb-match_grpc", "bb-shadow_grpc", "bb-fallback_grpc",
            "aa-a@bb", "aa-b@bb", "bb@aa", "aa-a_grpc@bb", "aa-b_grpc@bb", "bb_grpc@aa",
        }  # fmt: skip


def test_a_fallback_is_counted_apart_and_the_aggregate_by_its_revision_s_name() -> None:
    found = files(Table(Route({"aa": 95, "bb": 5}), (STABLE, NEXT)))["cds.json"]["resources"]
    clusters = {c["name"]: c for c in found}
    either = clusters["bb_grpc@aa"]
    assert either["alt_stat_name"] == "bb_grpc"
    assert either["cluster_type"]["typed_config"]["clusters"] == ["bb_grpc", "aa-fallback_grpc"]
    assert (
        either["typed_extension_protocol_options"]
        == clusters["bb_grpc"]["typed_extension_protocol_options"]
    )

    def own(name: str) -> bool:
        (pod,) = clusters[name]["load_assignment"]["endpoints"][0]["lb_endpoints"]
        return "metadata" in pod

    assert own("bb")
    assert own("aa-a")
    assert not own("aa-fallback")


def test_a_request_is_tried_at_the_fallback_after_its_retries_and_only_where_there_is_one() -> None:
    both = Table(Route({"aa": 95, "bb": 5}), (STABLE, NEXT))
    (found,) = routes(both)
    policy = found["route"]["retry_policy"]
    assert policy["num_retries"] == 2
    assert policy["retry_priority"]["typed_config"]["update_frequency"] == 2
    (found,) = routes(Table(Route({"aa": 100}), (STABLE, NEXT)))
    assert found["route"]["retry_policy"]["num_retries"] == 1
    assert "retry_priority" not in found["route"]["retry_policy"]


def test_the_main_port_is_the_one_called_http_or_else_the_first() -> None:
    assert main_port(PORTS[::-1]) == "http"
    assert main_port((BackendPort("rest", 1), BackendPort("grpc", 2))) == "rest"
    assert cluster_name("aa", "b", "grpc") == "aa-b_grpc"
    assert split_clusters(STABLE) == ("aa-a", "aa-b")
    assert split_clusters(NEXT, "grpc") == ("bb_grpc",)


def test_a_full_name_is_looked_up_as_such_and_an_address_stays_one() -> None:
    def address(host: str) -> str:
        backend = Backend("aa", host, PORTS[:1])
        cluster = files(Table(Route(), (backend,)))["cds.json"]["resources"][0]
        endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
        return str(endpoint["address"]["socket_address"]["address"])

    assert address("fraud-aa.shop.svc.cluster.local") == "fraud-aa.shop.svc.cluster.local."
    assert address("fraud-aa.shop.svc.cluster.local.") == "fraud-aa.shop.svc.cluster.local."
    assert address("fraud-aa.shop.svc") == "fraud-aa.shop.svc"
    assert address("10.1.2.3") == "10.1.2.3"
    assert address("::1") == "::1"


# --- routes -------------------------------------------------------------------------------------


def weights(found: Any) -> dict[str, int]:
    return {c["name"]: c["weight"] for c in found["route"]["weighted_clusters"]["clusters"]}


def test_weights_are_kept_exactly_with_halves_of_equal_weight() -> None:
    (found,) = routes(Table(Route({"aa": 95, "bb": 5}), (NEXT, STABLE)))
    assert weights(found) == {"aa-a": 95, "aa-b": 95, "bb@aa": 10}
    (found,) = routes(Table(Route({"aa": 95, "bb": 5}), (NEXT, STABLE)), "grpc")
    assert weights(found) == {"aa-a_grpc": 95, "aa-b_grpc": 95, "bb_grpc@aa": 10}


def test_matches_come_in_their_order_and_before_the_weights() -> None:
    matches = (Match("bb", (("x-a", "1"), ("x-b", "2"))), Match("aa", (("x-a", "1"),)))
    first, second, rest = routes(Table(Route({"aa": 100}, matches=matches), (STABLE, NEXT)))
    assert [h["name"] for h in first["match"]["headers"]] == ["x-a", "x-b"]
    assert (first["route"]["cluster"], second["route"]["cluster"]) == ("bb-match", "aa-match")
    assert weights(rest) == {"aa-a": 100, "aa-b": 100}


def test_copies_are_of_the_randomly_split_requests_and_their_share_is_exact() -> None:
    route = Route({"aa": 100}, {"bb": 7}, (Match("bb", (("x", "y"),)),))
    matched, rest = routes(Table(route, (STABLE, NEXT)))
    assert "request_mirror_policies" not in matched["route"]
    (mirror,) = rest["route"]["request_mirror_policies"]
    assert mirror["cluster"] == "bb-shadow"
    fraction = mirror["runtime_fraction"]["default_value"]
    assert fraction == {"numerator": 7, "denominator": "HUNDRED"}


def test_a_port_that_the_candidate_lacks_is_served_by_those_that_have_it() -> None:
    lacking = Backend("bb", NEXT.host, PORTS[:1])
    table = Table(Route({"aa": 50, "bb": 50}, {"bb": 10}), (STABLE, lacking))
    assert weights(routes(table)[0]) == {"aa-a@bb": 50, "aa-b@bb": 50, "bb@aa": 100}
    (found,) = routes(table, "grpc")
    assert weights(found) == {"aa-a_grpc": 50, "aa-b_grpc": 50}


def test_sessions_stick_to_a_revision_too() -> None:
    traffic = TrafficSpec.model_validate({"sessionAffinity": {"header": "x-user"}})
    (found,) = routes(Table(Route({"aa": 50, "bb": 50}), (STABLE, NEXT)), traffic=traffic)
    assert found["route"]["weighted_clusters"]["use_hash_policy"] is True
    assert found["route"]["hash_policy"] == [{"header": {"header_name": "x-user"}}]


@settings(max_examples=40, deadline=None)
@given(tables(), traffics())
def test_every_route_names_clusters_that_are_there_and_the_version_covers_it_all(
    table: Table, traffic: TrafficSpec
) -> None:
    rendered = envoy_files(table, traffic, deployment="fraud", namespace="shop", ports=PORTS)
    turned = Table(table.route, table.backends[::-1])
    assert rendered == envoy_files(
        turned, traffic, deployment="fraud", namespace="shop", ports=PORTS
    )
    parsed = {name: json.loads(content) for name, content in rendered.items()}
    assert set(parsed) == {"cds.json", "rds-http.json", "rds-grpc.json"}
    assert {file["version_info"] for file in parsed.values()} == {envoy_version(rendered)}
    there = {cluster["name"] for cluster in parsed.pop("cds.json")["resources"]}
    for file in parsed.values():
        text = json.dumps(file)
        named = {part.split('"')[0] for part in text.split('"cluster": "')[1:]}
        assert named <= there


def test_any_change_is_another_version() -> None:
    table = Table(Route({"aa": 95, "bb": 5}), (STABLE, NEXT))
    changed = [
        (Table(Route({"aa": 94, "bb": 6}), (STABLE, NEXT)), TrafficSpec()),
        (Table(Route({"aa": 100}), (STABLE, NEXT)), TrafficSpec()),
        (Table(Route({"aa": 100}), (STABLE,)), TrafficSpec()),
        (table, TrafficSpec(timeout="31s")),
        (table, TrafficSpec(retries=0)),
        (table, TrafficSpec()),
    ]
    versions = {
        envoy_version(envoy_files(t, spec, deployment="fraud", namespace="shop"))
        for t, spec in changed
    }
    assert len(versions) == len(changed)
    assert all(len(version) <= 40 for version in versions)


# --- objects ------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(tables(), traffics())
def test_the_table_is_read_back_from_the_config_map(table: Table, traffic: TrafficSpec) -> None:
    found = router_config_map(table, traffic, ports=PORTS, **OWNER)
    restored = read_table(json.loads(json.dumps(found)))
    assert restored is not None
    again = router_config_map(restored[0], traffic, ports=PORTS, **OWNER)
    assert again == found
    assert restored[1] == envoy_version(found["data"])


@pytest.mark.parametrize(
    "annotations",
    [
        None,
        {},
        {kinds.ANNOTATION_TABLE: "{", kinds.ANNOTATION_VERSION: "x"},
        {kinds.ANNOTATION_TABLE: "[]", kinds.ANNOTATION_VERSION: "x"},
        {kinds.ANNOTATION_TABLE: '{"route": {"weights": {}}, "backends": [1]}'},
        {
            kinds.ANNOTATION_TABLE: '{"route": {"weights": {"aa": 100}}, "backends": []}',
            kinds.ANNOTATION_VERSION: "x",
        },
    ],
)
def test_annotations_that_somebody_broke_are_no_table(annotations: Any) -> None:
    assert read_table({"metadata": {"annotations": annotations}}) is None


def test_no_selector_of_model_pods_takes_a_router_for_one_and_none_the_other_way_round() -> None:
    template = router_template(PORTS, TrafficSpec(), RenderSettings(), deployment="fraud")
    labels = template["metadata"]["labels"]
    assert not selector("fraud").items() <= labels.items()
    assert router_selector("fraud").items() <= labels.items()
    assert labels[kinds.LABEL_COMPONENT] == kinds.COMPONENT_ROUTER
    for manifest in (
        router_deployment(template, 2, **OWNER),
        router_pdb(**OWNER),
        router_network_policy(PORTS, RenderSettings(), **OWNER),
    ):
        spec = manifest["spec"]
        chosen = spec.get("podSelector") or spec["selector"]
        assert chosen == {"matchLabels": router_selector("fraud")}
        assert manifest["metadata"]["labels"][kinds.LABEL_DEPLOYMENT] == "fraud"


def test_nothing_of_a_router_takes_the_name_of_another_model_s_object() -> None:
    """A ModelDeployment fraud-router has a policy and a budget called so, and its own Service."""
    names = {router_pdb(**OWNER)["metadata"]["name"]}
    names.add(router_network_policy(PORTS, RenderSettings(), **OWNER)["metadata"]["name"])
    assert names == {"fraud.router"}


def test_router_pods_satisfy_pod_security_restricted_and_name_no_user() -> None:
    spec = router_template(PORTS, TrafficSpec(), RenderSettings(), deployment="fraud")["spec"]
    (container,) = spec["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    mounts = {m["name"]: m.get("readOnly", False) for m in container["volumeMounts"]}
    assert mounts == {"routes": True, "run": False}


@pytest.mark.parametrize(
    ("resources", "heap", "threads"),
    [
        (None, int(0.8 * (512 << 20)), 1),
        ({"limits": {"memory": "1Gi", "cpu": "4"}}, int(0.8 * (1 << 30)), 4),
        ({"requests": {"cpu": "1500m"}}, None, 1),
    ],
)
def test_envoy_is_as_large_as_its_pod(resources: Any, heap: int | None, threads: int) -> None:
    traffic = TrafficSpec.model_validate({"resources": resources} if resources else {})
    template = router_template(PORTS, traffic, RenderSettings(), deployment="fraud")
    (container,) = template["spec"]["containers"]
    args = container["args"]
    assert args[args.index("--config-yaml") + 1] == bootstrap(PORTS, heap_bytes=heap)
    assert args[args.index("--concurrency") + 1] == str(threads)


def test_kubernetes_takes_no_part_of_the_bootstrap_for_a_variable() -> None:
    assert "$(" not in bootstrap(PORTS, heap_bytes=1)


def test_the_grace_period_is_longer_than_the_drain_and_the_drain_than_the_timeout() -> None:
    traffic = TrafficSpec(timeout="45s")
    spec = router_template(PORTS, traffic, RenderSettings(), deployment="fraud")["spec"]
    (container,) = spec["containers"]
    command = container["lifecycle"]["preStop"]["exec"]["command"]
    at_least, at_most = int(command[-2]), int(command[-1])
    assert at_least == RenderSettings().pre_stop_seconds
    assert 45 + at_least < at_most < spec["terminationGracePeriodSeconds"]
    args = container["args"]
    assert int(args[args.index("--drain-time-s") + 1]) > at_most


def test_latency_edges_rise_by_about_a_quarter() -> None:
    steps = [b / a for a, b in itertools.pairwise(LATENCY_EDGES_MS)]
    coarse = [step for edge, step in zip(LATENCY_EDGES_MS, steps, strict=False) if edge >= 10]
    assert all(1.2 < step < 1.34 for step in coarse)
    assert {10, 100, 200, 250, 500, 1000, 10_000} <= set(LATENCY_EDGES_MS)
    assert all(edge < 100 or int(str(edge)[2:]) == 0 for edge in LATENCY_EDGES_MS)


# --- the report ---------------------------------------------------------------------------------

GOOD = """\
cluster_manager.cds.version_text: "v2"
http.http.rds.http.version_text: "v2"
http.grpc.rds.grpc.version_text: "v2"
cluster_manager.cds.update_failure: 0
cluster_manager.warming_clusters: 0
http.http.rds.http.update_rejected: 0
"""


def test_a_version_is_taken_when_clusters_and_all_routes_are_of_it() -> None:
    assert report(GOOD) == ("v2", "")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('cds.version_text: "v2"', 'cds.version_text: "v1"', ""),
        ('grpc.version_text: "v2"', 'grpc.version_text: ""', ""),
        ("warming_clusters: 0", "warming_clusters: 3",
         "3 new clusters wait for the first answer of the DNS server"),
    ],
)  # fmt: skip
def test_what_is_not_of_one_version_is_not_taken(old: str, new: str, problem: str) -> None:
    assert report(GOOD.replace(old, new)) == ("", problem)


def test_what_was_refused_is_counted_for_each_part() -> None:
    text = GOOD.replace("update_failure: 0", "update_failure: 2")
    text = text.replace("http.update_rejected: 0", "http.update_rejected: 1")
    assert report(text) == (
        "v2",
        (
            "the router has refused 2 updates of its clusters; "
            "the router has refused 1 update of its routes of port http"
        ),
    )


@pytest.mark.parametrize("text", ["", "not found", '{"error":"x"}', "a: b\nc", "\0: 1\n" * 9])
def test_an_answer_of_somebody_else_is_no_version(text: str) -> None:
    assert report(text) == ("", "")
    assert endpoints(text) == {}


def test_pods_are_counted_by_revision_where_the_router_knows_fewest() -> None:
    text = "".join(
        f"cluster.{name}.membership_total: {count}\n"
        for name, count in {
            "aa-a": 2, "aa-b": 3, "aa-match_grpc": 3, "aa-shadow": 0, "aa-shadow_grpc": 0,
            "bb": 1, "bb_grpc": 0, "cc_my-port": 4,
        }.items()
    )  # fmt: skip
    assert endpoints(text) == {"aa": 2, "bb": 0, "cc": 4}
