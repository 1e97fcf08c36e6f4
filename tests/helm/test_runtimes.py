"""The runtimes that the chart ships: valid, complete, and careful with what they expose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from mooring.api import validation
from mooring.core.placeholders import fill_signal

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
SHIPPED = ("onnx", "tfserving", "torchserve", "triton")
CLUSTER: tuple[str, ...] = ()
NAMESPACED = ("--set", "namespaces={red,blue}")

Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]

pytestmark = pytest.mark.helm


def of_kind(manifests: list[Manifest], *wanted: str) -> list[Manifest]:
    return [m for m in manifests if m["kind"] in wanted]


def runtime_of(manifests: list[Manifest], name: str) -> Manifest:
    found = of_kind(manifests, "ClusterModelRuntime")
    return next(runtime for runtime in found if runtime["metadata"]["name"] == name)


@pytest.mark.parametrize("values", [CLUSTER, NAMESPACED], ids=["cluster", "namespaced"])
def test_shipped_runtimes_are_valid_and_live_where_the_operator_may_read(
    render: Render, values: tuple[str, ...]
) -> None:
    kind = "ModelRuntime" if values == NAMESPACED else "ClusterModelRuntime"
    runtimes = of_kind(render(*values), "ModelRuntime", "ClusterModelRuntime")
    where = {(r["kind"], r["metadata"].get("namespace"), r["metadata"]["name"]) for r in runtimes}
    namespaces = ["red", "blue"] if values == NAMESPACED else [None]
    assert where == {(kind, place, name) for place in namespaces for name in SHIPPED}
    for runtime in runtimes:
        spec = validation.parse_runtime_template(runtime["spec"], strict=True)
        assert spec.readiness_probe is not None
        assert spec.signals is not None


@pytest.mark.parametrize("name", SHIPPED)
def test_each_runtime_can_be_left_out(render: Render, name: str) -> None:
    left = of_kind(render("--set", f"runtimes.{name}=false"), "ClusterModelRuntime")
    assert {runtime["metadata"]["name"] for runtime in left} == set(SHIPPED) - {name}


@pytest.mark.parametrize("name", SHIPPED)
def test_signals_are_promql_that_counts_per_pod(render: Render, name: str) -> None:
    spec = validation.parse_runtime_template(runtime_of(render(*CLUSTER), name)["spec"])
    assert spec.signals is not None
    queries = [spec.signals.requests, spec.signals.errors]
    if spec.signals.latency is not None:
        queries += [getattr(spec.signals.latency, part) for part in ("sum", "count", "buckets")]
    for query in filter(None, queries):
        filled = fill_signal(query, selector='namespace="shop",pod=~"fraud-.*"', by="pod, job")
        parsed = promql_parser.parse(filled).prettify()
        assert filled.count('namespace="shop"') == query.count("{{ selector }}")
        assert "rate(" not in parsed
        assert "by (pod, job" in parsed.replace("\n", "")


def test_management_of_torchserve_is_on_loopback_and_in_no_service(render: Render) -> None:
    spec = runtime_of(render(*CLUSTER), "torchserve")["spec"]
    files = {file["path"]: file["content"] for file in spec["config"]}
    lines = files["/etc/mooring/torchserve/config.properties"].splitlines()
    assert "management_address=http://127.0.0.1:8081" in lines
    assert "grpc_management_address=127.0.0.1" in lines
    assert {"allowed_urls=file", "metrics_mode=prometheus"} <= set(lines)
    assert {port["containerPort"] for port in spec["ports"]} == {8080, 7070, 8082}
    assert all("exec" in spec[probe] for probe in ("readinessProbe", "startupProbe"))


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*/input.yaml")), ids=lambda p: p.parent.name)
def test_golden_pods_are_those_of_the_charts_runtimes(render: Render, path: Path) -> None:
    text = path.read_text()
    if not text.startswith("# The runtime is the chart's"):
        return
    (runtime,) = [d for d in yaml.safe_load_all(text) if d["kind"] != "ModelDeployment"]
    assert runtime["spec"] == runtime_of(render(), runtime["metadata"]["name"])["spec"]
