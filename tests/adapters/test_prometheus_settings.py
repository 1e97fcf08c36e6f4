"""The settings of Prometheus: what cannot be right is refused at start, and the chart agrees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from mooring.settings import Prometheus, SettingsError, load

REPOSITORY = Path(__file__).parents[2]


def read(folder: Path, **prometheus: Any) -> Prometheus:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({"prometheus": prometheus}))
    return load(path).prometheus


def test_without_an_address_nothing_is_asked(tmp_path: Path) -> None:
    assert read(tmp_path).access() is None


def test_everything_reaches_the_client(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        url="https://mimir.example/prometheus/",
        basicAuth={"username": "mooring", "passwordFile": "/etc/mooring-prometheus/password"},
        tls={"caFile": "/ca.crt", "certFile": "/c.crt", "keyFile": "/c.key"},
        headers={"X-Scope-OrgID": "team-a|team-b"},
        parameters={"dedup": "true"},
        labels={"namespace": "kubernetes_namespace"},
        timeout="20s",
        connectTimeout="1500ms",
        maxResponseMebibytes=2,
        concurrency=2,
    )
    access = found.access()
    assert access is not None
    assert access.url == "https://mimir.example/prometheus"
    assert (access.username, access.password_file) == (
        "mooring", Path("/etc/mooring-prometheus/password"),
    )  # fmt: skip
    assert (access.ca_file, access.verify) == (Path("/ca.crt"), True)
    assert access.client_certificate == (Path("/c.crt"), Path("/c.key"))
    assert (access.headers, access.parameters) == (
        {"X-Scope-OrgID": "team-a|team-b"}, {"dedup": "true"},
    )  # fmt: skip
    assert (access.deadline, access.connect, access.pause) == (20.0, 1.5, 20.0)
    assert (access.body_limit, access.concurrency) == (2 * 1024 * 1024, 2)
    assert found.scrape_labels().namespace == "kubernetes_namespace"


@pytest.mark.parametrize(
    ("wrong", "field", "why"),
    [
        ({"url": "prometheus:9090"}, "url", "address such as"),
        ({"url": "ftp://prometheus"}, "url", "address such as"),
        ({"url": "http://"}, "url", "address such as"),
        ({"url": "http://me:secret@prometheus"}, "url", "bearerTokenFile"),
        ({"url": "http://prometheus?tenant=a"}, "url", "path"),
        ({"url": "http://prometheus/api/v1"}, "url", "/api/v1"),
        ({"url": "http://prometheus:99999"}, "url", "port"),
        ({"bearerTokenFile": "token"}, "bearerTokenFile", "absolute"),
        (
            {"bearerTokenFile": "/var/run/secrets/kubernetes.io/serviceaccount/token"},
            "bearerTokenFile",
            "API server only",
        ),
        (
            {"bearerTokenFile": "/a", "basicAuth": {"username": "b", "passwordFile": "/c"}},
            "",
            "not both",
        ),
        ({"basicAuth": {"username": "a:b", "passwordFile": "/c"}}, "username", "pattern"),
        ({"basicAuth": {"username": "a", "password": "b"}}, "password", "not permitted"),
        ({"tls": {"certFile": "/a"}}, "tls", "go together"),
        ({"headers": {"Authorization": "Bearer x"}}, "headers", "mounted files"),
        ({"headers": {"Host": "x"}}, "headers", "cannot be set"),
        ({"headers": {"X-A": "b\r\nX-C: d"}}, "headers", "one line"),
        ({"headers": {"X A": "b"}}, "headers", "not a name"),
        ({"parameters": {"query": "up"}}, "parameters", "set by the operator"),
        ({"labels": {"pod": "a-b"}}, "labels.pod", "pattern"),
        ({"timeout": "0s"}, "timeout", "at least 1s"),
        ({"timeout": "1s", "connectTimeout": "2s"}, "", "exceed"),
        ({"maxResponseMebibytes": 0}, "maxResponseMebibytes", "greater"),
        ({"concurrency": 1000}, "concurrency", "less"),
    ],
)
def test_what_cannot_be_right_is_refused_with_its_field(
    tmp_path: Path, wrong: dict[str, Any], field: str, why: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, **wrong)
    assert field in str(caught.value)
    assert why in str(caught.value)
    # The value itself is not repeated: it may be a password in the wrong place.
    assert "secret@" not in str(caught.value)


def test_the_chart_offers_every_setting_with_the_operators_defaults() -> None:
    chart = REPOSITORY / "helm" / "mooring"
    values = yaml.safe_load((chart / "values.yaml").read_text())["config"]["prometheus"]
    schema = json.loads((chart / "values.schema.json").read_text())
    described = schema["properties"]["config"]["properties"]["prometheus"]["properties"]
    fields = {info.alias for info in Prometheus.model_fields.values()}
    assert set(values) == set(described) == fields
    assert Prometheus.model_validate(values) == Prometheus()
