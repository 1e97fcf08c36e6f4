"""What the code may not do at all, whoever asks for it (SECURITY.md has the whole table)."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.golden.test_golden import CASES, plan_of

REPOSITORY = Path(__file__).parents[2]
OPERATOR = REPOSITORY / "operator" / "mooring"
#: Who may open connections, and to whom.
_NETWORK = {
    "adapters/kube.py": "the API server",
    "adapters/mlflow.py": "the administrator's model registry",
    "adapters/prometheus.py": "the administrator's Prometheus",
    "adapters/prometheus_http.py": "the administrator's Prometheus",
    "adapters/sinks.py": "the administrator's sinks",
    "engine/routers.py": "router pods, at a port of ours",
    "engine/web.py": "nobody: it listens",
    "shell/intake.py": "the API server",
    "shell/streams.py": "the API server",
}
_OPENS = {"aiohttp", "requests", "socket", "http", "urllib3", "httpx", "ftplib", "smtplib"}
#: And by what name else a connection is opened: these need no import of their own.
_CALLS = {"urlopen", "open_connection", "create_connection", "open_unix_connection", "getaddrinfo"}
#: What runs or loads code that somebody else wrote.
_LOADS = {
    "pickle", "marshal", "shelve", "dill", "joblib", "torch", "tensorflow", "onnx", "onnxruntime",
    "sklearn", "subprocess", "runpy",
}  # fmt: skip
_RUNS = {"eval", "exec", "compile", "__import__"}
#: Kinds by which something would be allowed, or shown, to somebody.
_GRANTS = {
    "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "Secret", "Namespace",
    "ReferenceGrant",
}  # fmt: skip
#: Names under which a tenant could hand over an address.
_ADDRESS = re.compile(r"(?i)(ur[il]s?|hosts?|hostname|endpoint|address|webhook|proxy)$")
#: They are read by the fetcher in the tenant's own pod, and never by the operator.
_OF_MODELS = {"uri", "modelUri"}


def _modules() -> list[Path]:
    return sorted(p for p in OPERATOR.rglob("*.py") if "cli" not in p.relative_to(OPERATOR).parts)


@functools.cache
def _nodes(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(path.read_text())))


@functools.cache
def _imports(path: Path) -> frozenset[str]:
    found = set()
    for node in _nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return frozenset(found)


def test_connections_are_opened_by_a_few_modules_to_whom_the_administrator_names() -> None:
    """Threats 1 and 2: nothing else of the operator can be made to fetch an address."""
    found = {str(path.relative_to(OPERATOR)) for path in _modules() if _OPENS & _imports(path)}
    assert found <= set(_NETWORK)
    called = {
        (str(path.relative_to(OPERATOR)), node.attr)
        for path in _modules()
        for node in _nodes(path)
        if isinstance(node, ast.Attribute) and node.attr in _CALLS
    }
    assert {where for where, _ in called} <= set(_NETWORK), called


def test_a_tenants_resource_holds_no_address_but_that_of_a_model() -> None:
    """Threat 1: metrics, sinks and registries are settings of the administrator."""
    found = set()
    for path in (REPOSITORY / "crds").glob("*.yaml"):
        definition = yaml.load(path.read_text(), yaml.CSafeLoader)
        for version in definition["spec"]["versions"]:
            schema = version["schema"]["openAPIV3Schema"]["properties"]
            for part in ("spec", "status"):
                found |= {name for name in _fields(schema.get(part, {})) if _ADDRESS.search(name)}
    # httpGet of a probe is what the kubelet asks, of the pod itself
    assert found <= _OF_MODELS


def test_the_only_namespace_that_a_tenant_can_name_is_that_of_a_gateway() -> None:
    """Threat 4: a route may ask for a Gateway elsewhere, which decides itself whom it takes."""
    found = set()
    for path in (REPOSITORY / "crds").glob("*.yaml"):
        definition = yaml.load(path.read_text(), yaml.CSafeLoader)
        for version in definition["spec"]["versions"]:
            spec = version["schema"]["openAPIV3Schema"]["properties"].get("spec", {})
            found |= {way for way in _ways(spec) if "namespace" in way.rpartition(".")[2].lower()}
    assert found == {"traffic.gateway.parentRefs.namespace"}


def _ways(schema: dict[str, Any], at: str = "") -> Iterator[str]:
    for name, part in (schema.get("properties") or {}).items():
        yield f"{at}{name}"
        yield from _ways(part, f"{at}{name}.")
    for inner in ("items", "additionalProperties"):
        if isinstance(schema.get(inner), dict):
            yield from _ways(schema[inner], at)


def _fields(schema: dict[str, Any]) -> Iterator[str]:
    for name, part in (schema.get("properties") or {}).items():
        yield name
        yield from _fields(part)
    for inner in ("items", "additionalProperties"):
        if isinstance(schema.get(inner), dict):
            yield from _fields(schema[inner])


def test_the_operator_loads_no_model_and_runs_no_foreign_code() -> None:
    """Threat 8."""
    for path in _modules():
        assert not _LOADS & _imports(path), path
        for node in _nodes(path):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in _RUNS, f"{path}: {node.func.id}"


def test_no_secret_is_asked_for() -> None:
    """Threats 3 and 7: no code path reads a Secret; the kubelet mounts them."""
    for path in _modules():
        text = path.read_text()
        assert '"secrets"' not in text, path
        assert "/secrets" not in text.replace("/var/run/secrets", ""), path


@pytest.mark.parametrize("case", CASES)
def test_everything_is_made_in_the_objects_own_namespace_and_grants_nothing(case: str) -> None:
    """Threats 4 and 6."""
    manifests = plan_of(case).apply
    assert {m["metadata"]["namespace"] for m in manifests} == {"shop"}
    assert not [m["kind"] for m in manifests if m["kind"] in _GRANTS]
    for manifest in manifests:
        assert [o["kind"] for o in manifest["metadata"]["ownerReferences"]] == ["ModelDeployment"]


@pytest.mark.parametrize("case", CASES)
def test_model_pods_hold_no_token_and_write_nowhere_but_where_they_are_told(case: str) -> None:
    """Threats 5, 8 and 11: what a model makes a server do stays in its pod."""
    deployments = [m for m in plan_of(case).apply if m["kind"] == "Deployment"]
    assert deployments
    for deployment in deployments:
        pod = deployment["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
        for volume in pod.get("volumes", ()):
            assert "hostPath" not in volume
            assert "sizeLimit" in volume.get("emptyDir", {"sizeLimit": ""}), volume
