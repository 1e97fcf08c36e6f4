"""Settings: what is wrong is said with its field, before anything starts."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from mooring.core.observed import NodeCache
from mooring.settings import Settings, SettingsError, load


def written(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def test_without_a_file_the_defaults_hold() -> None:
    assert load(None) == Settings()


@pytest.mark.parametrize("text", ["", "{}", "# nothing set\n"])
def test_an_empty_file_means_the_defaults(tmp_path: Path, text: str) -> None:
    assert load(written(tmp_path, text)) == Settings()


def test_every_part_is_read(tmp_path: Path) -> None:
    found = load(
        written(
            tmp_path,
            """
            images:
              {fetcher: registry.example/fetcher:1, router: registry.example/router:1,
               collector: registry.example/collector:1, pullPolicy: IfNotPresent}
            namespaces: [shop, bank]
            requireDigest: true
            imageVolumes: true
            maxModelGibibytes: 2
            nodeCache: {service: mooring-node-cache}
            modelStores: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16], ports: [443]}]
            prometheus: {namespaceLabels: {team: obs}, podLabels: {app: prometheus}}
            drain: 1m
            preStopSeconds: 7
            clusterDomain: example.internal
            resync: 1h30m
            workers: 3
            lease: {name: other, duration: 30s, renewDeadline: 20s, retryPeriod: 4s}
            port: 9090
            """,
        )
    )
    rendering = found.rendering()
    assert rendering.fetcher_image == "registry.example/fetcher:1"
    assert rendering.router_image == "registry.example/router:1"
    assert rendering.collector_image == "registry.example/collector:1"
    assert (rendering.router_pull_policy, rendering.cluster_domain) == (
        "IfNotPresent",
        "example.internal",
    )
    assert rendering.model_stores[0].excluded == ("10.1.0.0/16",)
    assert rendering.require_digest
    assert rendering.image_volumes
    assert rendering.max_model_bytes == 2 * 1024**3
    assert rendering.node_cache == NodeCache(
        "http://mooring-node-cache.default.svc.example.internal:8085", 8085
    )
    assert rendering.drain == timedelta(minutes=1)
    assert found.resync == timedelta(minutes=90)
    assert found.election().renew_deadline == 20.0
    assert (found.namespaces, found.workers, found.port) == (("shop", "bank"), 3, 9090)


@pytest.mark.parametrize(
    ("text", "field", "why"),
    [
        ("resyncs: 5m", "resyncs", "not permitted"),
        ("lease: {holder: me}", "lease.holder", "not permitted"),
        ("resync: 7d", "resync", "168h, not 7d"),
        ("resync: 0s", "resync", "at least 1s"),
        ("resync: 100ms", "resync", "at least 1s"),
        ("resync: soon", "resync", "must be a duration"),
        ("workers: 0", "workers", "greater than or equal to 1"),
        ("port: 70000", "port", "less than or equal to 65535"),
        ("modelStores: [{cidr: 10.0.0.0/33}]", "modelStores.0.cidr", "10.0.0.0/33"),
        ("modelStores: [{cidr: anywhere}]", "modelStores.0.cidr", "anywhere"),
        ("modelStores: [{cidr: 10.0.0.0/8, except: [192.168.0.0/16]}]", "modelStores.0", "outside"),
        ("modelStores: [{cidr: 10.0.0.0/8, ports: [0]}]", "modelStores.0.ports.0", "greater"),
        ("lease: {duration: 5s}", "lease", "renewDeadline"),
        ("lease: {renewDeadline: 2s}", "lease", "retryPeriod"),
        ("lease: {retryPeriod: 500ms}", "lease", "at least 1s"),
        ("lease: {duration: 15500ms}", "lease", "whole seconds"),
        ("[1, 2]", "file", "mapping"),
        ("just text", "file", "mapping"),
        ("a: [", "config.yaml", "expected"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_field(
    tmp_path: Path, text: str, field: str, why: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(written(tmp_path, text))
    message = str(caught.value)
    assert field in message
    assert why in message
    assert str(tmp_path / "config.yaml") in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.yaml"):
        load(tmp_path / "none.yaml")


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load(written(tmp_path, "workers: 0\nport: -1\n"))
    assert "workers" in str(caught.value)
    assert "port" in str(caught.value)
