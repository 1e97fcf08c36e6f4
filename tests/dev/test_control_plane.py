from __future__ import annotations

from pathlib import Path

import pytest

from mooring_dev import components, processes
from mooring_dev.control_plane import ControlPlane
from mooring_dev.errors import DevError

pytestmark = pytest.mark.apiserver


def running_in(directory: Path) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            arguments = processes.arguments_of(int(entry.name))
            if any(str(directory) in argument for argument in arguments):
                found.append(arguments[0])
    return found


def test_it_starts_answers_and_leaves_no_process(tmp_path: Path) -> None:
    with ControlPlane.start(tmp_path) as plane:
        assert "default" in plane.kubectl("get", "namespaces", "-o", "name")
        assert plane.server.startswith("https://127.0.0.1:")
        assert len(running_in(tmp_path)) == 2
    assert running_in(tmp_path) == []


def test_it_leaves_no_process_when_a_test_fails_in_it(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), ControlPlane.start(tmp_path):
        raise ZeroDivisionError
    assert running_in(tmp_path) == []


def test_it_leaves_no_process_when_it_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_unknown_flag(binary: Path, *_: object) -> tuple[str, ...]:
        return (str(binary), "--no-such-flag")

    monkeypatch.setattr(components, "api_server", with_unknown_flag)
    with pytest.raises(DevError, match="unknown flag: --no-such-flag"):
        ControlPlane.start(tmp_path)
    assert running_in(tmp_path) == []


def test_its_controllers_delete_what_lost_its_owner(tmp_path: Path) -> None:
    with ControlPlane.start(tmp_path, controller_manager=True) as plane:
        plane.kubectl("create", "configmap", "owner")
        uid = plane.kubectl("get", "configmap", "owner", "-o=jsonpath={.metadata.uid}")
        plane.kubectl("apply", "-f", "-", input=OWNED.format(uid=uid))
        plane.kubectl("delete", "configmap", "owner")
        plane.kubectl("wait", "--for=delete", "configmap/owned", "--timeout=20s")
        assert "owned" not in plane.kubectl("get", "configmaps", "-o=name")


OWNED = """
apiVersion: v1
kind: ConfigMap
metadata:
  name: owned
  ownerReferences:
    - {{apiVersion: v1, kind: ConfigMap, name: owner, uid: {uid}}}
"""


def test_a_user_without_a_role_is_refused(control_plane: ControlPlane) -> None:
    kubeconfig = control_plane.client("alice", ("data-science",))
    shown = control_plane.kubectl("auth", "whoami", "--kubeconfig", str(kubeconfig))
    assert "alice" in shown
    with pytest.raises(DevError, match="Forbidden"):
        control_plane.kubectl("get", "secrets", "--kubeconfig", str(kubeconfig))


def test_a_failing_kubectl_raises_what_it_said(control_plane: ControlPlane) -> None:
    with pytest.raises(DevError, match='namespaces "nowhere" not found'):
        control_plane.kubectl("get", "namespace", "nowhere")
