"""What the chart installs: rights, hardening, settings, runtimes, and what its schema refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mooring.core import kinds
from mooring.settings import load

CHART = Path(__file__).resolve().parents[2] / "helm" / "mooring"
CRDS = CHART.parents[1] / "crds"

Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]
Helm = Callable[..., subprocess.CompletedProcess[str]]

CLUSTER: tuple[str, ...] = ()
NAMESPACED = ("--set", "namespaces={red,blue}")
DEVELOPMENT = ("-f", str(CHART / "ci" / "dev-values.yaml"))
OPENSHIFT = ("--set", "security.setRunAsUser=false")
EVERYTHING = (
    "--set", "metrics.serviceMonitor.enabled=true,metrics.podMonitor.enabled=true",
    "--set", "images.pullSecrets[0].name=registry,priorityClassName=system-cluster-critical",
    "--set", "nodeSelector.a=b,podLabels.team=ml,podAnnotations.note=x,replicas=3",
    "--set", "config.modelStores[0].cidr=10.0.0.0/8,config.prometheus.podLabels.app=prometheus",
    "--set", "nodeCache.enabled=true",
)  # fmt: skip
MODES = {
    "cluster": CLUSTER,
    "namespaced": NAMESPACED,
    "development": DEVELOPMENT,
    "openshift": OPENSHIFT,
    "everything": EVERYTHING,
}

all_modes = pytest.mark.parametrize("values", MODES.values(), ids=MODES.keys())
needs_helm = pytest.mark.helm

READ = ["get", "list", "watch"]
CHILD = ["get", "list", "watch", "create", "patch", "delete"]
SERVED_RULES = [
    ("mooring.dev", ["modeldeployments", "modelruntimes", "retrainingrequests"], READ),
    ("mooring.dev", ["modeldeployments/status"], ["patch", "update"]),
    ("mooring.dev", ["retrainingrequests"], ["create", "delete"]),
    ("mooring.dev", ["retrainingrequests/status"], ["patch"]),
    ("mooring.dev", ["modeldeployments/finalizers"], ["update"]),
    ("apps", ["controllerrevisions", "deployments"], CHILD),
    ("", ["configmaps", "serviceaccounts", "services"], CHILD),
    ("autoscaling", ["horizontalpodautoscalers"], CHILD),
    ("gateway.networking.k8s.io", ["httproutes"], CHILD),
    ("networking.k8s.io", ["networkpolicies"], CHILD),
    ("policy", ["poddisruptionbudgets"], CHILD),
    ("batch", ["jobs"], [*READ, "create"]),
    ("", ["podtemplates"], ["get"]),
    ("", ["pods"], ["get", "list", "patch"]),
    ("", ["events"], ["create", "patch"]),
]
CLUSTER_RULES = [*SERVED_RULES, ("mooring.dev", ["clustermodelruntimes"], READ)]
LEASE_RULES = [
    ("coordination.k8s.io", ["leases"], ["create"]),
    ("coordination.k8s.io", ["leases"], ["get", "patch", "update"]),
]
UPGRADE_RULES = [
    ("apiextensions.k8s.io", ["customresourcedefinitions"], ["get", "create", "patch"])
]
VIEW_RULES = [
    (
        "mooring.dev",
        ["clustermodelruntimes", "modeldeployments", "modelruntimes", "retrainingrequests"],
        READ,
    )
]
EDIT_RULES = [
    (
        "mooring.dev",
        ["modeldeployments", "modeldeployments/scale", "modelruntimes", "retrainingrequests"],
        ["create", "delete", "deletecollection", "patch", "update"],
    )
]


def of_kind(manifests: list[Manifest], *wanted: str) -> list[Manifest]:
    return [m for m in manifests if m["kind"] in wanted]


def only(manifests: list[Manifest], kind: str) -> Manifest:
    found = of_kind(manifests, kind)
    assert len(found) == 1, [m["metadata"]["name"] for m in found]
    return found[0]


def rights(role: Manifest) -> list[tuple[str, list[str], list[str]]]:
    return [(",".join(r["apiGroups"]), r["resources"], r["verbs"]) for r in role["rules"]]


def pod_specs(manifests: list[Manifest]) -> Iterator[Manifest]:
    for manifest in of_kind(manifests, "Deployment", "Job"):
        yield manifest["spec"]["template"]["spec"]


def settings_of(manifests: list[Manifest], tmp_path: Path) -> Any:
    path = tmp_path / "config.yaml"
    path.write_text(only(manifests, "ConfigMap")["data"]["config.yaml"])
    return load(path)


# --- rights -----------------------------------------------------------------------------------


@needs_helm
def test_clusterwide_rights_are_exactly_these(render: Render) -> None:
    roles = of_kind(render(*CLUSTER), "ClusterRole", "Role")
    assert {r["metadata"]["name"]: rights(r) for r in roles} == {
        "mooring": CLUSTER_RULES,
        "mooring-leader": LEASE_RULES,
        "mooring-crds": UPGRADE_RULES,
        "mooring-view": VIEW_RULES,
        "mooring-edit": EDIT_RULES,
    }


@needs_helm
def test_namespaced_rights_are_exactly_these_in_each_namespace(render: Render) -> None:
    manifests = render(*NAMESPACED)
    roles = of_kind(manifests, "Role")
    assert {(r["metadata"]["namespace"], r["metadata"]["name"]): rights(r) for r in roles} == {
        ("red", "mooring"): SERVED_RULES,
        ("blue", "mooring"): SERVED_RULES,
        ("mooring-system", "mooring-leader"): LEASE_RULES,
    }
    assert [r["metadata"]["name"] for r in of_kind(manifests, "ClusterRole")] == ["mooring-crds"]


@needs_helm
def test_namespaced_without_crd_upgrades_holds_nothing_clusterwide(render: Render) -> None:
    manifests = render(*NAMESPACED, "--set", "crds.upgrade=false")
    assert {m["kind"] for m in manifests if "namespace" not in m["metadata"]} == set()


@needs_helm
@all_modes
def test_no_role_touches_secrets_or_grants_rights(render: Render, values: tuple[str, ...]) -> None:
    for role in of_kind(render(*values), "ClusterRole", "Role"):
        for rule in role["rules"]:
            words = {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
            assert "*" not in words
            assert not {r for r in rule["resources"] if r.split("/")[0] == "secrets"}
            assert not words & {
                "escalate", "bind", "impersonate", "roles", "rolebindings", "clusterroles",
                "clusterrolebindings", "serviceaccounts/token", "pods/exec", "nodes/proxy",
                "validatingwebhookconfigurations", "mutatingwebhookconfigurations",
            }  # fmt: skip


@needs_helm
@all_modes
def test_lease_and_crds_are_named_wherever_a_name_can_be_given(
    render: Render, values: tuple[str, ...]
) -> None:
    manifests = render(*values)
    crds = {path.name.removeprefix("mooring.dev_").removesuffix(".yaml") for path in CRDS.glob("*")}
    for role in of_kind(manifests, "ClusterRole", "Role"):
        for rule in role["rules"]:
            if rule["resources"] == ["leases"] and rule["verbs"] != ["create"]:
                assert rule["resourceNames"] == ["mooring-leader"]
            if rule["resources"] == ["customresourcedefinitions"]:
                assert set(rule["resourceNames"]) == {f"{name}.mooring.dev" for name in crds}


@needs_helm
def test_every_kind_that_the_operator_writes_is_granted(render: Render) -> None:
    role = next(
        r for r in of_kind(render(*CLUSTER), "ClusterRole") if r["metadata"]["name"] == "mooring"
    )
    granted = {
        (group, resource): set(verbs)
        for group, resources, verbs in rights(role)
        for resource in resources
    }
    for kind in (*kinds.CHILD_KINDS, *kinds.OPTIONAL_KINDS):
        assert granted[kind.group, kind.plural] == set(CHILD), kind.name


@needs_helm
@all_modes
def test_every_binding_names_a_role_and_an_account_of_the_chart(
    render: Render, values: tuple[str, ...]
) -> None:
    manifests = render(*values)
    accounts = {m["metadata"]["name"] for m in of_kind(manifests, "ServiceAccount")}
    roles = {
        (m["kind"], m["metadata"].get("namespace"), m["metadata"]["name"])
        for m in of_kind(manifests, "Role", "ClusterRole")
    }
    for binding in of_kind(manifests, "RoleBinding", "ClusterRoleBinding"):
        reference, namespace = binding["roleRef"], binding["metadata"].get("namespace")
        assert (reference["kind"], namespace, reference["name"]) in roles
        (subject,) = binding["subjects"]
        assert (subject["name"] in accounts, subject["namespace"]) == (True, "mooring-system")


# --- hardening --------------------------------------------------------------------------------


@needs_helm
@all_modes
def test_pods_meet_the_restricted_standard_and_write_nowhere_but_tmp(
    render: Render, values: tuple[str, ...]
) -> None:
    specs = list(pod_specs(render(*values)))
    assert len(specs) == 2
    for spec in specs:
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert all("hostPath" not in volume for volume in spec["volumes"])
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            writable = [m for m in container["volumeMounts"] if not m.get("readOnly")]
            assert [m["mountPath"] for m in writable] == ["/tmp"]
            assert container["resources"]["limits"]["memory"]


@needs_helm
def test_user_is_named_unless_the_cluster_names_it(render: Render) -> None:
    for spec in pod_specs(render(*CLUSTER)):
        assert spec["securityContext"]["runAsUser"] == 65532
    for spec in pod_specs(render(*OPENSHIFT)):
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & spec["securityContext"].keys()
    for runtime in of_kind(render(*OPENSHIFT), "ClusterModelRuntime"):
        assert runtime["spec"]["security"] == {"setRunAsUser": False}


@needs_helm
def test_network_policy_lets_in_prometheus_alone_and_out_no_metadata_service(
    render: Render,
) -> None:
    spec = only(render(*CLUSTER), "NetworkPolicy")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    (ingress,) = spec["ingress"]
    assert ingress["from"] == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    ]
    dns, _, _, api_server = spec["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    assert {port["port"] for port in api_server["ports"]} == {443, 6443}
    assert [peer["ipBlock"]["except"] for peer in api_server["to"]] == [
        ["169.254.0.0/16"],
        ["fe80::/10"],
    ]


@needs_helm
def test_two_pods_never_leave_at_once(render: Render) -> None:
    manifests = render(*CLUSTER)
    deployment = only(manifests, "Deployment")["spec"]
    assert deployment["replicas"] == 2
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    budget = only(manifests, "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"] == deployment["selector"]
    keys = {c["topologyKey"] for c in deployment["template"]["spec"]["topologySpreadConstraints"]}
    assert keys == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}


@needs_helm
def test_one_pod_has_no_budget_that_would_block_a_drain(render: Render) -> None:
    assert of_kind(render("--set", "replicas=1"), "PodDisruptionBudget") == []


# --- settings and runtimes ---------------------------------------------------------------------


@needs_helm
@all_modes
def test_rendered_settings_are_those_that_the_operator_reads(
    render: Render, values: tuple[str, ...], tmp_path: Path
) -> None:
    settings = settings_of(render(*values), tmp_path)
    assert settings.namespaces == (("red", "blue") if values == NAMESPACED else ())
    assert settings.images.fetcher.startswith("mooring.dev/fetcher:")
    assert settings.images.router.startswith("mooring.dev/router:")
    assert settings.images.collector.startswith("mooring.dev/collector:")
    assert settings.port == 8080


@needs_helm
def test_model_stores_tell_anywhere_nowhere_and_somewhere_apart(
    render: Render, tmp_path: Path
) -> None:
    assert settings_of(render(*CLUSTER), tmp_path).model_stores is None
    nowhere = render("--set-json", "config.modelStores=[]")
    assert settings_of(nowhere, tmp_path).model_stores == ()
    store = '[{"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"], "ports": [443]}]'
    (found,) = settings_of(
        render("--set-json", f"config.modelStores={store}"), tmp_path
    ).model_stores
    assert (found.cidr, found.excluded, found.ports) == ("10.0.0.0/8", ("10.1.0.0/16",), (443,))


@needs_helm
def test_a_changed_setting_changes_the_pods_and_nothing_else_does(render: Render) -> None:
    def checksum(*values: str) -> str:
        template = only(render(*values), "Deployment")["spec"]["template"]
        return str(template["metadata"]["annotations"]["mooring.dev/config-checksum"])

    assert checksum("--set", "config.workers=4") != checksum()
    assert checksum("--set", "runtimes.onnx=false") == checksum()


@needs_helm
def test_an_image_is_named_by_digest_where_one_is_given(render: Render) -> None:
    digest = "sha256:" + "0" * 64
    manifests = render(
        "--set", f"images.onnxServer.digest={digest},images.operator.digest={digest}"
    )
    (onnx,) = [r for r in of_kind(manifests, "ClusterModelRuntime") if "onnx-server" in str(r)]
    runtime = onnx["spec"]
    assert runtime["image"] == f"mooring.dev/onnx-server@{digest}"
    assert "version" not in runtime
    for spec in pod_specs(manifests):
        assert spec["containers"][0]["image"] == f"mooring.dev/operator@{digest}"


# --- the chart itself --------------------------------------------------------------------------


@needs_helm
@all_modes
def test_chart_passes_helms_strict_linter(helm: Helm, values: tuple[str, ...]) -> None:
    done = helm("lint", "--strict", "--kube-version", "1.30.0", str(CHART), *values)
    assert done.returncode == 0, done.stdout


@needs_helm
@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("replica=3", "additional properties 'replica' not allowed"),
        ("config.requiredDigest=true", "at '/config'"),
        ("config.drain=7d", "at '/config/drain': '7d' does not match"),
        ("images.operator.digest=latest", "at '/images/operator/digest'"),
        ("security.runAsUser=0", "at '/security/runAsUser'"),
        ("namespaces={Not_a_name}", "at '/namespaces/0'"),
        ("replicas=two", "at '/replicas'"),
        ("images.registry=https://registry.example.com", "at '/images/registry'"),
        ("images.registry=registry.example.com/", "at '/images/registry'"),
    ],
)
def test_schema_names_the_value_that_it_refuses(helm: Helm, setting: str, told: str) -> None:
    done = helm("template", "x", str(CHART), "--kube-version", "1.30.0", "--set", setting)
    assert done.returncode != 0
    assert told in done.stderr


@needs_helm
def test_a_foreign_account_must_be_named(helm: Helm) -> None:
    setting = "serviceAccount.create=false"
    done = helm("template", "x", str(CHART), "--kube-version", "1.30.0", "--set", setting)
    assert "serviceAccount.name is needed" in done.stderr


@needs_helm
def test_a_cluster_that_is_too_old_is_refused(helm: Helm) -> None:
    done = helm("template", "x", str(CHART), "--kube-version", "1.29.9")
    assert "requires kubeVersion: >=1.30.0-0" in done.stderr


@needs_helm
@all_modes
def test_every_object_says_what_it_belongs_to(render: Render, values: tuple[str, ...]) -> None:
    for manifest in render(*values):
        labels = manifest["metadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "mooring"
        assert labels["app.kubernetes.io/instance"] == "mooring"


@needs_helm
def test_hook_goes_away_with_its_rights(render: Render) -> None:
    hooks = [m for m in render(*CLUSTER) if m["metadata"]["name"] == "mooring-crds"]
    assert {m["kind"] for m in hooks} == {
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "Job",
    }
    for hook in hooks:
        annotations = hook["metadata"]["annotations"]
        assert annotations["helm.sh/hook"] == "pre-upgrade"
        assert "hook-succeeded" in annotations["helm.sh/hook-delete-policy"]


def test_crds_of_the_chart_are_those_of_the_repository() -> None:
    chart = {path.name: path.read_text() for path in (CHART / "crds").iterdir()}
    assert chart == {path.name: path.read_text() for path in CRDS.glob("*.yaml")}


def test_schema_describes_every_value_and_knows_no_other() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def resolved(node: Manifest) -> Manifest:
        name = node.get("$ref", "").rpartition("/")[2]
        return {**schema["definitions"][name], **node} if name else node

    def compare(node: Manifest, value: Any, path: str) -> None:
        node = resolved(node)
        if "properties" not in node:
            assert node.get("description"), f"{path} has no description"
            return
        assert node.get("additionalProperties") is False, f"{path or 'values'} takes anything"
        for key, part in value.items():
            assert key in node["properties"], f"{path}/{key} is not in the schema"
            compare(node["properties"][key], part, f"{path}/{key}")

    compare(schema, values, "")


def test_reference_of_the_chart_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(CHART.parents[1] / "dev" / "generate_chart_reference.py"), "--check"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_versions_agree() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = (CHART.parents[1] / "pyproject.toml").read_text()
    assert f'\nversion = "{chart["version"]}"\n' in project
    assert chart["appVersion"] == chart["version"]
