"""Real server processes for tests: started, found ready, ended, their last words kept."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

COMPONENT = Path(__file__).parents[2] / "components" / "onnx-server"
START_SECONDS = 60.0


class Server:
    """One running server process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))

    def said(self, pattern: str) -> re.Match[str]:
        """Waits until a line of stderr matches."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            for line in list(self.lines):
                if match := re.search(pattern, line):
                    return match
            if self.process.poll() is not None and not self._reader.is_alive():
                break
            time.sleep(0.005)
        raise AssertionError(f"never said {pattern!r}: {self.lines}")

    @property
    def url(self) -> str:
        port = self.said(r"listening on port (\d+)")[1]
        return f"http://127.0.0.1:{port}"

    @property
    def grpc_address(self) -> str:
        port = self.said(r"listening for gRPC on port (\d+)")[1]
        return f"127.0.0.1:{port}"

    def ready(self) -> Server:
        self.said(r"INFO ready: ")
        return self

    def infer(self, model: str, **tensors: Any) -> httpx.Response:
        # Without TLS there is no bundle of authorities to load, which takes longer than the rest.
        url = f"{self.url}/v2/models/{model}/infer"
        return httpx.post(url, json=tensors, timeout=30, verify=False)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def end(self) -> int:
        """Waits for the process to end by itself; its exit code."""
        code = self.process.wait(START_SECONDS)
        self._reader.join(START_SECONDS)
        return code


@contextmanager
def server(
    model_dir: Path,
    *flags: str,
    model: str = "m",
    env: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
) -> Iterator[Server]:
    """A server on a free port; killed at the end if a test has not ended it."""
    command = [*prefix, sys.executable, "-m", "mooring_onnx_server", "--model-dir", str(model_dir)]
    command += ["--model-name", model, "--port", "0", "--host", "127.0.0.1"]
    command += ["--grpc-port", "0", *flags]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(COMPONENT), **(env or {})},
    )
    running = Server(process)
    try:
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        running.end()
        assert process.stderr is not None
        process.stderr.close()
