"""Names and artifacts of a real MLflow server: followed by the operator, fetched by the fetcher."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.core.given import spec
from tests.core.world import World

from mooring.adapters.mlflow import MlflowRegistry, RegistryAccess
from mooring.core.observed import RenderSettings
from mooring.core.registry import Answer, NotRegistered, Registered
from mooring_dev.mlflow import MlflowServer, mlflow_server
from mooring_fetcher.digest import digest_path
from mooring_fetcher.fetch import Request, digest_uri, fetch

if TYPE_CHECKING:
    from tests.fetcher.conftest import Cutter, Workbench

pytestmark = pytest.mark.stores

WEIGHTS = hashlib.shake_256(b"weights").digest(9 << 20)
FILES = {"model.onnx": WEIGHTS, "MLmodel": b"flavors: {}\n", "data/a b%c.bin": b"more"}


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A model of one test's own."""
    return "m" + hashlib.sha256(request.node.name.encode()).hexdigest()[:12]


async def follow(mlflow: MlflowServer, uri: str) -> Answer:
    client = MlflowRegistry(RegistryAccess(mlflow.url, timeout=30.0))
    try:
        return await client.resolve(uri)
    finally:
        await client.close()


async def test_an_alias_is_followed_to_where_the_version_is(
    mlflow: MlflowServer, name: str
) -> None:
    mlflow.register(name, f"s3://models/{name}/v1")
    digest = "sha256:" + "d" * 64
    mlflow.register(name, f"s3://models/{name}/v2", tags={"mooring.dev/digest": digest})
    mlflow.alias(name, "champion", "1")
    first = Registered(name, "1", f"s3://models/{name}/v1")
    assert await follow(mlflow, f"mlflow://{name}@champion") == first
    assert await follow(mlflow, f"mlflow://{name}/1") == first
    mlflow.alias(name, "champion", "2")
    second = Registered(name, "2", f"s3://models/{name}/v2", digest)
    assert await follow(mlflow, f"mlflow://{name}@champion") == second


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("mlflow://{name}@nobody", "alias nobody not found"),
        ("mlflow://{name}/99", "version=99) not found"),
        ("mlflow://no-such-model@champion", "name=no-such-model not found"),
        ("mlflow://no-such-model/1", "not found"),
    ],
)
async def test_what_the_registry_does_not_know_is_said_in_its_words(
    mlflow: MlflowServer, name: str, uri: str, words: str
) -> None:
    mlflow.register(name, f"s3://models/{name}/v1")
    found = await follow(mlflow, uri.format(name=name))
    assert isinstance(found, NotRegistered)
    assert (found.reason, found.lasting) == ("ModelNotInRegistry", True)
    assert words in found.message


def fetched(source: str, mlflow: MlflowServer, tmp_path: Path, bench: Workbench) -> Any:
    return fetch(Request(by_server(source, mlflow.url), tmp_path / "models"), bench.run())


def by_server(source: str, server: str) -> str:
    path = source.removeprefix("mlflow-artifacts:")
    return f"mlflow-artifacts+{server}/api/2.0/mlflow-artifacts/artifacts{path}"


def test_artifacts_behind_the_server_are_fetched_as_a_tree(
    mlflow: MlflowServer, tmp_path: Path, bench: Workbench
) -> None:
    _, source = mlflow.log(FILES)
    found = fetched(source, mlflow, tmp_path, bench)
    assert found.files == 3
    for path, body in FILES.items():
        assert (tmp_path / "models" / path).read_bytes() == body
        copy = tmp_path / "copy" / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(body)
    assert digest_path(tmp_path / "copy").digest == found.digest
    assert digest_uri(by_server(source, mlflow.url), bench.run()).digest == found.digest


def test_one_file_of_them_is_fetched_alone(
    mlflow: MlflowServer, tmp_path: Path, bench: Workbench
) -> None:
    _, source = mlflow.log(FILES)
    found = fetched(f"{source}/model.onnx", mlflow, tmp_path, bench)
    assert found.digest == "sha256:" + hashlib.sha256(WEIGHTS).hexdigest()
    assert (tmp_path / "models" / "model.onnx").read_bytes() == WEIGHTS


def test_a_transfer_that_breaks_goes_on_where_it_stopped(
    mlflow: MlflowServer, tmp_path: Path, bench: Workbench, cutting: Callable[[str], Cutter]
) -> None:
    _, source = mlflow.log({"model.onnx": WEIGHTS})
    relay = cutting(mlflow.url)
    relay.cuts = [5 << 20]
    fetch(Request(by_server(source, relay.endpoint), tmp_path / "models"), bench.run())
    assert relay.relayed < len(WEIGHTS) + (1 << 20)
    assert (tmp_path / "models" / "model.onnx").read_bytes() == WEIGHTS


def test_nothing_there_is_said(
    mlflow: MlflowServer, tmp_path: Path, bench: Workbench, permanent: Any
) -> None:
    with permanent("There is nothing below"):
        fetched("mlflow-artifacts:/0/none/artifacts", mlflow, tmp_path, bench)


async def test_a_moved_alias_is_a_candidate_whose_files_are_those_of_the_new_version(
    mlflow: MlflowServer, name: str, tmp_path: Path, bench: Workbench
) -> None:
    for body in (b"one", b"two"):
        run, source = mlflow.log({"model.onnx": body})
        mlflow.register(name, source, run)
    uri = f"mlflow://{name}@champion"
    world = World.with_spec(spec(uri))
    world.settings = RenderSettings(registry_url=mlflow.url)
    mlflow.alias(name, "champion", "1")
    world.registry = await follow(mlflow, uri)
    world.serve()
    mlflow.alias(name, "champion", "2")
    world.registry = await follow(mlflow, uri)
    world.settle()
    assert world.status["stable"]["modelUri"] == f"mlflow://{name}/1"
    candidate = world.status["candidate"]
    assert candidate["modelUri"] == f"mlflow://{name}/2"
    template = world.deployment(candidate["revision"])["spec"]["template"]["spec"]
    args = template["initContainers"][0]["args"]
    wanted = Request(args[args.index("--uri") + 1], tmp_path / "models")
    fetch(wanted, bench.run())
    assert (tmp_path / "models" / "model.onnx").read_bytes() == b"two"
