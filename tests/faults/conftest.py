"""Options of the fault runs, and the control plane they share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from tests.apiserver.cluster import Api
from tests.faults.plane import control_plane

from mooring_dev.control_plane import ControlPlane


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane without controllers: nothing but the operator deletes anything."""
    with control_plane(tmp_path_factory.mktemp("faults")) as plane:
        yield plane


@pytest.fixture
async def api(cluster: ControlPlane) -> AsyncIterator[Api]:
    async with Api.connect(cluster.kubeconfig) as connected:
        yield connected
