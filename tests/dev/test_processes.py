from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mooring_dev import processes
from mooring_dev.errors import DevError
from mooring_dev.processes import Program

pytestmark = pytest.mark.process

SLEEP = ("/bin/sleep", "60")


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if processes.start_time(pid) is None:
            return True
        time.sleep(0.01)
    return False


def test_a_running_program_is_not_started_twice(tmp_path: Path) -> None:
    program = Program("sleep", SLEEP, tmp_path)
    first = processes.start(program)
    assert processes.start(program) == first
    processes.stop(program.pid_file)


def test_a_program_whose_command_changed_is_started_anew(tmp_path: Path) -> None:
    first = processes.start(Program("sleep", SLEEP, tmp_path))
    changed = Program("sleep", ("/bin/sleep", "61"), tmp_path)
    second = processes.start(changed)
    assert second != first
    assert gone(first)
    processes.stop(changed.pid_file)


def test_a_program_whose_input_file_changed_is_started_anew(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("a")
    program = Program("sleep", SLEEP, tmp_path, inputs=(config,))
    first = processes.start(program)
    config.write_text("b")
    assert processes.start(program) != first
    processes.stop(program.pid_file)


def test_stop_ends_the_process_and_forgets_it(tmp_path: Path) -> None:
    program = Program("sleep", SLEEP, tmp_path)
    pid = processes.start(program)
    processes.stop(program.pid_file)
    assert gone(pid)
    assert not program.pid_file.exists()


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    stubborn = ("/bin/sh", "-c", "trap '' TERM; while :; do /bin/sleep 0.1; done")
    program = Program("stubborn", stubborn, tmp_path)
    pid = processes.start(program)
    processes.stop(program.pid_file, grace=0.2)
    assert gone(pid)


def test_a_pid_that_was_given_to_another_process_is_never_stopped(tmp_path: Path) -> None:
    with subprocess.Popen(SLEEP) as stranger:
        pid_file = tmp_path / "pid"
        pid_file.write_text(f"{stranger.pid} 1 fingerprint")
        assert processes.running_pid(pid_file) is None
        processes.stop(pid_file)
        assert stranger.poll() is None
        stranger.kill()


def test_stopping_what_never_ran_is_no_error(tmp_path: Path) -> None:
    processes.stop(tmp_path / "nothing")
    assert processes.running_pid(tmp_path / "nothing") is None


def test_a_program_that_ended_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    program = Program("broken", ("/bin/sh", "-c", "echo no such flag >&2; exit 2"), tmp_path)
    pid = processes.start(program)
    assert gone(pid)
    with pytest.raises(DevError, match="no such flag") as raised:
        processes.require_alive(program)
    assert str(program.log) in str(raised.value)


def test_an_executable_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DevError, match="/no/such/program"):
        processes.start(Program("none", ("/no/such/program",), tmp_path))


def test_what_was_started_with_its_owner_ends_with_it(tmp_path: Path) -> None:
    program = Program("sleep", SLEEP, tmp_path, with_owner=True)
    started: list[int] = []

    def own() -> None:
        started.append(processes.start(program))
        # setpriv asks for the signal and then becomes the program: until then nobody owns it.
        name = Path(f"/proc/{started[0]}/comm")
        while name.read_text().strip() != "sleep":
            time.sleep(0.01)

    owner = threading.Thread(target=own)
    owner.start()
    owner.join()
    assert gone(started[0])


def test_what_was_started_without_its_owner_outlives_it(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path\n"
        "from mooring_dev import processes\n"
        f"processes.start(processes.Program('sleep', {SLEEP!r}, Path({str(tmp_path)!r})))\n"
    )
    environment = {"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
    assert processes.running_pid(tmp_path / "pids" / "sleep") is not None
    processes.stop(tmp_path / "pids" / "sleep")
