"""What Gateways say of an HTTPRoute, and what is made of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from mooring.api.traffic_spec import GatewaySpec, TrafficSpec
from mooring.core.gateway import Answer, answers
from mooring.core.render.router.httproute import http_route, route_duration, route_rules
from mooring.core.traffic import Backend, BackendPort, Match, Route, Table

PUBLIC = {"name": "public", "namespace": "infra"}
OWN = {"name": "own"}


def route(*said: dict[str, Any], parents: tuple[dict[str, Any], ...] = (PUBLIC,)) -> dict[str, Any]:
    return {
        "metadata": {"name": "fraud", "namespace": "shop", "generation": 3},
        "spec": {"parentRefs": list(parents)},
        "status": {"parents": list(said)},
    }


def says(parent: dict[str, Any], **conditions: str | tuple[str, int]) -> dict[str, Any]:
    found = []
    for kind, value in conditions.items():
        status, generation = value if isinstance(value, tuple) else (value, 3)
        words = {"type": kind, "status": status, "observedGeneration": generation}
        found.append({**words, "reason": "Because", "message": "no listener allows it"})
    return {"parentRef": parent, "controllerName": "example.com/x", "conditions": found}


def one(*said: dict[str, Any]) -> Answer:
    (answer,) = answers(route(*said))
    return answer


def test_a_gateway_that_says_nothing_has_neither_accepted_nor_refused() -> None:
    assert one() == Answer("Gateway infra/public")


@pytest.mark.parametrize("missing", ["Accepted", "ResolvedRefs"])
def test_both_conditions_of_the_standard_are_needed(missing: str) -> None:
    both = {"Accepted": "True", "ResolvedRefs": "True"}
    assert one(says(PUBLIC, **both)).accepted
    assert not one(says(PUBLIC, **{k: v for k, v in both.items() if k != missing})).accepted


@pytest.mark.parametrize("old", ["Accepted", "ResolvedRefs", "Programmed"])
def test_a_word_on_an_older_generation_is_none_on_this_one(old: str) -> None:
    conditions: dict[str, Any] = {"Accepted": "True", "ResolvedRefs": "True", "Programmed": "True"}
    answer = one(says(PUBLIC, **{**conditions, old: ("True", 2)}))
    assert not answer.accepted
    assert answer.refusal == ""
    assert answer.routing, "its proxies may route by that older one"


def test_an_old_refusal_is_not_held_against_the_present_generation() -> None:
    answer = one(says(PUBLIC, Accepted=("False", 2)))
    assert (answer.refusal, answer.routing) == ("", False)


def test_a_refusal_is_told_in_the_words_of_the_controller() -> None:
    answer = one(says(PUBLIC, Accepted="False", ResolvedRefs="True"))
    assert answer.refusal == "Accepted is False, Because: no listener allows it"
    assert not answer.routing


@pytest.mark.parametrize(
    "conditions",
    [
        {"Accepted": "True", "ResolvedRefs": "False"},
        {"Accepted": "True", "ResolvedRefs": "True", "Programmed": "False"},
        {"Accepted": "True", "ResolvedRefs": "True", "PartiallyInvalid": "True"},
    ],
)
def test_a_route_that_is_accepted_in_part_is_a_refusal_of_one_that_routes(
    conditions: dict[str, str],
) -> None:
    answer = one(says(PUBLIC, **conditions))
    assert not answer.accepted
    assert answer.refusal
    assert answer.routing


def test_what_another_controller_left_behind_is_not_heeded() -> None:
    old = says(PUBLIC, Accepted=("True", 1), ResolvedRefs=("True", 1))
    assert one(old, says(PUBLIC, Accepted="True", ResolvedRefs="True")).accepted


def test_every_parent_answers_for_itself_and_defaults_are_no_difference() -> None:
    filled = {
        "group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "shop", "name": "own",
    }  # fmt: skip
    yes = {"Accepted": "True", "ResolvedRefs": "True"}
    found = answers(route(says(filled, **yes), parents=(PUBLIC, OWN)))
    assert [(a.gateway, a.accepted) for a in found] == [
        ("Gateway infra/public", False),
        ("Gateway shop/own", True),
    ]


def test_an_answer_for_one_listener_is_none_for_another() -> None:
    web, tls = {**PUBLIC, "sectionName": "web"}, {**PUBLIC, "sectionName": "tls"}
    yes = {"Accepted": "True", "ResolvedRefs": "True"}
    found = answers(route(says(web, **yes), parents=(web, tls)))
    assert [a.accepted for a in found] == [True, False]
    assert found[1].gateway == "Gateway infra/public, listener tls"


# the route ------------------------------------------------------------------------------------

A, B = (
    Backend(
        name, f"fraud-{name}.shop.svc", (BackendPort("grpc", 9000, True), BackendPort("http", 80))
    )
    for name in ("aaa", "bbb")
)


def reference(name: str, weight: int) -> dict[str, Any]:
    return {"name": f"fraud-{name}-gateway", "port": 80, "weight": weight}


def test_every_backend_stands_in_the_route_with_weight_0_where_it_gets_nothing() -> None:
    (rule,) = route_rules(Table(Route({"aaa": 100}), (B, A)), "fraud")
    assert rule["backendRefs"] == [reference("aaa", 100), reference("bbb", 0)]


def test_a_match_is_a_rule_of_its_own_before_the_weights() -> None:
    headers = (("x-region", "eu"), ("x-tester", "yes"))
    table = Table(Route({"aaa": 100}, matches=(Match("bbb", headers),)), (A, B))
    match, rest = route_rules(table, "fraud")
    assert match["backendRefs"] == [reference("bbb", 1)]
    assert match["matches"][0]["headers"] == [
        {"type": "Exact", "name": name, "value": value} for name, value in headers
    ]
    assert "headers" not in rest["matches"][0]


@pytest.mark.parametrize(("share", "percent"), [(100, {}), (30, {"percent": 30})])
def test_copies_of_all_requests_need_no_percentage(share: int, percent: dict[str, int]) -> None:
    (rule,) = route_rules(Table(Route({"aaa": 100}, {"bbb": share}), (A, B)), "fraud")
    mirror = {"backendRef": {"name": "fraud-bbb-gateway", "port": 80}, **percent}
    assert rule["filters"] == [{"type": "RequestMirror", "requestMirror": mirror}]


def test_the_version_is_that_of_the_spec_alone() -> None:
    def version(timeout: str, *parents: dict[str, str], weight: int = 100) -> str:
        gateway = GatewaySpec.model_validate({"parentRefs": list(parents)})
        traffic = TrafficSpec.model_validate(
            {"router": "gateway", "gateway": {"parentRefs": list(parents)}, "timeout": timeout}
        )
        table = Table(Route({"aaa": weight, "bbb": 100 - weight}), (A, B))
        manifest = http_route(
            table, traffic, gateway, deployment="fraud", namespace="shop", uid="u"
        )
        return str(manifest["metadata"]["annotations"]["mooring.dev/routes-version"])

    assert version("60s", OWN) == version("1m", OWN)
    distinct = {
        version("60s", OWN), version("61s", OWN), version("60s", PUBLIC),
        version("60s", OWN, PUBLIC), version("60s", OWN, weight=90),
    }  # fmt: skip
    assert len(distinct) == 5


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(1000, "1s"), (1500, "1s500ms"), (90_000, "1m30s"), (3_600_000, "1h"), (0, "0s"),
     (10**13, "99999h"), (3_661_001, "1h1m1s1ms")],
)  # fmt: skip
def test_durations_are_written_as_the_gateway_api_wants_them(milliseconds: int, text: str) -> None:
    assert route_duration(timedelta(milliseconds=milliseconds)) == text
