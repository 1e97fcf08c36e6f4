from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

DEV = Path(__file__).resolve().parents[2] / "dev"


def run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(DEV),
        "MOORING_STATE": str(tmp_path),
        "MOORING_CACHE": str(tmp_path),
    }
    command = [sys.executable, "-m", "mooring_dev", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "arguments", [(), ("binaries",), ("cluster",), ("cluster", "up"), ("control-plane", "up")]
)
def test_every_command_explains_itself(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(tmp_path, *arguments, "--help")
    assert done.returncode == 0
    assert "Usage: python -m mooring_dev" in done.stdout


def test_the_overview_lists_what_is_imported_on_demand(tmp_path: Path) -> None:
    shown = run(tmp_path, "--help").stdout
    assert {"binaries", "cluster", "control-plane", "prometheus"} <= set(shown.split())


def test_a_failure_is_a_message_on_standard_error_and_exit_code_1(tmp_path: Path) -> None:
    done = run(tmp_path, "cluster", "down", "--name", "nowhere")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "There is no cluster nowhere" in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_usage_is_exit_code_2(tmp_path: Path) -> None:
    done = run(tmp_path, "cluster", "up", "--provider", "cloud")
    assert done.returncode == 2
    assert "'local', 'kind', 'existing'" in done.stderr


def test_status_of_what_does_not_run_is_data_and_exit_code_3(tmp_path: Path) -> None:
    done = run(tmp_path, "control-plane", "status", "-o", "json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["running"] is False


def test_no_color_leaves_no_escape_sequences(tmp_path: Path) -> None:
    done = run(tmp_path, "--no-color", "cluster", "down", "--name", "nowhere")
    assert "\x1b" not in done.stderr
