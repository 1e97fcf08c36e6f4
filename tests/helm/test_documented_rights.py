"""docs/install.md says what the operator may do: neither less nor more than the chart grants."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

INSTALL = (Path(__file__).parents[2] / "docs" / "install.md").read_text()

Render = Callable[..., list[dict[str, Any]]]


@pytest.mark.helm
def test_every_right_of_the_operator_is_documented_and_no_other(render: Render) -> None:
    section = INSTALL.partition("## What the operator may do")[2].partition("\nModel pods may")[0]
    documented = set(re.findall(r"`([a-z]+)`", section))
    granted = {
        resource.partition("/")[0]
        for role in render()
        if role["kind"] in ("ClusterRole", "Role")
        and role["metadata"]["name"] in ("mooring", "mooring-leader")
        for rule in role["rules"]
        for resource in rule["resources"]
    }
    assert len(granted) > 15
    assert documented == granted
