"""Whoever applies through the client does so under its own name."""

from __future__ import annotations

import pytest

from mooring.adapters import kube
from mooring.cli import crds


@pytest.mark.parametrize("manager", [kube.FIELD_MANAGER, kube.REPLICAS_MANAGER, crds._MANAGER])
def test_each_field_manager_applies_under_its_name(manager: str) -> None:
    assert kube._apply_query(manager) == f"fieldManager={manager}&force=true"
