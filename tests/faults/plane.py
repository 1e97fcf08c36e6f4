"""The control plane of the fault runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from mooring_dev.control_plane import ControlPlane
from mooring_dev.definitions import gateway_api_definitions
from mooring_dev.errors import DevError
from mooring_dev.health import wait_until

REPOSITORY = Path(__file__).parents[2]
_POLICY = Path(__file__).with_name("audit-policy.yaml")


@contextlib.contextmanager
def control_plane(folder: Path) -> Iterator[ControlPlane]:
    """A control plane without controllers: nothing but the operator deletes anything."""
    with ControlPlane.start(folder / "control-plane", audit_policy=_POLICY) as plane:
        plane.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds"))
        routes = gateway_api_definitions() / "gateway.networking.k8s.io_httproutes.yaml"
        plane.kubectl("apply", "--server-side", "-f", str(routes))
        # Established is said a moment before the storage of the new kinds is open.
        wait_until(
            "the kinds can be listed", lambda: _listed(plane), timeout=30.0, check=lambda: None
        )
        yield plane


def _listed(plane: ControlPlane) -> bool:
    try:
        plane.kubectl("get", "mdep,mrt,cmrt,rr,httproutes", "-A")
    except DevError:
        return False
    return True
