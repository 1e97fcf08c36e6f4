"""docs/install.md says what the operator may do: neither less nor more than the chart grants."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.helm.conftest import CHART

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


def namespaced_command() -> list[str]:
    """The words of the command under "Some namespaces only"."""
    section = INSTALL.partition("## Some namespaces only")[2].partition("\n## ")[0]
    (line,) = re.findall(r"^ {4}(helm (?:[^\n]*\\\n)*[^\n]*)", section, re.MULTILINE)
    return shlex.split(line.replace("\\\n", " "))


@pytest.mark.helm
def test_the_documented_way_for_some_namespaces_takes_no_clusterwide_right(render: Render) -> None:
    """Neither the chart nor its hooks, which `helm upgrade` runs with the rights of its caller."""
    words = namespaced_command()
    assert words[:2] == ["helm", "upgrade"]
    assert {"--install", "--skip-crds"} <= set(words)
    values = [
        w for at, word in enumerate(words) if word == "--set" for w in ("--set", words[at + 1])
    ]
    values = [value.replace("REGISTRY", "registry.example.com") for value in values]
    assert [m["kind"] for m in render(*values) if "namespace" not in m["metadata"]] == []
    assert {m["metadata"]["namespace"] for m in render(*values)} == {
        "mooring-system",
        "team-a",
        "team-b",
    }


def test_the_documented_way_for_some_namespaces_says_who_applies_the_crds() -> None:
    apply = "kubectl apply --server-side --force-conflicts -f helm/mooring/crds"
    section = INSTALL.partition("## Some namespaces only")[2].partition("\n## ")[0]
    assert f"    {apply}\n" in section
    assert f"  # {apply}\n" in (CHART / "values.yaml").read_text()
