"""Options of the fault runs, and the control plane they share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.apiserver.cluster import Api

from mooring_dev.control_plane import ControlPlane
from mooring_dev.errors import DevError
from mooring_dev.health import wait_until

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane without controllers: nothing but the operator deletes anything."""
    with ControlPlane.start(tmp_path_factory.mktemp("faults")) as plane:
        plane.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds"))
        plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        # Established is said a moment before the storage of the new kinds is open.
        wait_until(
            "the kinds can be listed", lambda: _listed(plane), timeout=30.0, check=lambda: None
        )
        yield plane


def _listed(plane: ControlPlane) -> bool:
    try:
        plane.kubectl("get", "mdep,mrt,cmrt", "-A")
    except DevError:
        return False
    return True


@pytest.fixture
async def api(cluster: ControlPlane) -> AsyncIterator[Api]:
    async with Api.connect(cluster.kubeconfig) as connected:
        yield connected
