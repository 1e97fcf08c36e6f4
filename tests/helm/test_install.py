"""The chart and the manifests against a real API server: what it accepts, and what it grants."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mooring_dev.control_plane import ControlPlane
from mooring_dev.errors import DevError

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "mooring"
OPERATOR = "system:serviceaccount:mooring-system:mooring"
RUNTIMES = ("onnx", "torchserve", "tfserving", "triton")

Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]
Helm = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = [pytest.mark.apiserver, pytest.mark.helm]


def as_yaml(manifests: list[Manifest]) -> str:
    return yaml.safe_dump_all(manifests)


@pytest.fixture(scope="module")
def cluster(control_plane_with_crds: ControlPlane) -> ControlPlane:
    """With the namespaces that the chart is told of."""
    names = ["mooring-system", "red", "blue", "models"]
    namespaces = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in names
    ]
    control_plane_with_crds.kubectl("apply", "-f", "-", input=as_yaml(namespaces))
    return control_plane_with_crds


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory, helm: Helm) -> Iterator[ControlPlane]:
    """An API server that never heard of Mooring, and the chart installed on it."""
    with ControlPlane.start(tmp_path_factory.mktemp("release")) as plane:
        done = helm(
            "install", "mooring", str(CHART), "--kubeconfig", str(plane.kubeconfig),
            "--namespace", "mooring-system", "--create-namespace",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        yield plane


def may(
    cluster: ControlPlane, user: str, verb: str, resource: str, *where: str, namespace: str = "red"
) -> bool:
    try:
        answer = cluster.kubectl(
            "auth", "can-i", verb, resource, *where, "--as", user, "--namespace", namespace
        )
    except DevError:  # can-i ends with 1 when the answer is no
        return False
    return answer.strip() == "yes"


@pytest.mark.parametrize(
    "values",
    [
        (),
        ("--set", "namespaces={red,blue}"),
        ("-f", str(CHART / "ci" / "dev-values.yaml")),
        ("--set", "security.setRunAsUser=false,replicas=3"),
    ],
    ids=["cluster", "namespaced", "development", "openshift"],
)
def test_api_server_accepts_every_object_without_a_warning(
    cluster: ControlPlane, render: Render, values: tuple[str, ...]
) -> None:
    manifests = as_yaml(render(*values))
    answer = cluster.kubectl(
        "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-",
        input=manifests,
    )  # fmt: skip
    assert answer.count("serverside-applied") == len(render(*values))


@pytest.mark.parametrize("overlay", ["cluster", "namespaced", "ha"])
def test_api_server_accepts_every_overlay(cluster: ControlPlane, overlay: str) -> None:
    folder = ROOT / "manifests" / "overlays" / overlay
    answer = cluster.kubectl(
        "apply", "--server-side", "--dry-run=server", "--validate=strict", "-k", str(folder)
    )
    assert "deployment.apps/mooring serverside-applied" in answer


def test_overlays_hold_as_many_pods_as_they_say(cluster: ControlPlane) -> None:
    counts = {}
    for overlay in ("cluster", "namespaced", "ha"):
        text = cluster.kubectl("kustomize", str(ROOT / "manifests" / "overlays" / overlay))
        (deployment,) = (m for m in yaml.safe_load_all(text) if m["kind"] == "Deployment")
        counts[overlay] = deployment["spec"]["replicas"]
    assert counts == {"cluster": 1, "namespaced": 1, "ha": 2}


def test_manifests_are_what_the_chart_renders() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "dev" / "generate_manifests.py"), "--check"],
        check=False, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT / "dev")},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_one_install_brings_crds_and_runtime_and_an_upgrade_follows(
    release: ControlPlane, helm: Helm
) -> None:
    assert "onnx" in release.kubectl("get", "clustermodelruntimes", "-o", "name")
    # No Job controller runs here, so the hook is left out; its work is tested below.
    done = helm(
        "upgrade", "mooring", str(CHART), "--kubeconfig", str(release.kubeconfig),
        "--namespace", "mooring-system", "--set", "crds.upgrade=false,replicas=3",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    replicas = release.kubectl(
        "-n", "mooring-system", "get", "deployment", "mooring", "-o", "jsonpath={.spec.replicas}"
    )
    assert replicas == "3"


@pytest.mark.parametrize(
    ("verb", "resource", "allowed"),
    [
        ("list", "modeldeployments.mooring.dev", True),
        ("patch", "modeldeployments.mooring.dev/status", True),
        ("update", "modeldeployments.mooring.dev/finalizers", True),
        ("watch", "clustermodelruntimes.mooring.dev", True),
        ("patch", "deployments.apps", True),
        ("list", "pods", True),
        ("get", "secrets", False),
        ("list", "secrets", False),
        ("watch", "secrets", False),
        ("create", "secrets", False),
        ("patch", "modeldeployments.mooring.dev", False),
        ("create", "pods", False),
        ("create", "pods/exec", False),
        ("create", "serviceaccounts/token", False),
        ("create", "rolebindings.rbac.authorization.k8s.io", False),
        ("impersonate", "users", False),
        ("get", "leases.coordination.k8s.io", False),
    ],
)
def test_operator_may_do_its_work_in_any_namespace_and_nothing_else(
    release: ControlPlane, verb: str, resource: str, allowed: bool
) -> None:
    resource, _, subresource = resource.partition("/")
    where = ("--subresource", subresource) if subresource else ()
    assert may(release, OPERATOR, verb, resource, *where) is allowed


def test_operator_may_hold_its_own_lease_and_no_other(release: ControlPlane) -> None:
    lease = "leases.coordination.k8s.io"
    assert may(release, OPERATOR, "update", f"{lease}/mooring-leader", namespace="mooring-system")
    assert not may(release, OPERATOR, "update", f"{lease}/another", namespace="mooring-system")


def test_uninstalling_leaves_the_crds_and_so_every_model(release: ControlPlane, helm: Helm) -> None:
    done = helm(
        "uninstall", "mooring", "--kubeconfig", str(release.kubeconfig), "-n", "mooring-system"
    )
    assert done.returncode == 0, done.stderr
    assert "modeldeployments.mooring.dev" in release.kubectl("get", "crds", "-o", "name")


def test_crds_are_applied_with_the_rights_of_the_upgrade_hook_alone(
    cluster: ControlPlane, render: Render
) -> None:
    hook = [
        m for m in render() if m["metadata"]["name"] == "mooring-crds" and m["kind"] != "Job"
    ]  # fmt: skip
    (binding,) = (m for m in hook if m["kind"] == "ClusterRoleBinding")
    binding["subjects"] = [
        {"kind": "User", "name": "upgrade", "apiGroup": "rbac.authorization.k8s.io"}
    ]
    cluster.kubectl("apply", "-f", "-", input=as_yaml(hook))
    cluster.kubectl(
        "patch", "crd", "modeldeployments.mooring.dev", "--type=json",
        "-p", '[{"op": "remove", "path": "/spec/versions/0/additionalPrinterColumns"}]',
    )  # fmt: skip
    account = cluster.client("upgrade")
    done = subprocess.run(
        [sys.executable, "-m", "mooring", "crds", "--apply", "--kubeconfig", str(account)],
        check=False, capture_output=True, text=True, timeout=60,
        env={"PYTHONPATH": str(ROOT / "operator"), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    cluster.kubectl("delete", "-f", "-", input=as_yaml(hook))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("is established") == 4
    columns = cluster.kubectl(
        "get", "crd", "modeldeployments.mooring.dev",
        "-o", "jsonpath={.spec.versions[0].additionalPrinterColumns[*].name}",
    )  # fmt: skip
    assert "Phase" in columns


def test_crds_that_may_not_be_applied_say_so_in_one_sentence(cluster: ControlPlane) -> None:
    nobody = cluster.client("nobody")
    done = subprocess.run(
        [sys.executable, "-m", "mooring", "crds", "--apply", "--kubeconfig", str(nobody)],
        check=False, capture_output=True, text=True, timeout=60,
        env={"PYTHONPATH": str(ROOT / "operator"), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 6
    assert "you may not apply customresourcedefinitions" in done.stderr
    assert "modeldeployments.mooring.dev" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("settings", "says", "keeps"),
    [
        ("replicas=2", "WARNING: images.registry is not set", "No runtime"),
        ("images.registry=r.example.com:5000/ml", "config.prometheus.url is not set", "WARNING"),
        ("config.prometheus.url=http://p:9090", "apply -f -", "prometheus.url is not set"),
        ("runtimes.onnx=false", "by: kubectl get clustermodelruntimes", "No runtime"),
        ("namespaces={red},runtimes.onnx=false", "by: kubectl get -n red modelruntimes", "No run"),
        (",".join(f"runtimes.{name}=false" for name in RUNTIMES), "No runtime is shipped", "-f -"),
    ],
)  # fmt: skip
def test_notes_tell_what_is_missing_and_nothing_else(
    cluster: ControlPlane, helm: Helm, settings: str, says: str, keeps: str
) -> None:
    done = helm(
        "install", "x", str(CHART), "--dry-run=client", "--set", settings,
        "--kubeconfig", str(cluster.kubeconfig),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("\nNOTES:\n")[2]
    assert says in notes
    assert keeps not in notes
