"""Seeing without asking that an apply would change nothing."""

from __future__ import annotations

from typing import Any

import pytest
from tests.core.given import copied

from mooring.core.fingerprint import covers, fingerprint, is_applied, stamped

MANIFEST: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "fraud", "namespace": "shop", "labels": {"a": "1"}},
    "spec": {
        "selector": {"app": "fraud"},
        "ports": [{"name": "http", "port": 80}, {"name": "grpc", "port": 9000}],
    },
}


def stored(manifest: dict[str, Any]) -> dict[str, Any]:
    """As the API server gives it back: with defaults and fields of others."""
    live: dict[str, Any] = copied(stamped(manifest))
    live["metadata"] |= {"uid": "u", "resourceVersion": "7", "generation": 1}
    live["spec"] |= {"clusterIP": "10.0.0.1", "sessionAffinity": "None"}
    for port in live["spec"]["ports"]:
        port |= {"protocol": "TCP", "nodePort": 30000}
    live["metadata"]["annotations"]["team"] = "risk"
    return live


def test_defaults_and_the_fields_of_others_are_not_our_business() -> None:
    assert is_applied(stamped(MANIFEST), stored(MANIFEST))


def test_what_guards_one_write_is_no_part_of_it() -> None:
    guarded = copied(MANIFEST)
    guarded["metadata"]["resourceVersion"] = "3"
    assert fingerprint(guarded) == fingerprint(MANIFEST)
    assert is_applied(stamped(guarded), stored(MANIFEST))


def test_a_field_that_is_to_be_given_up_has_to_be_applied() -> None:
    fewer = copied(MANIFEST)
    del fewer["spec"]["selector"]
    assert covers(stored(MANIFEST), fewer)
    assert not is_applied(stamped(fewer), stored(MANIFEST))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "selector", "app"), "other"),
        (("spec", "selector"), {}),
        (("spec", "ports"), []),
        (("spec", "ports", 0, "port"), 81),
        (("metadata", "labels"), None),
        (("metadata", "annotations"), None),
        (("metadata", "annotations", "mooring.dev/fingerprint"), "0"),
    ],
    ids=str,
)
def test_what_somebody_has_changed_has_to_be_applied(path: tuple[Any, ...], value: Any) -> None:
    live = stored(MANIFEST)
    parent: Any = live
    for step in path[:-1]:
        parent = parent[step]
    parent[path[-1]] = value
    assert not is_applied(stamped(MANIFEST), live)


@pytest.mark.parametrize(
    ("live", "wanted", "expected"),
    [
        (None, {}, True),
        (None, [], True),
        (None, "", False),
        (None, {"a": None}, False),
        ({}, {"a": []}, True),
        ({"a": 1}, {"a": "1"}, False),
        ([1, 2], [1, 2], True),
        ([1, 2, 3], [1, 2], False),
        ([2, 1], [1, 2], False),
        ("text", ["t"], False),
        ([{"name": "b"}, {"name": "a", "x": 1}], [{"name": "a"}, {"name": "b"}], True),
        ([{"name": "b"}], [{"name": "a"}], False),
        ([{"name": "a"}, {"name": "injected"}], [{"name": "a"}], True),
        ([{"other": 1}, {"other": 2}], [{"other": 2}], False),
    ],
)
def test_what_covers_what(live: Any, wanted: Any, expected: bool) -> None:
    assert covers(live, wanted) is expected
