from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.cli import objects
from tests.cli.api_server import FakeApi, write_kubeconfig

from mooring.cli import main

Mooring = Callable[..., Result]


@pytest.fixture
def api() -> Iterator[FakeApi]:
    """A fake API server with one ModelDeployment in the middle of a rollout."""
    fake = FakeApi()
    for collection in (objects.DEPLOYMENTS, objects.PODS, objects.EVENTS, objects.RECORDS):
        fake.objects[collection] = {}
    fake.put(objects.DEPLOYMENTS, objects.deployment(objects.rolling_out()))
    for found in objects.all_pods():
        fake.put(objects.PODS, found)
    for found in objects.all_records():
        fake.put(objects.RECORDS, found)
    with fake.running():
        yield fake


@pytest.fixture
def kubeconfig(api: FakeApi, tmp_path: Path) -> Path:
    return write_kubeconfig(tmp_path / "kubeconfig", api.url)


@pytest.fixture
def mooring(kubeconfig: Path) -> Mooring:
    """Runs a command against the fake API server."""

    def run(*arguments: str, **environment: str) -> Result:
        # COLUMNS: a terminal's width, which pytest-xdist hands on to its workers.
        fixed = {"KUBECONFIG": str(kubeconfig), "NO_COLOR": "1", "COLUMNS": None}
        return CliRunner().invoke(main, arguments, env={**fixed, **environment})

    return run
