"""Fixtures that several folders of tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mooring_dev.control_plane import ControlPlane

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A real etcd and kube-apiserver without nodes, one for the whole session."""
    with ControlPlane.start(tmp_path_factory.mktemp("control-plane")) as running:
        yield running


@pytest.fixture(scope="session")
def control_plane_with_crds(control_plane: ControlPlane) -> ControlPlane:
    """The control plane that knows the kinds of mooring.dev."""
    control_plane.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds"))
    control_plane.kubectl(
        "wait",
        "--for=condition=Established",
        "--timeout=30s",
        "-f",
        str(REPOSITORY / "crds"),
    )
    return control_plane
