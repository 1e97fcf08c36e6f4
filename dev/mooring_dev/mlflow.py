"""A real MLflow tracking server for tests: its model registry, and the artifacts behind it.

MLflow lives in an environment of its own in the cache, made from a hashed lock on first use: it
brings a hundred packages that nothing else here needs.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from mooring_dev.errors import DevError
from mooring_dev.locks import exclusive
from mooring_dev.paths import cache_root, tools_root
from mooring_dev.steps import run_logged
from mooring_dev.stores import running

_READY_SECONDS = 120.0
_API = "/api/2.0/mlflow"
_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"


@dataclass(frozen=True)
class MlflowServer:
    """A running server. The methods are what a training pipeline does by MLflow's own client."""

    url: str

    def log(self, files: Mapping[str, bytes]) -> tuple[str, str]:
        """Logs files as a run's model; returns the run and where the model is."""
        run = self.post("runs/create", {"experiment_id": "0"})["run"]["info"]
        for path, body in files.items():
            where = run["artifact_uri"].removeprefix("mlflow-artifacts:")
            self._ask("PUT", f"{_ARTIFACTS}{quote(where)}/{quote(path)}", body)
        return run["run_id"], run["artifact_uri"]

    def register(
        self, name: str, source: str, run: str = "", tags: Mapping[str, str] | None = None
    ) -> str:
        """Registers a version of a model, and the model if need be; returns the version."""
        self.post("registered-models/create", {"name": name}, fails=(400,))
        told = [{"key": key, "value": value} for key, value in (tags or {}).items()]
        wanted = {"name": name, "source": source, "run_id": run, "tags": told}
        return str(self.post("model-versions/create", wanted)["model_version"]["version"])

    def alias(self, name: str, alias: str, version: str) -> None:
        """Lets an alias name a version."""
        self.post("registered-models/alias", {"name": name, "alias": alias, "version": version})

    def post(self, path: str, body: Mapping[str, Any], fails: tuple[int, ...] = ()) -> Any:
        """Posts to the API; returns what it answers. Raises DevError for a status not expected."""
        return self._ask("POST", f"{_API}/{path}", json.dumps(body).encode(), fails)

    def _ask(self, method: str, path: str, body: bytes, fails: tuple[int, ...] = ()) -> Any:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=30.0)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            said = answer.read()
        finally:
            connection.close()
        if answer.status not in (200, *fails):
            raise DevError(f"MLflow answered {answer.status} to {method} {path}: {said[:300]!r}")
        return json.loads(said or b"{}")


@contextmanager
def mlflow_server(directory: Path) -> Iterator[MlflowServer]:
    """Run MLflow with everything in ``directory``, artifacts by way of the server itself.

    Raises:
        DevError: it cannot be installed or does not start; the message names its log.
    """
    python = ensure_mlflow()
    data = directory.absolute() / "data"
    data.mkdir(parents=True, exist_ok=True)

    def command(port: int) -> tuple[str, ...]:
        return (
            str(python), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
            "--workers", "1", "--backend-store-uri", f"sqlite:///{data}/mlflow.db",
            "--artifacts-destination", str(data / "artifacts"),
        )  # fmt: skip

    quiet = (("MLFLOW_DISABLE_TELEMETRY", "true"), ("DO_NOT_TRACK", "true"))
    with running("mlflow", command, directory, quiet, _READY_SECONDS) as endpoint:
        yield MlflowServer(endpoint)


def ensure_mlflow() -> Path:
    """The interpreter of MLflow's environment, made first when it is not in the cache."""
    lock = tools_root() / "mlflow" / "requirements.txt"
    name = f"mlflow-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    target = cache_root() / "python" / name
    python, ready = target / "bin" / "python", target / ".ready"
    with exclusive(target.with_name(f"{name}.lock"), "installing MLflow"):
        if not ready.exists():
            shutil.rmtree(target, ignore_errors=True)
            log = cache_root() / "logs" / "mlflow.log"
            run_logged(
                "Making MLflow's environment", [sys.executable, "-m", "venv", str(target)], log
            )
            install = [
                str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                "--no-deps", "--require-hashes", "--only-binary=:all:", "-r", str(lock),
            ]  # fmt: skip
            run_logged("Installing MLflow", install, log, env=dict(os.environ))
            ready.touch()
    return python
