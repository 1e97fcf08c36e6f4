"""The program that starts TorchServe: what it makes of the server's log, and what it ends with."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

PROGRAM = Path(__file__).parents[2] / "helm" / "mooring" / "files" / "torchserve" / "serve.py"

WORKER = "2026-11-21T05:37:46,896 [INFO ] W-9000-fraud_1.0-stdout MODEL_LOG - "
ENDED = (
    "2026-11-21T05:37:47,714 [INFO ] W-9000-fraud_1.0-stdout "
    "org.pytorch.serve.wlm.WorkerLifeCycle - Stopped Scanner - W-9000-fraud_1.0-stdout\n"
)
LOADED = (
    "2026-11-21T05:37:35,835 [DEBUG] W-9000-fraud_1.0 org.pytorch.serve.wlm.WorkerThread - "
    "W-9000-fraud_1.0 State change WORKER_STARTED -> WORKER_MODEL_LOADED\n"
)


@pytest.fixture(scope="session")
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("torchserve_program", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def worker(text: str) -> list[str]:
    return [f"{WORKER}{line}\n" for line in textwrap.dedent(text).strip("\n").splitlines()]


RAISED = worker(
    """
    Backend worker process died.
    Traceback (most recent call last):
      File "/ts/model_loader.py", line 143, in load
        initialize_fn(service.context)
      File "/tmp/models/e4b0/fraud_handler.py", line 11, in initialize
        raise ValueError("the table of merchants is missing")
    ValueError: the table of merchants is missing
    """
)
SECOND_WAY_FAILED = worker(
    """
    Backend worker process died.
    Traceback (most recent call last):
      File "/tmp/models/e4b0/fraud_handler.py", line 3, in <module>
        import lightgbm
    ModuleNotFoundError: No module named 'lightgbm'

    During handling of the above exception, another exception occurred:

    Traceback (most recent call last):
      File "/ts/model_loader.py", line 110, in load
    ModuleNotFoundError: No module named 'ts.torch_handler.fraud_handler'
    """
)
CAUSED = worker(
    """
    Backend worker process died.
    Traceback (most recent call last):
      File "/x/a.py", line 1, in a
    KeyError: 'weights'

    The above exception was the direct cause of the following exception:

    Traceback (most recent call last):
      File "/x/fraud_handler.py", line 9, in initialize
    RuntimeError: fraud.pt has no weights
    """
)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (RAISED, "ValueError: the table of merchants is missing (fraud_handler.py, line 11)"),
        (SECOND_WAY_FAILED, "No module named 'lightgbm' (fraud_handler.py, line 3)"),
        (CAUSED, "RuntimeError: fraud.pt has no weights (fraud_handler.py, line 9)"),
        ([], "its worker died without a word"),
    ],
    ids=["raised", "second-way", "caused", "killed"],
)
def test_a_worker_that_ends_before_its_model_is_loaded_is_told_in_a_sentence(
    program: ModuleType, lines: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = program.follow(iter([*lines, ENDED, "never read\n"]), "fraud.mar")

    assert sentence.startswith("fraud.mar did not load: ")
    assert said in sentence
    assert capsys.readouterr().out == "".join([*lines, ENDED])


def test_what_happens_to_a_worker_of_a_loaded_model_is_torchserves_own_affair(
    program: ModuleType,
) -> None:
    assert program.follow(iter([LOADED, *RAISED, ENDED]), "fraud.mar") == ""


Archive = Callable[..., Path]


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    def packed(manifest: object = None) -> Path:
        path = tmp_path / "fraud.mar"
        with zipfile.ZipFile(path, "w") as target:
            content = manifest or {"model": {"modelVersion": "1.0"}}
            target.writestr("MAR-INF/MANIFEST.json", json.dumps(content))
        return path

    return packed


def test_the_version_is_the_manifests(program: ModuleType, archive: Archive) -> None:
    assert program.model_version(archive()) == "1.0"


def test_what_is_no_model_archive_is_refused_before_torchserve_takes_it_for_a_folder(
    program: ModuleType, archive: Archive, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match=r"There is no other\.mar"):
        program.model_version(tmp_path / "other.mar")
    (tmp_path / "onnx.mar").write_bytes(b"\x08\x07onnx" * 50)
    with pytest.raises(SystemExit, match=r"onnx\.mar is not a model archive \(File is not a zip"):
        program.model_version(tmp_path / "onnx.mar")
    with pytest.raises(SystemExit, match="not a model archive"):
        program.model_version(archive(manifest={"model": {}}))


def test_workers_and_batches_come_from_the_environment(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(program.tempfile, "tempdir", None)
    source = tmp_path / "config.properties"
    source.write_text("job_queue_size=7\n")

    options = program.model_options({"TORCHSERVE_BATCH_SIZE": "4", "TORCHSERVE_MIN_WORKERS": "2"})
    written = program.write_config(source, "fraud", "1.0", options).read_text()

    first, models = written.strip().split("\n\n" if "\n\n" in written.strip() else "\n")
    assert first == "job_queue_size=7"
    assert json.loads(models.removeprefix("models=")) == {
        "fraud": {
            "1.0": {
                "defaultVersion": True,
                "marName": "fraud.mar",
                "batchSize": 4,
                "minWorkers": 2,
                "maxWorkers": 2,
            }
        }
    }


def test_without_settings_the_configuration_is_used_as_it_is(
    program: ModuleType, tmp_path: Path
) -> None:
    source = tmp_path / "config.properties"
    assert program.write_config(source, "fraud", "1.0", program.model_options({})) == source


def test_a_setting_that_is_no_number_is_named(program: ModuleType) -> None:
    with pytest.raises(SystemExit, match="TORCHSERVE_BATCH_SIZE is 'many'"):
        program.model_options({"TORCHSERVE_BATCH_SIZE": "many"})


@pytest.fixture
def torchserve(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """An environment in which `torchserve` is a Python program of the test's."""

    def pretend(body: str) -> dict[str, str]:
        path = tmp_path / "bin" / "torchserve"
        path.parent.mkdir()
        path.write_text(f"#!{sys.executable}\nimport sys, time\n{body}\n")
        path.chmod(0o755)
        return {**os.environ, "PATH": f"{path.parent}:{os.environ['PATH']}"}

    return pretend


def arguments(store: Path) -> list[str]:
    config = store / "config.properties"
    config.write_text("")
    return [sys.executable, str(PROGRAM), "start", str(store), "fraud", str(config)]


def test_it_ends_when_the_model_does_not_load_though_torchserve_would_go_on(
    archive: Archive, torchserve: Callable[[str], dict[str, str]]
) -> None:
    store = archive().parent
    body = f"sys.stdout.write({''.join([*RAISED, ENDED])!r}); sys.stdout.flush(); time.sleep(600)"

    done = subprocess.run(
        arguments(store), env=torchserve(body), capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "fraud.mar did not load: ValueError: the table of merchants is missing "
        "(fraud_handler.py, line 11)"
    )


def test_sigterm_reaches_torchserve_and_what_it_started_and_the_end_is_a_good_one(
    archive: Archive, torchserve: Callable[[str], dict[str, str]]
) -> None:
    store = archive().parent
    body = "print('started', flush=True); time.sleep(600)"
    running = subprocess.Popen(
        arguments(store), env=torchserve(body), stdout=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    assert running.stdout.readline() == "started\n"

    running.send_signal(signal.SIGTERM)

    assert running.wait(timeout=60) == 0
    assert running.stdout.read() == ""
    running.stdout.close()
