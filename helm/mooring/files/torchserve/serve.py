"""Runs TorchServe for one model, and says whether the model is ready.

    serve.py start STORE NAME CONFIG    STORE/NAME.mar until SIGTERM; exit 1 when it does not load
    serve.py ready NAME                 exit 0 when a worker of the model is ready

TorchServe stays up, and starts a worker anew for ever, when a model does not load. As a pod it has
to end instead, with what went wrong as its last line. The management API is on loopback only, so
readiness is asked for from inside. Standard library only: this runs in whatever image there is.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterable
from pathlib import Path

MANAGEMENT = "http://127.0.0.1:8081"
MODEL_OPTIONS = {
    "TORCHSERVE_MIN_WORKERS": "minWorkers",
    "TORCHSERVE_MAX_WORKERS": "maxWorkers",
    "TORCHSERVE_BATCH_SIZE": "batchSize",
    "TORCHSERVE_MAX_BATCH_DELAY_MS": "maxBatchDelay",
    "TORCHSERVE_RESPONSE_TIMEOUT_SECONDS": "responseTimeout",
}

_WORKER_LINE = re.compile(r" MODEL_LOG - (.*)$")
_LOADED = "-> WORKER_MODEL_LOADED"
_WORKER_ENDED = re.compile(r"Stopped Scanner - W-\S+-stdout")
_FRAME = re.compile(r'^  File "(.+)", line (\d+)')


class LastWords:
    """What a worker said when it died: its first exception, and where in the archive that was.

    TorchServe looks for a handler in two ways, so a second exception "during handling" of the first
    only says that the second way failed, too.
    """

    def __init__(self) -> None:
        self._frame = ""
        self._text = ""
        self._in_traceback = False

    def hear(self, line: str) -> None:
        """Takes a line of the worker's output."""
        if line.startswith("Backend worker process died"):
            self._text = self._frame = ""
        elif line.startswith("Traceback (most recent call last)"):
            self._in_traceback = True
        elif line.startswith("The above exception was the direct cause"):
            self._text = ""
        elif self._in_traceback and not self._text:
            self._inside(line)

    def _inside(self, line: str) -> None:
        frame = _FRAME.match(line)
        if frame:
            self._frame = f"{Path(frame[1]).name}, line {frame[2]}"
        elif line.strip() and not line.startswith(" "):
            self._text = line.strip()
            self._in_traceback = False

    def sentence(self, archive: str) -> str:
        """All of it in one line."""
        if not self._text:
            return (
                f"{archive} did not load: its worker died without a word; "
                "does it need more memory than the container's limit?"
            )
        return f"{archive} did not load: {self._text} ({self._frame})"


def model_version(archive: Path) -> str:
    """The version in the archive's manifest.

    Raises SystemExit with a sentence when it is no model archive: TorchServe would take it for a
    folder without a handler.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            manifest = json.loads(packed.read("MAR-INF/MANIFEST.json"))
        return str(manifest["model"]["modelVersion"])
    except FileNotFoundError:
        sys.exit(f"There is no {archive.name} in {archive.parent}: name the archive in the URI.")
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        sys.exit(
            f"{archive.name} is not a model archive ({error}): pack it by torch-model-archiver, or "
            "name the runtime that serves this format."
        )


def model_options(environment: dict[str, str]) -> dict[str, int]:
    """Workers and batches of the model; raises SystemExit when one is no number."""
    found = {}
    for variable, option in MODEL_OPTIONS.items():
        text = environment.get(variable, "")
        if text and not text.isdecimal():
            sys.exit(f"{variable} is {text!r}: make it a whole number.")
        if text:
            found[option] = int(text)
    if "minWorkers" in found:
        found.setdefault("maxWorkers", found["minWorkers"])
    return found


def write_config(source: Path, name: str, version: str, options: dict[str, int]) -> Path:
    """The configuration with the model's options in it; the file itself where there are none."""
    if not options:
        return source
    target = Path(tempfile.gettempdir()) / "torchserve.properties"
    model = {name: {version: {"defaultVersion": True, "marName": f"{name}.mar", **options}}}
    target.write_text(f"{source.read_text()}\nmodels={json.dumps(model)}\n")
    return target


def start(store: str, name: str, config: str) -> int:
    """Runs TorchServe until it ends, or until the model turns out not to load."""
    archive = Path(store) / f"{name}.mar"
    version = model_version(archive)
    chosen = write_config(Path(config), name, version, model_options(dict(os.environ)))
    server = subprocess.Popen(
        [
            *("torchserve", "--start", "--foreground", "--ncs", f"--ts-config={chosen}"),
            *(f"--model-store={store}", "--models", f"{name}={name}.mar"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        # A group of its own, so that SIGTERM reaches Java and not only what started it.
        start_new_session=True,
    )

    asked_to: list[int] = []

    def stop(number: int, _: object) -> None:
        asked_to.append(number)
        end(server)

    signal.signal(signal.SIGTERM, stop)
    assert server.stdout is not None
    failure = follow(server.stdout, archive.name)
    if failure:
        end(server)
    code = server.wait()
    if asked_to:
        return 0
    if failure:
        print(failure, file=sys.stderr, flush=True)
        return 1
    return code or 1


def end(server: subprocess.Popen[str]) -> None:
    """SIGTERM to TorchServe and all that it started."""
    try:
        os.killpg(server.pid, signal.SIGTERM)
    except ProcessLookupError:
        return


def follow(output: Iterable[str], archive: str) -> str:
    """Passes every line on; returns a sentence when a worker ends before the model was loaded."""
    words = LastWords()
    loaded = False
    for line in output:
        sys.stdout.write(line)
        sys.stdout.flush()
        said = _WORKER_LINE.search(line.rstrip("\n"))
        if said and not loaded:
            words.hear(said[1])
        elif _LOADED in line:
            loaded = True
        elif not loaded and _WORKER_ENDED.search(line):
            return words.sentence(archive)
    return ""


def ready(name: str) -> int:
    """0 when a worker of the model is ready to answer."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{MANAGEMENT}/models/{name}", timeout=4) as answer:
            versions = json.load(answer)
    except (OSError, ValueError) as error:
        print(f"the model is not ready: {error}")
        return 1
    states = [worker["status"] for version in versions for worker in version["workers"]]
    if "READY" in states:
        return 0
    print(f"the model is not ready: its workers are {', '.join(states) or 'none'}")
    return 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["start"] and len(sys.argv) == 5:
        sys.exit(start(*sys.argv[2:]))
    if sys.argv[1:2] == ["ready"] and len(sys.argv) == 3:
        sys.exit(ready(sys.argv[2]))
    sys.exit(__doc__)
