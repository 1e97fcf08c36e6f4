"""A real Prometheus on loopback that scrapes what a test exports."""

from __future__ import annotations

import contextlib
import http.server
import json
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mooring_dev.binaries import ensure
from mooring_dev.health import wait_until
from mooring_dev.ports import claim


@dataclass
class Exporter:
    """Serves ``text()`` at /metrics, and an error while ``broken``."""

    text: Callable[[], str]
    broken: bool = False
    scrapes: int = 0
    address: str = field(default="", init=False)

    @contextlib.contextmanager
    def run(self) -> Iterator[Exporter]:
        exporter = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                exporter.scrapes += 1
                body = b"" if exporter.broken else exporter.text().encode()
                self.send_response(500 if exporter.broken else 200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        self.address = f"127.0.0.1:{server.server_address[1]}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join(5)


@dataclass
class RealPrometheus:
    """A running one. ``stop`` and ``start`` keep its data and its address."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [
            str(ensure("prometheus")),
            f"--config.file={self.folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=error",
        ]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until("Prometheus is ready", self._ready, timeout=60.0, check=self._check)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
            self.process = None

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(self.url + "/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _check(self) -> None:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]

    def ask(self, query: str) -> list[dict[str, Any]]:
        """What it says itself, by another way than the client under test."""
        form = urllib.parse.urlencode({"query": query}).encode()
        with urllib.request.urlopen(self.url + "/api/v1/query", form, timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return found

    def wait_for(self, query: str) -> None:
        """Waits until the query gives something."""
        wait_until(query, lambda: bool(self.ask(query)), timeout=60.0, check=self._check)


@contextlib.contextmanager
def running(
    folder: Path, targets: Mapping[str, tuple[str, Mapping[str, str]]], interval: str = "1s"
) -> Iterator[RealPrometheus]:
    """Scrapes ``targets``: address to (path, labels). Labels that they export themselves stay."""
    jobs = [
        {
            "job_name": f"job-{place}",
            "honor_labels": True,
            "metrics_path": path,
            "fallback_scrape_protocol": "PrometheusText0.0.4",
            "static_configs": [{"targets": [address], "labels": dict(labels)}],
        }
        for place, (address, (path, labels)) in enumerate(targets.items())
    ]
    config = {"global": {"scrape_interval": interval, "scrape_timeout": interval},
              "scrape_configs": jobs}  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    ports = claim(1)
    prometheus = RealPrometheus(folder, ports.ports[0])
    try:
        prometheus.start()
        yield prometheus
    finally:
        prometheus.stop()
        ports.release()
