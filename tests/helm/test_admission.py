"""The shipped ValidatingAdmissionPolicy: no rights gained by way of a model's pods."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mooring_dev import kubectl
from mooring_dev.binaries import ensure
from mooring_dev.control_plane import ControlPlane
from mooring_dev.errors import DevError

Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]

NAMESPACE = "guarded"
SECRET_ENV = [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "database", "key": "key"}}}]
RULES = {
    "author": [("mooring.dev", "modeldeployments,modelruntimes", "*")],
    "trusted": [
        ("mooring.dev", "modeldeployments,modelruntimes", "*"),
        ("", "serviceaccounts", "use"),
        ("", "secrets", "get"),
    ],
    "developer": [("mooring.dev", "modeldeployments,modelruntimes", "*"), ("", "pods", "create")],
}

pytestmark = [pytest.mark.apiserver, pytest.mark.helm]


class Author:
    """Somebody who applies with rights of their own."""

    def __init__(self, config: Path) -> None:
        self.config = config

    def apply(self, manifest: Manifest, *options: str) -> str:
        return kubectl.run(
            ensure("kubectl"),
            self.config,
            ("apply", "--server-side", "--force-conflicts", *options, "-f", "-"),
            standard_input=yaml.safe_dump(manifest),
        )


def deployment(name: str, **runtime: Any) -> Manifest:
    return {
        "apiVersion": "mooring.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "model": {"uri": "s3://models/fraud/model.onnx"},
            "runtime": {"name": "onnx", **runtime},
        },
    }


def runtime(name: str, **fields: Any) -> Manifest:
    return {
        "apiVersion": "mooring.dev/v1alpha1",
        "kind": "ModelRuntime",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "formats": [{"name": "onnx"}],
            "image": "example.org/server:1",
            "ports": [{"name": "http", "containerPort": 8080}],
            **fields,
        },
    }


@pytest.fixture(scope="module")
def guarded(control_plane_with_crds: ControlPlane, render: Render) -> Iterator[ControlPlane]:
    """A namespace with three kinds of author, and the policy in force."""
    plane = control_plane_with_crds
    objects: list[Manifest] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    ]
    for user, rules in RULES.items():
        name = {"name": user, "namespace": NAMESPACE}
        role = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": name,
            "rules": [
                {"apiGroups": [group], "resources": resources.split(","), "verbs": [verb]}
                for group, resources, verb in rules
            ],
        }
        binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": name,
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "Role",
                "name": user,
            },
            "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}],
        }
        objects += [role, binding]
    policy = [m for m in render() if m["kind"].startswith("ValidatingAdmissionPolicy")]
    objects += policy
    plane.kubectl("apply", "--server-side", "-f", "-", input=yaml.safe_dump_all(objects))
    wait_until_enforced(authors(plane)["author"])
    yield plane
    plane.kubectl("delete", "-f", "-", input=yaml.safe_dump_all(policy))


def authors(plane: ControlPlane) -> dict[str, Author]:
    return {user: Author(plane.client(user)) for user in RULES}


def wait_until_enforced(author: Author) -> None:
    """The API server takes a policy up some time after it was created; nothing tells when."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            author.apply(deployment("probe", serviceAccountName="x"), "--dry-run=server")
        except DevError as error:
            if "may not run pods as" in str(error):
                return
        time.sleep(0.2)
    raise AssertionError("the policy was not in force after 30 s")


@pytest.mark.parametrize(
    ("user", "fields", "told"),
    [
        ("author", {}, None),
        ("author", {"env": [{"name": "A", "value": "b"}]}, None),
        (
            "author",
            {"serviceAccountName": "admin"},
            "author may not run pods as ServiceAccount admin",
        ),
        ("author", {"env": SECRET_ENV}, "author may not read the Secrets of namespace guarded"),
        ("trusted", {"serviceAccountName": "admin", "env": SECRET_ENV}, None),
        ("developer", {"serviceAccountName": "admin", "env": SECRET_ENV}, None),
    ],
)
def test_who_may_use_what_by_way_of_a_deployment(
    guarded: ControlPlane, user: str, fields: Manifest, told: str | None
) -> None:
    author = authors(guarded)[user]
    manifest = deployment(f"{user}-{len(str(fields))}", **fields)
    if told is None:
        assert "serverside-applied" in author.apply(manifest)
    else:
        with pytest.raises(DevError, match=told):
            author.apply(manifest)


def training(name: str) -> Manifest:
    manifest = deployment(name)
    manifest["spec"]["retraining"] = {"action": {"job": {"templateRef": {"name": "train"}}}}
    return manifest


def test_a_job_is_no_way_round(guarded: ControlPlane) -> None:
    people = authors(guarded)
    with pytest.raises(
        DevError, match=r"spec\.retraining\.action\.job: author may not create Jobs"
    ):
        people["author"].apply(training("trains"))
    assert "serverside-applied" in people["developer"].apply(training("trains"))
    edited = training("trains")
    edited["spec"]["replicas"] = 2
    assert "serverside-applied" in people["author"].apply(edited)


def test_a_runtime_is_no_way_round(guarded: ControlPlane) -> None:
    author = authors(guarded)["author"]
    assert "serverside-applied" in author.apply(runtime("plain"))
    with pytest.raises(DevError, match="may not read the Secrets"):
        author.apply(runtime("curious", env=SECRET_ENV))


def test_what_another_person_was_allowed_stays_while_the_rest_is_edited(
    guarded: ControlPlane,
) -> None:
    people = authors(guarded)
    people["trusted"].apply(deployment("shared", serviceAccountName="admin", env=SECRET_ENV))
    edited = deployment("shared", serviceAccountName="admin", env=SECRET_ENV)
    edited["spec"]["replicas"] = 2
    assert "serverside-applied" in people["author"].apply(edited)
    edited["spec"]["runtime"]["serviceAccountName"] = "another"
    with pytest.raises(DevError, match="may not run pods as ServiceAccount another"):
        people["author"].apply(edited)
