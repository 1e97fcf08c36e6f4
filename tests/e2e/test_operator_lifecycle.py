"""What is served does not depend on the operator being there, nor on which one it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import yaml

from mooring_dev.cluster import Cluster
from mooring_dev.demo_chart import NAMESPACE
from mooring_dev.demo_client import Client, service_url
from mooring_dev.demo_model import Model, is_true, read_manifests
from mooring_dev.demo_store import example, example_file

Named = Callable[[str], Model]

SELECTOR = "app.kubernetes.io/name=mooring-operator"
CHILDREN = "deployments,services,configmaps,poddisruptionbudgets,networkpolicies"
OURS = "app.kubernetes.io/managed-by=mooring"


def _example(uri: str) -> dict[str, object]:
    manifest = read_manifests(example_file("onnx", "modeldeployment.yaml"))[0]
    manifest["spec"]["model"]["uri"] = uri
    return manifest


def _pods(cluster: Cluster, namespace: str, selector: str) -> dict[str, str]:
    """Name to uid of the pods that match."""
    found = cluster.kubectl("get", "pods", "-n", namespace, "-l", selector, "-o", "json")
    return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in json.loads(found)["items"]}


def _children(model: Model) -> set[str]:
    """Everything that was made for a model, with its own name taken out."""
    selector = f"mooring.dev/deployment={model.name}"
    names = model.kubectl("get", CHILDREN, "-l", selector, "-o", "name").split()
    return {name.replace(f"/{model.name}", "/NAME") for name in names}


def _operator_ready(cluster: Cluster) -> None:
    rollout = ("rollout", "status", "deployment/mooring", "-n", NAMESPACE, "--timeout=90s")
    cluster.kubectl(*rollout)


def _leader(cluster: Cluster) -> str:
    found = cluster.kubectl("get", "leases", "-n", NAMESPACE, "-o", "json")
    (lease,) = json.loads(found)["items"]
    return str(lease["spec"].get("holderIdentity") or "")


def _kill(cluster: Cluster, *pods: str) -> None:
    now = ("--grace-period=0", "--force", "--wait=false")
    cluster.kubectl("delete", "pods", "-n", NAMESPACE, *pods, *now)


@contextmanager
def _stopped(cluster: Cluster) -> Iterator[None]:
    scale = ("scale", "deployment/mooring", "-n", NAMESPACE)
    cluster.kubectl(*scale, "--replicas=0")
    gone = ("wait", "--for=delete", "pods", "-l", SELECTOR, "-n", NAMESPACE, "--timeout=60s")
    cluster.kubectl(*gone)
    try:
        yield
    finally:
        cluster.kubectl(*scale, "--replicas=2")
        _operator_ready(cluster)


def test_an_operator_killed_in_the_middle_of_an_update_ends_where_an_undisturbed_one_does(
    operator: Cluster, model: Named, client: Client, uris: dict[str, str]
) -> None:
    undisturbed, disturbed = model("undisturbed"), model("disturbed")
    for each in (undisturbed, disturbed):
        each.apply(_example(uris["v1"]))
    for each in (undisturbed, disturbed):
        each.wait_serving(uris["v1"])
    undisturbed.patch({"spec": {"model": {"uri": uris["v2"]}}})
    undisturbed.wait_serving(uris["v2"])

    with client.stream(
        service_url("disturbed", disturbed.namespace), example().request()
    ) as stream:
        disturbed.patch({"spec": {"model": {"uri": uris["v2"]}}})
        disturbed.wait("a candidate", lambda status: "candidate" in status)
        _kill(operator, *_pods(operator, NAMESPACE, SELECTOR))
        disturbed.wait_serving(uris["v2"])

    assert stream.result.failures == ()
    for each in (undisturbed, disturbed):
        old = (
            f"mooring.dev/deployment={each.name},mooring.dev/revision,mooring.dev/revision!="
            + (each.status()["stable"]["revision"])
        )
        each.kubectl("wait", "--for=delete", "deployments", "-l", old, "--timeout=60s")
    assert _children(disturbed) == _children(undisturbed)
    same = ("phase", "replicas", "selector")
    ours = disturbed.status()
    theirs = undisturbed.status()
    assert ours["stable"]["revision"] == theirs["stable"]["revision"]
    assert {key: ours[key] for key in same} == {
        key: str(theirs[key]).replace("undisturbed", "disturbed")
        if key == "selector"
        else theirs[key]
        for key in same
    }
    _operator_ready(operator)


def test_without_an_operator_models_serve_on_pods_are_replaced_and_deletes_complete(
    operator: Cluster, model: Named, client: Client, uris: dict[str, str]
) -> None:
    fraud, doomed = model("fraud"), model("doomed")
    for each in (fraud, doomed):
        each.apply(_example(uris["v1"]))
    for each in (fraud, doomed):
        each.wait_serving(uris["v1"])

    with (
        _stopped(operator),
        client.stream(service_url("fraud", fraud.namespace), example().request()) as stream,
    ):
        before = _pods(operator, fraud.namespace, "mooring.dev/deployment=fraud")
        fraud.kubectl("delete", "pod", next(iter(before)))
        deployment = fraud.kubectl(
            "get", "deployments", "-o", "name",
            "-l", "mooring.dev/deployment=fraud,mooring.dev/revision",
        )  # fmt: skip
        fraud.kubectl("rollout", "status", deployment.strip(), "--timeout=60s")
        doomed.delete()
        selector = ("-l", "mooring.dev/deployment=doomed")
        fraud.kubectl("wait", "--for=delete", "pods", *selector, "--timeout=60s")
        left = fraud.kubectl("get", CHILDREN, *selector, "-o", "name")

    assert left == ""
    assert stream.result.failures == ()
    assert stream.result.sent > 50


def test_the_standby_takes_over_when_the_leader_is_killed(
    operator: Cluster, model: Named, uris: dict[str, str]
) -> None:
    _operator_ready(operator)
    leader = _leader(operator)
    pods = _pods(operator, NAMESPACE, SELECTOR)
    assert leader in pods
    standbys = set(pods) - {leader}

    _kill(operator, leader)
    fraud = model("fraud")
    fraud.apply(_example(uris["v1"]))
    fraud.wait_serving(uris["v1"], seconds=60)

    assert _leader(operator) in standbys
    _operator_ready(operator)


def _export(cluster: Cluster, namespace: str) -> str:
    where = ("--namespace", namespace, "--kubeconfig", str(cluster.kubeconfig))
    # In a process of its own, as a person would, and since tests may reach loopback only.
    done = subprocess.run(
        [sys.executable, "-m", "mooring", "export", *where],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_restored_backup_serves_the_same_model_by_the_same_revision_and_repeats_no_verb(
    operator: Cluster, model: Named, uris: dict[str, str]
) -> None:
    fraud = model("fraud")
    fraud.apply(_example(uris["v1"]))
    first = fraud.wait_serving(uris["v1"])["stable"]["revision"]
    fraud.kubectl("annotate", "mdep/fraud", f"mooring.dev/action=restart/{first}/1")
    before = fraud.wait(
        "a restarted revision",
        lambda status: (
            status.get("stable", {}).get("revision", first) != first and is_true(status, "Ready")
        ),
    )["stable"]
    records = fraud.kubectl("get", "controllerrevisions", "-l", OURS, "-o", "name")
    backup = _export(operator, fraud.namespace)
    # The runtimes are the chart's, and still there.
    wanted = [one for one in yaml.safe_load_all(backup) if one["kind"] != "ClusterModelRuntime"]

    fraud.delete()
    fraud.kubectl("wait", "--for=delete", "pods,controllerrevisions", "-l", OURS)
    with _stopped(operator):
        operator.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(wanted))

    after = fraud.wait_serving(uris["v1"])["stable"]
    same = ("revision", "modelUri", "modelDigest", "replicas")
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    assert fraud.kubectl("get", "controllerrevisions", "-l", OURS, "-o", "name") == records


@pytest.fixture
def restored(install: Callable[..., None]) -> Iterator[None]:
    yield
    install()


@pytest.mark.usefixtures("restored")
def test_an_upgrade_of_the_chart_restarts_the_operator_and_no_model_pod(
    operator: Cluster, model: Named, uris: dict[str, str], install: Callable[..., None]
) -> None:
    fraud = model("fraud")
    fraud.apply(_example(uris["v1"]))
    before = fraud.wait_serving(uris["v1"])["stable"]["revision"]
    models = _pods(operator, fraud.namespace, OURS)
    operators = _pods(operator, NAMESPACE, SELECTOR)

    # A new fetcher, a new server in the shipped runtime, and a new setting at once.
    install("images.fetcher.tag=dev", "images.onnxServer.tag=dev", "config.preStopSeconds=4")
    fraud.patch({"metadata": {"annotations": {"example.com/look": "again"}}})
    fraud.kubectl("scale", "mdep/fraud", "--replicas=3")
    status = fraud.wait(
        "a third pod", lambda status: status["stable"]["replicas"] == {"desired": 3, "ready": 3}
    )

    assert status["stable"]["revision"] == before
    assert not set(operators.values()) & set(_pods(operator, NAMESPACE, SELECTOR).values())
    now = _pods(operator, fraud.namespace, OURS)
    assert models.items() <= now.items()
    # The third pod is like the two before it, not like what the new chart would make.
    path = "jsonpath={.items[*].spec.containers[*].image}"
    images = fraud.kubectl("get", "pods", "-l", "mooring.dev/revision", "-o", path)
    assert len(set(images.split())) == 1
    assert images.split()[0] != "mooring.dev/onnx-server:dev"
