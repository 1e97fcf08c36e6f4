"""Fixtures that several folders of tests share."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from mooring_dev.control_plane import ControlPlane
from mooring_dev.errors import DevError
from mooring_dev.health import wait_until

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
    # Established is not enough: kubectl finds a kind only once discovery and OpenAPI show it.
    for kind in ("mdep", "mrt", "cmrt", "rr"):
        wait_until(
            f"the API server shows {kind}",
            lambda kind=kind: "FIELDS" in _explained(control_plane, kind),  # type: ignore[misc]
            timeout=30.0,
            check=lambda: None,
        )
    return control_plane


def _explained(plane: ControlPlane, kind: str) -> str:
    try:
        return plane.kubectl("explain", kind)
    except DevError:
        return ""


def pytest_sessionstart() -> None:
    """Seek cycles seldom: what tests make is many small objects, and counting frees them.

    At the usual threshold the unit tier looked 10,000 times, for a tenth of its time.
    """
    gc.set_threshold(50_000, 20, 20)


def pytest_collection_finish() -> None:
    """What is collected stays to the end: there is no need to look at it again."""
    gc.collect()
    gc.freeze()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the fault runs; they must be known before the folders are collected."""
    group = parser.getgroup("faults")
    group.addoption("--fault-runs", type=int, help="how many single faults of each class to try")
    group.addoption("--fault-seed", type=int, help="the seed that chooses them")
