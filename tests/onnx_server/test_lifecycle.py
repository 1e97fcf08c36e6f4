"""What a server answers, and how it ends, while its model is still being loaded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from tests.onnx_server import graphs

from mooring_onnx_server import process
from mooring_onnx_server.errors import ModelLoadError
from mooring_onnx_server.model import load_model
from mooring_onnx_server.process import _listen, _Process
from mooring_onnx_server.settings import ServerSettings, SessionSettings

Running = tuple[_Process, asyncio.Task[None], httpx.AsyncClient]


@pytest.fixture
def loads_when(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Holds every load up until the function that this gives is called."""
    released = threading.Event()

    def load(path: Path, settings: SessionSettings) -> object:
        assert released.wait(60)
        return load_model(path, settings)

    monkeypatch.setattr(process, "load_model", load)
    yield released.set
    released.set()


@asynccontextmanager
async def running(
    folder: Path,
) -> AsyncIterator[tuple[_Process, asyncio.Task[None], httpx.AsyncClient]]:
    settings = ServerSettings(
        folder, "m", "1", "127.0.0.1", 0, SessionSettings(1), 1, quiet_seconds=0.0
    )
    listener = _listen(settings.host, settings.port)
    server = _Process(settings, listener)
    task = asyncio.create_task(server.run())
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with httpx.AsyncClient(base_url=url, timeout=30, verify=False) as client:
        yield server, task, client
    server._on_signal()
    server._on_signal()
    await asyncio.wait({task})


async def status(client: httpx.AsyncClient, path: str) -> int:
    return (await client.get(path)).status_code


async def test_while_it_loads_a_server_is_live_and_not_ready_and_then_ready(
    tmp_path: Path, loads_when: Callable[[], None]
) -> None:
    graphs.linear(tmp_path / "model.onnx")
    async with running(tmp_path) as (_, _, client):
        assert await status(client, "/v2/health/live") == 200
        assert await status(client, "/v2/models/m/ready") == 503
        assert await status(client, "/metrics") == 200
        loads_when()
        async with asyncio.timeout(60):
            while await status(client, "/v2/models/m/ready") != 200:
                await asyncio.sleep(0.005)


async def test_a_stop_while_loading_does_not_wait_for_the_load(
    tmp_path: Path, loads_when: Callable[[], None]
) -> None:
    graphs.linear(tmp_path / "model.onnx")
    async with running(tmp_path) as (server, task, client):
        assert await status(client, "/v2/health/live") == 200
        server._on_signal()
        await asyncio.wait_for(task, 10)
        assert task.exception() is None


async def test_a_failed_load_ends_the_server_with_its_reason(
    tmp_path: Path, loads_when: Callable[[], None]
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    async with running(tmp_path) as (_, task, _):
        loads_when()
        with pytest.raises(ModelLoadError, match="is not an ONNX model"):
            await asyncio.wait_for(task, 10)
