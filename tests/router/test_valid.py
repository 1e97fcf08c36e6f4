"""Whatever the core asks for, the real Envoy accepts what is rendered from it.

One run of Envoy looks at many tables: their clusters and routes become static parts of one
configuration, in which Envoy also checks that every cluster that a route names is there.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.router.running import envoy_binary
from tests.router.tables import PORTS, tables, traffics

from mooring.api.traffic_spec import TrafficSpec
from mooring.core.render.router.bootstrap import bootstrap
from mooring.core.render.router.envoy import envoy_files
from mooring.core.render.router.observation import CollectorAddress
from mooring.core.traffic import Route, Table

pytestmark = pytest.mark.envoy

BATCH = 12
batches = st.tuples(
    *(st.tuples(tables(first=f"{number:02}"), traffics()) for number in range(BATCH))
)
UNHURRIED: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck)}


def validate(config: dict[str, Any]) -> None:
    with TemporaryDirectory(prefix="mooring-router-") as folder:
        path = Path(folder) / "bootstrap.json"
        path.write_text(json.dumps(config))
        done = subprocess.run(
            [envoy_binary(), "--mode", "validate", "--disable-hot-restart", "--log-level",
             "warning", "--concurrency", "1", "-c", str(path)],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # Envoy accepts what it is about to remove, and says so.
    assert "deprecated" not in done.stderr.lower(), done.stderr


COLLECTOR = CollectorAddress("fraud-collector.shop.svc.cluster.local", 9001)


def static(
    batch: tuple[tuple[Table, TrafficSpec], ...], collector: CollectorAddress | None = None
) -> dict[str, Any]:
    """The bootstrap, with the clusters of every table and a listener for each of its ports."""
    config: dict[str, Any] = json.loads(bootstrap(PORTS))
    del config["dynamic_resources"]
    resources = config["static_resources"]
    public = {listener["name"]: listener for listener in resources["listeners"]}
    resources["listeners"] = [public.pop("metrics"), public.pop("version")]
    number = 20000
    for table, traffic in batch:
        files = envoy_files(
            table, traffic, deployment="fraud", namespace="shop", ports=PORTS, collector=collector
        )
        known = {cluster["name"] for cluster in resources["clusters"]}
        resources["clusters"] += [
            cluster for cluster in without_type(files["cds.json"]) if cluster["name"] not in known
        ]
        for port, listener in public.items():
            (routes,) = without_type(files[f"rds-{port}.json"])
            number += 1
            copied = json.loads(json.dumps(listener))
            copied["name"] = str(number)
            copied["address"]["socket_address"]["port_value"] = number
            manager = copied["filter_chains"][0]["filters"][0]["typed_config"]
            del manager["rds"]
            manager["route_config"] = routes
            resources["listeners"].append(copied)
    return config


def without_type(file: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(file)["resources"]
    for resource in found:
        del resource["@type"]
    return found


@settings(max_examples=5, **UNHURRIED)
@given(batches)
def test_every_table_gives_a_valid_configuration(
    batch: tuple[tuple[Table, TrafficSpec], ...],
) -> None:
    validate(static(batch))


@settings(max_examples=3, **UNHURRIED)
@given(batches)
def test_every_table_gives_a_valid_configuration_when_it_is_observed(
    batch: tuple[tuple[Table, TrafficSpec], ...],
) -> None:
    config = static(batch, COLLECTOR)
    observed = [c for c in config["static_resources"]["clusters"] if "http_filters" in str(c)]
    having = [backend for table, _ in batch for backend in table.backends]
    assert bool(observed) == any(not port.http2 for one in having for port in one.ports)
    validate(config)


@pytest.mark.slow
@settings(max_examples=200, **UNHURRIED)
@given(batches)
def test_two_thousand_tables_give_valid_configurations(
    batch: tuple[tuple[Table, TrafficSpec], ...],
) -> None:
    validate(static(batch))


@pytest.mark.parametrize("ports", [PORTS, PORTS[:1], PORTS[1:], ()])
@pytest.mark.parametrize("heap", [None, 400 << 20])
def test_every_bootstrap_is_valid(ports: Any, heap: int | None, tmp_path: Path) -> None:
    text = bootstrap(ports, heap_bytes=heap)
    files = envoy_files(
        Table(Route(), ()), TrafficSpec(), deployment="fraud", namespace="shop", ports=ports
    )
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    validate(json.loads(text.replace("/etc/mooring/routes", str(tmp_path))))


def test_a_configuration_that_is_wrong_would_be_found() -> None:
    config = static(())
    config["static_resources"]["clusters"][0]["lb_policy"] = "BY_WISH"
    with pytest.raises(AssertionError, match="BY_WISH"):
        validate(config)
