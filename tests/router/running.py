"""A real Envoy on loopback, with the rendered bootstrap, its files swapped as a kubelet does."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import aiohttp
from tests.router.servers import Names, Server, free_port

from mooring.api.traffic_spec import TrafficSpec
from mooring.core.render.router.bootstrap import (
    METRICS_NUMBER,
    ROUTES_FOLDER,
    VERSION_NUMBER,
    bootstrap,
    public_number,
)
from mooring.core.render.router.envoy import envoy_files, envoy_version
from mooring.core.render.router.observation import CollectorAddress, prepared
from mooring.core.render.router.report import endpoints, report
from mooring.core.traffic import Backend, BackendPort, Table

DRAIN_HELPER = Path(__file__).parents[2] / "components" / "router" / "mooring-router-drain"


def envoy_binary() -> str:
    """The program itself: the package's launcher would cost a Python's start each time."""
    package = find_spec("envoy")
    assert package is not None
    assert package.origin is not None
    return str(Path(package.origin).parent / "_bin" / "envoy")


class Router:
    """One router pod. ``ports`` are its public ports; ``number`` gives theirs on loopback."""

    def __init__(self, ports: Sequence[BackendPort], names: Names, heap: int | None = None) -> None:
        self.ports = ports
        self.folder = Path(tempfile.mkdtemp(prefix="mooring-router-"))
        self.routes = self.folder / "routes"
        self.admin = self.folder / "run" / "admin.sock"
        self.numbers = {
            number: free_port()
            for number in (
                *(public_number(index) for index in range(len(ports))),
                METRICS_NUMBER,
                VERSION_NUMBER,
            )
        }
        self.names = names
        self.heap = heap
        self.collector: CollectorAddress | None = None
        self.observes = False
        self.process: asyncio.subprocess.Process | None = None
        self._swaps = 0

    def number(self, port: str = "http") -> int:
        index = next(i for i, p in enumerate(self.ports) if p.name == port)
        return self.numbers[public_number(index)]

    def url(self, path: str = "/", port: str = "http") -> str:
        return f"http://127.0.0.1:{self.number(port)}{path}"

    # --- the mounted ConfigMap ------------------------------------------------------------------

    def swap(self, files: Mapping[str, str]) -> None:
        """A new folder, then the link ``..data`` moved onto it, as the kubelet does."""
        self._swaps += 1
        fresh = self.routes / f"..{self._swaps}"
        fresh.mkdir(parents=True)
        for name, content in files.items():
            (fresh / name).write_text(content)
            link = self.routes / name
            if not link.is_symlink():
                link.symlink_to(f"..data/{name}")
        link = self.routes / "..data_tmp"
        link.symlink_to(fresh.name)
        link.rename(self.routes / "..data")

    def write(self, table: Table, traffic: TrafficSpec | None = None) -> str:
        """Swaps in a table and returns its version."""
        files = envoy_files(
            table, traffic or TrafficSpec(), deployment="fraud", namespace="shop",
            ports=self.ports, collector=self.collector,
        )  # fmt: skip
        self.swap(files)
        return envoy_version(files)

    # --- the process ----------------------------------------------------------------------------

    def _configuration(self) -> str:
        text = bootstrap(self.ports, heap_bytes=self.heap)
        if self.observes:
            text = prepared(text)
        text = text.replace(ROUTES_FOLDER, str(self.routes)).replace(
            "/run/mooring/admin.sock", str(self.admin)
        )
        config: dict[str, Any] = json.loads(text)
        for listener in config["static_resources"]["listeners"]:
            address = listener["address"]["socket_address"]
            address["address"] = "127.0.0.1"
            address["port_value"] = self.numbers[address["port_value"]]
        resolver = {"socket_address": {"address": "127.0.0.1", "port_value": self.names.port}}
        config["typed_dns_resolver_config"] = {
            "name": "envoy.network.dns_resolver.cares",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3"
                ".CaresDnsResolverConfig",
                "resolvers": [resolver],
                "dns_resolver_options": {"no_default_search_domain": True},
            },
        }
        return json.dumps(config)

    async def start(self) -> None:
        self.admin.parent.mkdir()
        log = (self.folder / "log").open("wb")
        self.process = await asyncio.create_subprocess_exec(
            envoy_binary(), "--disable-hot-restart", "--log-level", "warning", "--concurrency", "1",
            "--drain-strategy", "immediate", "--drain-time-s", "60",
            "--component-log-level", "ext_proc:error",
            "--config-yaml", self._configuration(),
            stdout=log, stderr=log,
        )  # fmt: skip
        log.close()
        async with aiohttp.ClientSession() as session:
            while True:
                assert self.process.returncode is None, self.log()
                with suppress(aiohttp.ClientConnectionError):
                    ready = await session.get(self._own(VERSION_NUMBER, "/ready"))
                    if ready.status == 200:
                        return
                await asyncio.sleep(0.02)

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        return (self.folder / "log").read_text()

    async def drain(self, at_least: float, at_most: float) -> int:
        """The preStop hook, as the image has it."""
        helper = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", str(DRAIN_HELPER), str(self.admin), str(at_least),
            str(at_most),
        )  # fmt: skip
        return await helper.wait()

    # --- what it says ---------------------------------------------------------------------------

    def _own(self, number: int, path: str) -> str:
        return f"http://127.0.0.1:{self.numbers[number]}{path}"

    async def ask(
        self, path: str, *, metrics: bool = False, method: str = "GET"
    ) -> tuple[int, str]:
        url = self._own(METRICS_NUMBER if metrics else VERSION_NUMBER, path)
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, url, skip_auto_headers=["accept-encoding"]) as answer,
        ):
            return answer.status, await answer.text()

    async def version(self) -> tuple[str, str]:
        return report((await self.ask("/version"))[1])

    async def taken(self, version: str) -> None:
        """Waits until the router says that it routes by this version and knows all endpoints."""
        async with asyncio.timeout(60):
            while True:
                text = (await self.ask("/version"))[1]
                if report(text)[0] == version and all(endpoints(text).values()):
                    return
                await asyncio.sleep(0.01)

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over the series that carry these labels."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        _, text = await self.ask("/stats/prometheus", metrics=True)
        return sum(
            float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if line.startswith((f"{name}{{", f"{name} ")) and all(w in line for w in wanted)
        )


class World:
    """Servers under names, and routers before them."""

    def __init__(self) -> None:
        self.names = Names({})
        self.ports: tuple[BackendPort, ...] = (BackendPort("http", free_port()),)
        self.servers: dict[str, list[Server]] = {}
        self.routers: list[Router] = []
        self._next = 1

    async def start(self) -> None:
        await self.names.start()

    async def stop(self) -> None:
        for router in self.routers:
            await router.stop()
        for servers in self.servers.values():
            for server in servers:
                await server.stop()
        self.names.stop()

    async def revision(self, name: str, pods: int = 1, *, halved: bool = False) -> Backend:
        """Starts the pods of a revision, each on a loopback address of its own."""
        servers, addresses = [], []
        for index in range(pods):
            self._next += 1
            server, address = Server(f"{name}-{index}"), f"127.0.0.{self._next}"
            await server.start(address, self.ports[0].number)
            servers.append(server)
            addresses.append(address)
        self.servers[name] = servers
        host = f"fraud-{name}.shop.svc.cluster.local"
        self.names.addresses[host] = tuple(addresses)
        return Backend(name, host, self.ports, halved)

    def dead_address(self, name: str) -> None:
        """One more pod of which only the DNS server still knows."""
        self._next += 1
        host = f"fraud-{name}.shop.svc.cluster.local"
        self.names.addresses[host] += (f"127.0.0.{self._next}",)

    def counts(self) -> dict[str, int]:
        return {name: sum(s.requests for s in found) for name, found in self.servers.items()}

    async def router(
        self,
        table: Table,
        traffic: TrafficSpec | None = None,
        collector: CollectorAddress | None = None,
        *,
        observes: bool = False,
    ) -> Router:
        found = Router(self.ports, self.names)
        found.collector = collector
        found.observes = observes or collector is not None
        self.routers.append(found)
        version = found.write(table, traffic)
        await found.start()
        await found.taken(version)
        return found


def refused(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) != 0
