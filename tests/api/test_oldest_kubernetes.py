"""The oldest supported Kubernetes accepts the CRDs, whose rules each release prices differently."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from mooring_dev.golang import find_go, required_go

CRDS = sorted((Path(__file__).parent.parent.parent / "crds").glob("*.yaml"))
MODULE = Path(__file__).parent / "oldest_kubernetes"


def validate(*paths: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [find_go(required_go(MODULE)), "run", ".", *map(str, paths)],
        cwd=MODULE,
        env=os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_kubernetes_1_30_accepts_the_crds() -> None:
    validated = validate(*CRDS)

    assert validated.returncode == 0, validated.stdout + validated.stderr


@pytest.mark.slow
def test_a_rule_over_the_budget_would_be_found(tmp_path: Path) -> None:
    (source,) = (path for path in CRDS if path.name == "mooring.dev_modeldeployments.yaml")
    dear = tmp_path / source.name
    dear.write_text(source.read_text().replace("maxProperties: 7", "maxProperties: 70"))

    validated = validate(dear)

    assert validated.returncode == 1
    assert "estimated rule cost exceeds budget" in validated.stdout
