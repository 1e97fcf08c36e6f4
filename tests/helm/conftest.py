"""The chart, rendered: once for each set of values."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mooring_dev.binaries import ensure

CHART = Path(__file__).resolve().parents[2] / "helm" / "mooring"

Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]


def run_helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ensure("helm")), *arguments], check=False, capture_output=True, text=True, timeout=120
    )


@functools.cache
def rendered_text(*arguments: str) -> str:
    done = run_helm(
        "template", "mooring", str(CHART), "--namespace", "mooring-system",
        "--kube-version", "1.30.0", *arguments,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def render() -> Render:
    """`helm template` as objects; arguments are Helm's own (--set a=b, -f file)."""

    def manifests(*arguments: str) -> list[Manifest]:
        return [m for m in yaml.load_all(rendered_text(*arguments), yaml.CSafeLoader) if m]

    return manifests


@pytest.fixture(scope="session")
def helm() -> Callable[..., subprocess.CompletedProcess[str]]:
    return run_helm
