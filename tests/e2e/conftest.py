"""A real cluster with the chart installed, a model store, and a client, one for the session.

Each worker of pytest-xdist has a cluster of its own, so no test meets another's.
MOORING_KEEP_CLUSTER=1 leaves the cluster up for the next run and for a look around.
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from mooring_dev import demo_chart, demo_store, images, prometheus
from mooring_dev.cluster import Cluster
from mooring_dev.demo_client import Client
from mooring_dev.demo_model import Model
from mooring_dev.images import Built
from mooring_dev.s3 import S3Server

_NAME = os.environ.get("MOORING_E2E_CLUSTER", "test")
_WORKER = os.environ.get("PYTEST_XDIST_WORKER")
CLUSTER = f"{_NAME}-{_WORKER}" if _WORKER else _NAME
CLIENT_NAMESPACE = "e2e-client"
_FOLDER = Path(__file__).parent
_OPERATOR = "app.kubernetes.io/name=mooring-operator"
_FAILED = pytest.StashKey[bool]()
# Minutes each: begun first, so that no worker waits long for another's last file.
_LONGEST = (
    "test_evidence.py",
    "test_traffic.py",
    "test_operator_lifecycle.py",
    "test_updates.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _FOLDER in item.path.parents:
            item.add_marker(pytest.mark.e2e)
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    if item.path.parent == _FOLDER and item.path.name in _LONGEST:
        return _LONGEST.index(item.path.name)
    return len(_LONGEST)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if call.when == "call":
        item.stash[_FAILED] = call.excinfo is not None
    return report


def mooring_dev(*arguments: str) -> None:
    # In a process of its own: tests may connect to loopback only, and a cluster is not on it.
    done = subprocess.run(
        [sys.executable, "-m", "mooring_dev", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ExitStack() as at_the_end:
        if not os.environ.get("MOORING_KEEP_CLUSTER"):
            at_the_end.enter_context(_goes_with_us(tmp_path_factory.mktemp("down") / "log"))
        mooring_dev("cluster", "up", "--name", CLUSTER)
        yield Cluster.find(CLUSTER)


@contextmanager
def _goes_with_us(log: Path) -> Iterator[None]:
    """Remove the cluster after the block, and also when this process is interrupted or killed.

    An interrupted run gives its workers ten seconds, which is too short. So another process,
    which no signal for us reaches, waits for an end of file: that comes whichever way we end.
    """
    down = (sys.executable, "-m", "mooring_dev", "cluster", "down", "--name", CLUSTER)
    with log.open("wb") as output:
        waiting = subprocess.Popen(
            ["sh", "-c", 'cat >/dev/null; exec "$@"', "sh", *down],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield
    finally:
        waiting.communicate()
    assert waiting.returncode == 0, log.read_text()


@pytest.fixture(scope="session")
def built(cluster: Cluster) -> tuple[Built, ...]:
    return images.load(cluster)


@pytest.fixture(scope="session")
def install(cluster: Cluster, built: tuple[Built, ...]) -> Callable[..., None]:
    """Install or upgrade the chart, with ``--set`` values."""

    def run(*settings: str) -> None:
        demo_chart.install(cluster, built, settings)

    return run


@pytest.fixture(scope="session")
def operator(cluster: Cluster, install: Callable[..., None]) -> Cluster:
    """The cluster, with Mooring installed."""
    install()
    return cluster


@pytest.fixture(scope="module")
def measured(cluster: Cluster, install: Callable[..., None]) -> Iterator[Cluster]:
    """The cluster with Prometheus, and an operator that reads it every five seconds."""
    mooring_dev("prometheus", "install", "--name", CLUSTER)
    install(f"config.prometheus.url={prometheus.IN_CLUSTER_URL}", "config.prometheus.interval=5s")
    yield cluster
    install()


@pytest.fixture(scope="session")
def store(cluster: Cluster) -> Iterator[S3Server]:
    server = demo_store.start_store(cluster)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def uris(store: S3Server) -> dict[str, str]:
    """URIs of the published models: v1, v2 and corrupt."""
    return demo_store.publish_examples(store)


@pytest.fixture(scope="session")
def client(cluster: Cluster, store: S3Server, built: tuple[Built, ...]) -> Client:
    demo_store.prepare_namespace(cluster, CLIENT_NAMESPACE, store)
    server = next(one for one in built if one.image.name == "onnx-server")
    return Client.start(cluster, CLIENT_NAMESPACE, server.reference)


@pytest.fixture
def namespace(
    request: pytest.FixtureRequest, operator: Cluster, store: S3Server, uris: dict[str, str]
) -> Iterator[str]:
    """A namespace of the test's own that admits restricted pods only."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())
    name = f"{words[:40].strip('-')}-{secrets.token_hex(2)}"
    demo_store.prepare_namespace(operator, name, store)
    yield name
    if request.node.stash.get(_FAILED, False):
        print(_evidence(operator, name))
    operator.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def model(operator: Cluster, namespace: str) -> Callable[[str], Model]:
    """The ModelDeployment of a name in the test's namespace."""

    def named(name: str) -> Model:
        return Model(operator, namespace, name)

    return named


def _evidence(cluster: Cluster, namespace: str) -> str:
    shown = []
    for arguments in (
        ("get", "mdep,deployments,pods,controllerrevisions", "-o", "wide", "-n", namespace),
        ("get", "mdep", "-o", "yaml", "-n", namespace),
        ("get", "events", "-n", namespace, "--sort-by=.metadata.creationTimestamp"),
        ("get", "pods", "-n", demo_chart.NAMESPACE),
        ("logs", "-n", demo_chart.NAMESPACE, "-l", _OPERATOR, "--tail=60", "--prefix"),
    ):
        shown += [f"$ kubectl {' '.join(arguments)}", cluster.kubectl(*arguments)]
    return "\n".join(shown)
