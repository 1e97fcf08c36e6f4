from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.apiserver.cluster import Api, install

from mooring_dev.control_plane import ControlPlane

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with garbage collection and our definitions, for all tests here."""
    with ControlPlane.start(tmp_path_factory.mktemp("cluster"), controller_manager=True) as plane:
        plane.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds"))
        plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        yield plane


@pytest.fixture
async def api(cluster: ControlPlane) -> AsyncIterator[Api]:
    async with Api.connect(cluster.kubeconfig) as connected:
        yield connected


@pytest.fixture
async def namespace(api: Api) -> str:
    """A namespace of its own with the onnx runtime."""
    name = await api.namespace()
    await install(api, name)
    return name
