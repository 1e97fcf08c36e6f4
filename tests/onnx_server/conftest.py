"""Shared fixtures: an application in this process, and one real server for the whole session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from tests.onnx_server import graphs
from tests.onnx_server.servers import Server, server

from mooring_onnx_server.app import Application
from mooring_onnx_server.engine import Engine
from mooring_onnx_server.metrics import Metrics
from mooring_onnx_server.model import load_model
from mooring_onnx_server.request import RequestDecoder
from mooring_onnx_server.response import ResponseEncoder
from mooring_onnx_server.service import Served, Service
from mooring_onnx_server.settings import SessionSettings
from mooring_onnx_server.state import ServerState

SESSION = SessionSettings(intra_op_threads=1)


class App:
    """A model behind the application, called without a socket."""

    def __init__(self, name: str = "m", max_body_bytes: int = 1_000_000) -> None:
        self.state = ServerState()
        self.metrics = Metrics(name, "cpu", self.state)
        self.service = Service(name, "1", self.state, self.metrics)
        self.application = Application(self.service, max_body_bytes)
        self.name = name

    def load(self, path: Path) -> App:
        model = load_model(path, SESSION)
        engine = Engine(model.run, 1, self.metrics.observe_run)
        self.service.serve(
            Served(
                model.signature,
                RequestDecoder(model.signature),
                engine,
                ResponseEncoder(self.name, "1", model.signature),
                engine,
            )
        )
        return self

    def client(self) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.application)
        return httpx.AsyncClient(transport=transport, base_url="http://test")

    async def infer(self, content: bytes | None = None, **body: object) -> httpx.Response:
        async with self.client() as client:
            path = f"/v2/models/{self.name}/infer"
            if content is not None:
                return await client.post(path, content=content)
            return await client.post(path, json=body)


@pytest.fixture
def app(tmp_path: Path) -> Callable[[Callable[[Path], Path]], App]:
    """Makes an application of a model's builder."""

    def make(build: Callable[[Path], Path]) -> App:
        return App().load(build(tmp_path / "model.onnx"))

    return make


@pytest.fixture(scope="session")
def linear_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real process that serves the linear model, for tests that leave it as it is."""
    folder = tmp_path_factory.mktemp("linear")
    graphs.linear(folder / "model.onnx")
    with server(folder, "--max-body-bytes", "100000") as running:
        yield running.ready()
