"""``mooring export``: what a backup holds, and what its maker is told."""

from __future__ import annotations

import pytest
import yaml
from tests.cli import objects
from tests.cli.api_server import FakeApi
from tests.cli.conftest import Mooring

from mooring.core import kinds

RUNTIMES = f"/apis/mooring.dev/v1alpha1/namespaces/{objects.NAMESPACE}/modelruntimes"
CLUSTER_RUNTIMES = "/apis/mooring.dev/v1alpha1/clustermodelruntimes"
FORBIDDEN = (403, {"kind": "Status", "message": "clustermodelruntimes is forbidden"})


@pytest.fixture
def cluster(api: FakeApi) -> FakeApi:
    api.objects[RUNTIMES] = {}
    api.objects[CLUSTER_RUNTIMES] = {}
    for record in api.objects[objects.RECORDS].values():
        record["metadata"]["labels"][kinds.LABEL_MANAGED_BY] = kinds.MANAGED_BY
    return api


def test_everything_is_exported_and_counted(cluster: FakeApi, mooring: Mooring) -> None:
    found = mooring("export")
    assert found.exit_code == 0, found.stderr
    exported = list(yaml.safe_load_all(found.stdout))
    records = len(cluster.objects[objects.RECORDS])
    found_kinds = [obj["kind"] for obj in exported]
    assert found_kinds == ["ControllerRevision"] * records + ["ModelDeployment"]
    assert all(obj["apiVersion"] and "status" not in obj for obj in exported)
    assert found.stderr == (
        "exported of all namespaces: 0 clustermodelruntimes, 0 modelruntimes, "
        f"{records} controllerrevisions, 1 modeldeployments\n"
    )


def test_an_empty_backup_is_said_to_be_empty(cluster: FakeApi, mooring: Mooring) -> None:
    for collection in (objects.DEPLOYMENTS, objects.RECORDS):
        cluster.objects[collection].clear()
    found = mooring("export", "-n", objects.NAMESPACE)
    assert (found.exit_code, found.stdout) == (0, "")
    assert found.stderr.startswith("exported of namespace shop: 0 clustermodelruntimes, 0 model")


def test_who_keeps_one_namespace_needs_no_right_on_the_cluster(
    cluster: FakeApi, mooring: Mooring
) -> None:
    cluster.refusals[CLUSTER_RUNTIMES] = FORBIDDEN
    found = mooring("export", "-n", objects.NAMESPACE)
    assert found.exit_code == 0
    assert found.stderr.startswith("left out: you may not list clustermodelruntimes here")
    assert "kind: ModelDeployment" in found.stdout


def test_a_backup_of_all_is_whole_or_not_made(cluster: FakeApi, mooring: Mooring) -> None:
    cluster.refusals[CLUSTER_RUNTIMES] = FORBIDDEN
    found = mooring("export")
    assert (found.exit_code, found.stdout) == (6, "")
