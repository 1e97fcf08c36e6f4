"""Which entry of a Docker configuration is for which repository, and what is said of a bad one."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fetcher.conftest import Loopback

from mooring_fetcher.credentials import Credentials
from mooring_fetcher.oci_access import RegistryAccess
from mooring_fetcher.uri import parse_uri
from mooring_fetcher.web import Web

URI = "oci://registry.example/team/fraud:v7"


def access(uri: str, **keys: str) -> RegistryAccess:
    return RegistryAccess.of(parse_uri(uri), Credentials("pull", tuple(keys.items())), Web())


def chosen(uri: str, *entries: str) -> str:
    """The name of the entry that is used; empty where none is for it."""
    auths = {key: {"username": key, "password": "p"} for key in entries}
    login = access(uri, **{".dockerconfigjson": json.dumps({"auths": auths})}).login
    return login.username if login else ""


@pytest.mark.parametrize(
    ("uri", "entries", "used"),
    [
        (URI, ["registry.example"], "registry.example"),
        (URI, ["https://registry.example/v1/"], "https://registry.example/v1/"),
        (URI, ["registry.example", "registry.example/team"], "registry.example/team"),
        (URI, ["registry.example/tea"], ""),
        (URI, ["registry.example:443"], ""),
        (URI, ["evil.registry.example", "example"], ""),
        (URI, ["*.example"], "*.example"),
        ("oci://a.b.example/x:1", ["*.example"], ""),
        ("oci://docker.io/org/x:1", ["https://index.docker.io/v1/"], "https://index.docker.io/v1/"),
        ("oci://registry.example:5000/x:1", ["registry.example:5000"], "registry.example:5000"),
    ],
)
def test_an_entry_is_for_its_host_and_path_and_the_longest_wins(
    uri: str, entries: list[str], used: str
) -> None:
    assert chosen(uri, *entries) == used


def test_auth_is_user_and_password_in_one() -> None:
    auth = base64.b64encode(b"me:a:b").decode()
    text = json.dumps({"auths": {"registry.example": {"auth": auth}}})
    login = access(URI, **{".dockerconfigjson": text}).login
    assert login is not None
    assert (login.username, login.password) == ("me", "a:b")
    assert "a:b" not in repr(login)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"auths": []}', '{"auths": {"registry.example": {"auth": "!"}}}', "{}"],
)
def test_what_is_no_docker_configuration_is_told(permanent: Callable[..., Any], text: str) -> None:
    with permanent("Secret pull", "no Docker configuration", "kubectl create secret"):
        access(URI, **{".dockerconfigjson": text})


@pytest.mark.parametrize(
    ("uri", "keys", "base"),
    [
        (URI, {}, "https://registry.example/v2/team/fraud"),
        (URI, {"OCI_PLAIN_HTTP": "true"}, "http://registry.example/v2/team/fraud"),
        ("oci://localhost:5000/x:1", {}, "http://localhost:5000/v2/x"),
        ("oci://docker.io/org/x:1", {}, "https://registry-1.docker.io/v2/org/x"),
    ],
)
def test_a_registry_is_spoken_to_by_https_but_on_loopback_or_by_order(
    uri: str, keys: dict[str, str], base: str
) -> None:
    assert access(uri, **keys).base == base


def test_credentials_do_not_go_out_over_plain_http(permanent: Callable[..., Any]) -> None:
    with permanent("would be sent over plain http to http://registry.example"):
        access(URI, OCI_PLAIN_HTTP="true", username="me", password="secret")


@pytest.mark.parametrize(
    "scheme", ["Basic realm=x", 'Bearer realm="{elsewhere}/token",service="x"']
)
def test_only_the_registrys_own_challenge_is_met(
    web: Loopback, elsewhere: Loopback, authority: tuple[Path, Path], scheme: str
) -> None:
    """A host that a blob's redirect leads to names itself as the place to buy a token at."""
    host = web.url.removeprefix("http://")
    auth = base64.b64encode(b"robot:t0psecret").decode()
    keys = {".dockerconfigjson": json.dumps({"auths": {host: {"auth": auth}}})}
    credentials = Credentials("pull", tuple(keys.items()))
    client = Web(ca_file=str(authority[0]))
    registry = RegistryAccess.of(parse_uri(f"oci://{host}/team/fraud:v7"), credentials, client)
    redirect = {"status": 307, "headers": {"Location": f"{elsewhere.url}/blob"}}
    web.always["/v2/team/fraud/blobs/x"] = redirect
    challenge = {"WWW-Authenticate": scheme.format(elsewhere=elsewhere.url)}
    elsewhere.always["/blob"] = {"status": 401, "headers": challenge}
    elsewhere.always["/token"] = {"status": 200, "body": b'{"token": "of-another-host"}'}

    answer = registry.get("/blobs/x", {})

    assert (answer.status, answer.url) == (401, f"{elsewhere.url}/blob")
    answer.close()
    client.close()
    assert [asked.path for asked in elsewhere.asked] == ["/blob"]
    assert not any("Authorization" in asked.headers for asked in (*web.asked, *elsewhere.asked))
