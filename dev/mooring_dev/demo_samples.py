"""The retraining example at work: its model, its data, and samples that are asked about.

What was asked about is put into the store a few seconds later, with what the pathologist found: as
in life, a model is made anew from what it was asked, once somebody knows the answers.
"""

from __future__ import annotations

import datetime as dt
import importlib.util
import json
import math
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

from mooring_dev.demo_client import Client
from mooring_dev.demo_store import BUCKET, example_file
from mooring_dev.errors import DevError
from mooring_dev.s3 import S3Server

FOLDER = "retrain-with-job"
NAME = "screening"
TENSOR = "measurements"
#: Samples that requests are drawn from: so many that their own distribution is the source's.
_DRAWN_FROM = 5000
_END_SECONDS = 30.0
_PROGRAM = Path(__file__).with_name("demo_samples_program.py")


@cache
def _module(name: str) -> ModuleType:
    """A file of the example; ``train`` imports ``samples``."""
    if name != "samples":
        _module("samples")
    spec = importlib.util.spec_from_file_location(name, example_file(FOLDER, f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def samples() -> ModuleType:
    """``examples/retrain-with-job/samples.py``: the data, as it was and as it has become."""
    return _module("samples")


def train() -> ModuleType:
    """``examples/retrain-with-job/train.py``: makes the first model, and each later one."""
    return _module("train")


def day(seed: int, **changes: float) -> Any:
    """Samples to draw requests from (see ``samples.day``)."""
    maker = samples()
    return maker.day(maker.halves()[1], _DRAWN_FROM, seed, **changes)


def publish_first(store: S3Server) -> tuple[str, bytes]:
    """Train the first model and put it where the example's manifest expects it."""
    model: bytes = train().first_model()
    return store.put(BUCKET, f"{NAME}/v1/model.onnx", model), model


def reference(model: bytes, folder: Path, *, name: str = f"{NAME}-reference") -> str:
    """The reference's manifest: what the measurements and the answers look like.

    Raises:
        DevError: `mooring reference build` refused.
    """
    table = folder / "reference.csv"
    table.write_text(samples().reference(model))
    command = [sys.executable, "-m", "mooring", "reference", "build", str(table)]
    done = subprocess.run(
        [*command, "--name", name, "--prediction", "malignant"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise DevError(f"The reference cannot be built: {done.stderr}")
    return done.stdout


class Asking:
    """Requests for samples that go on while the block runs; ``become`` changes what they are like.

    With a ``store``, what was asked about is put there with its labels. ``sent``, ``failed`` and
    ``failures`` are there after the block.
    """

    def __init__(self, client: Client, url: str, drawn: Any, store: S3Server | None = None) -> None:
        self._client = client
        self._url = url
        self._given = [drawn]
        self._store = store
        self._started = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._errors: list[str] = []
        self._counts: dict[str, Any] = {}

    @property
    def sent(self) -> int:
        """Requests in all."""
        return int(self._counts["sent"])

    @property
    def failed(self) -> int:
        """Requests that were not answered by 200."""
        return int(self._counts["failed"])

    @property
    def failures(self) -> list[str]:
        """The first few failures."""
        return list(self._counts["failures"])

    def __enter__(self) -> Self:
        """Begin, and return when the first answer (or failure) is there."""
        self._process = self._client.begin("-c", _PROGRAM.read_text(), self._url, TENSOR)
        self._reader.start()
        self._give(self._given[0])
        if not self._started.wait(_END_SECONDS):
            self._process.kill()
            raise DevError("The requests did not start.")
        return self

    def become(self, drawn: Any) -> None:
        """From now on ask about these samples."""
        self._given.append(drawn)
        self._give(drawn)

    def _give(self, drawn: Any) -> None:
        rows = [
            [None if math.isnan(value) else float(f"{value:.7g}") for value in row]
            for row in drawn.measured.tolist()
        ]
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"rows": rows}) + "\n")
        self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip() == "started":
                self._started.set()
                continue
            told = json.loads(line)
            if "asked" not in told:
                self._counts = told
            elif self._store is not None:
                self._put(self._store, told)
        self._started.set()

    def _put(self, store: S3Server, told: dict[str, Any]) -> None:
        at = dt.datetime.fromisoformat(told["at"])
        asked = self._given[told["rows"]].take(told["asked"])
        key = f"{NAME}/labelled/{told['at']}-{told['rows']}.csv"
        try:
            store.put(BUCKET, key, samples().labelled(asked, at).encode())
        except (DevError, OSError) as error:
            self._errors.append(str(error))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the requests; the process is gone after this, whatever happened."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(_END_SECONDS)
        if self._process.stdout is not None and not self._reader.is_alive():
            self._process.stdout.close()
        if error is None and not self._counts:
            raise DevError("The requests did not end.")
        if error is None and self._errors:
            raise DevError(f"Labels could not be stored: {self._errors[0]}")
