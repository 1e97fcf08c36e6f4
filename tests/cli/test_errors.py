"""Every way in which the cluster cannot be asked: one sentence, the way out, an exit code."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.cli import objects
from tests.cli.api_server import FakeApi, write_kubeconfig
from tests.cli.conftest import Mooring

from mooring.cli import main

FORBIDDEN = {
    "kind": "Status",
    "reason": "Forbidden",
    "message": 'modeldeployments.mooring.dev "fraud" is forbidden: User "me" cannot get resource',
    "details": {"name": "fraud"},
}


def last_line(output: str) -> str:
    assert "Traceback" not in output
    return output.splitlines()[-1]


def test_no_kubeconfig_ends_with_4_and_names_where_it_looked(tmp_path: Path) -> None:
    missing = tmp_path / "none"
    found = CliRunner().invoke(main, ["list"], env={"KUBECONFIG": str(missing)})
    assert found.exit_code == 4
    assert last_line(found.output) == (
        f"Error: there is no kubeconfig at {missing}: name one with --kubeconfig or KUBECONFIG"
    )


@pytest.mark.parametrize("command", [["export"], ["crds", "--apply"], ["get", "fraud"]])
def test_every_command_that_asks_a_cluster_finds_it_in_the_same_way(
    tmp_path: Path, command: list[str]
) -> None:
    missing = tmp_path / "none"
    found = CliRunner().invoke(main, command, env={"KUBECONFIG": str(missing)})
    assert found.exit_code == 4
    assert last_line(found.output).startswith(f"Error: there is no kubeconfig at {missing}")
    found = CliRunner().invoke(main, [*command, "--context", "other", "-n", "shop", "--help"])
    assert found.exit_code == 0
    assert "--kubeconfig FILE" in found.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["get", "../pods"], "'../pods' cannot be the name of a ModelDeployment"),
        (["promote", "fraud?dryRun=All", "--revision", "x"], "cannot be the name of a Model"),
        (["list", "-n", "shop/pods"], "'shop/pods' cannot be the name of a namespace"),
        (["get", "fraud", "-n", ".."], "'..' cannot be the name of a namespace"),
    ],
)
def test_a_name_never_becomes_another_path(
    api: FakeApi, mooring: Mooring, arguments: list[str], words: str
) -> None:
    found = mooring(*arguments)
    assert found.exit_code == 2
    assert words in last_line(found.output)
    assert api.patches == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be used"),
        ("[]", "cannot be used"),
        ("", "file is empty"),
        ("current-context: a", "cannot be used"),
        ("current-context: a\ncontexts: [{name: a}]", "cannot be used"),
    ],
)
def test_a_broken_kubeconfig_ends_with_4(tmp_path: Path, text: str, words: str) -> None:
    broken = tmp_path / "kubeconfig"
    broken.write_text(text)
    found = CliRunner().invoke(main, ["list", "--kubeconfig", str(broken)])
    assert found.exit_code == 4, found.output
    assert words in last_line(found.output)


def test_an_unknown_context_names_the_near_one(mooring: Mooring) -> None:
    found = mooring("list", "--context", "her")
    assert found.exit_code == 4
    assert last_line(found.output).endswith("has no context her: did you mean here?")


def test_an_unreachable_server_ends_with_5(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        config = write_kubeconfig(tmp_path / "kubeconfig", address)
        found = CliRunner().invoke(main, ["get", "fraud", "--kubeconfig", str(config)])
    assert found.exit_code == 5
    assert last_line(found.output) == (
        f"Error: the API server {address} cannot be reached: connection refused; is the cluster "
        "running, and is --context the right one?"
    )


def test_a_server_that_hangs_up_ends_with_5(api: FakeApi, mooring: Mooring) -> None:
    api.silent = True
    found = mooring("list")
    assert found.exit_code == 5
    assert "cannot be reached" in last_line(found.output)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_is_overloaded_ends_with_5(
    api: FakeApi, mooring: Mooring, status: int
) -> None:
    api.refusals["/apis"] = (status, {"message": "etcdserver: request timed out"})
    found = mooring("get", "fraud")
    assert found.exit_code == 5
    assert f"(HTTP {status}: etcdserver: request timed out): try again" in found.output


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "Unauthorized"), (403, 'User "system:anonymous" cannot list resource')],
)
def test_who_is_not_logged_in_is_told_so_and_ends_with_6(
    api: FakeApi, mooring: Mooring, status: int, message: str
) -> None:
    api.refusals["/apis"] = (status, {"message": message})
    found = mooring("get", "fraud")
    assert found.exit_code == 6
    assert "does not know you: log in again" in last_line(found.output)


@pytest.mark.parametrize(
    "command", [("get", "fraud"), ("list",), ("promote", "fraud"), ("explain", "fraud")]
)
def test_what_is_forbidden_ends_with_6_and_names_the_right(
    api: FakeApi, mooring: Mooring, command: tuple[str, ...]
) -> None:
    api.refusals[objects.DEPLOYMENTS] = (403, FORBIDDEN)
    found = mooring(*command)
    assert found.exit_code == 6
    assert "you may not" in last_line(found.output)
    assert 'User "me" cannot get resource' in last_line(found.output)


@pytest.mark.parametrize("command", ["get", "status", "explain", "promote", "history", "retry"])
def test_what_does_not_exist_ends_with_7_and_names_near_ones(
    mooring: Mooring, command: str
) -> None:
    found = mooring(command, "fruad")
    assert found.exit_code == 7
    assert last_line(found.output) == (
        "Error: there is no ModelDeployment fruad in namespace shop: did you mean fraud?"
    )


def test_what_exists_elsewhere_is_found_there(api: FakeApi, mooring: Mooring) -> None:
    elsewhere = objects.deployment(name="churn")
    elsewhere["metadata"]["namespace"] = "lab"
    api.put(objects.DEPLOYMENTS.replace("/shop/", "/lab/"), elsewhere)
    found = mooring("get", "churn")
    assert found.exit_code == 7
    assert last_line(found.output).endswith("in namespace shop; there is one in lab: use -n")


def test_what_resembles_nothing_gets_a_list_of_what_there_is(mooring: Mooring) -> None:
    assert last_line(mooring("get", "zzz").output).endswith("namespace shop; there are: fraud")


def test_a_cluster_without_mooring_ends_with_8(api: FakeApi, mooring: Mooring) -> None:
    del api.objects[objects.DEPLOYMENTS]
    for command in (("get", "fraud"), ("list",), ("status", "fraud"), ("abort", "fraud")):
        found = mooring(*command)
        assert found.exit_code == 8, found.output
        assert "Mooring is not installed in this cluster" in last_line(found.output)
        assert "knows no ModelDeployment" in last_line(found.output)


def test_an_answer_that_is_no_json_is_no_traceback(api: FakeApi, mooring: Mooring) -> None:
    api.refusals["/apis"] = (200, "<html>log in</html>")
    found = mooring("list")
    assert found.exit_code == 1
    assert last_line(found.output) == (
        "Error: cannot list modeldeployments: <html>log in</html> (HTTP 200)"
    )


def test_who_may_not_list_pods_gets_the_rest_of_the_tree(api: FakeApi, mooring: Mooring) -> None:
    api.refusals[objects.PODS] = (403, {"message": "pods is forbidden"})
    found = mooring("get", "fraud")
    assert found.exit_code == 0
    assert "candidate bkdzxfpnlt" in found.output
    assert "pods are not shown: you may not list pods here: pods is forbidden" in found.output
