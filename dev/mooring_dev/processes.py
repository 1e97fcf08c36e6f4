"""Start programs in the background, know them again later, and stop exactly them.

A pid alone does not name a process, since the kernel gives it out again: a pid file also holds the
time at which the process started, and a pid whose start differs counts as dead.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mooring_dev import files
from mooring_dev.errors import DevError
from mooring_dev.steps import failed

_POLL = 0.02
_LOG_LIMIT = 32 * 1024 * 1024


@dataclass(frozen=True)
class Program:
    """What to run, and where its log and pid file go.

    Attributes:
        name: file name of log and pid file.
        command: arguments, the first one being an absolute path.
        directory: holds ``logs/NAME.log`` and ``pids/NAME``.
        namespace: network namespace to run in; None for the caller's.
        with_owner: killed by the kernel when the thread that starts it ends.
        environment: variables set in addition to the caller's.
        inputs: files that it reads at its start; when one changes, it is started anew.
    """

    name: str
    command: tuple[str, ...]
    directory: Path
    namespace: Path | None = None
    with_owner: bool = False
    environment: tuple[tuple[str, str], ...] = ()
    inputs: tuple[Path, ...] = ()

    @property
    def log(self) -> Path:
        """Where standard output and error go."""
        return self.directory / "logs" / f"{self.name}.log"

    @property
    def pid_file(self) -> Path:
        """Holds pid and start time of the process."""
        return self.directory / "pids" / self.name

    def fingerprint(self) -> str:
        """Hash of the command and of its input files: what a restart would change."""
        digest = hashlib.sha256(shlex.join(self.command).encode())
        for path in self.inputs:
            digest.update(path.read_bytes() if path.exists() else b"")
        return digest.hexdigest()[:16]


def start_time(pid: int) -> str | None:
    """When ``pid`` started, in clock ticks since boot; None when it is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The program's name is in parentheses and may itself hold spaces and parentheses.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def running_pid(pid_file: Path) -> int | None:
    """The pid in ``pid_file`` if that very process still runs."""
    try:
        pid_text, started = pid_file.read_text().split()[:2]
    except (FileNotFoundError, ValueError):
        return None
    pid = int(pid_text)
    return pid if start_time(pid) == started else None


def arguments_of(pid: int) -> list[str]:
    """Command line of ``pid``; empty when it is gone."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [part.decode(errors="replace") for part in raw.split(b"\0")[:-1]]


def _wrapped(program: Program) -> list[str]:
    command = list(program.command)
    if program.with_owner and (setpriv := shutil.which("setpriv")):
        command = [setpriv, "--pdeathsig", "KILL", *command]
    if program.namespace is not None:
        # Only the network namespace: `ip netns exec` would make a mount namespace as well, and
        # containerd would not see the volumes that the kubelet mounts.
        command = ["nsenter", f"--net={program.namespace}", "--", *command]
    return command


def start(program: Program) -> int:
    """Start ``program`` unless the same one runs already; return its pid.

    One that runs with another command line or other input files is stopped first.

    Raises:
        DevError: the executable cannot be run.
    """
    running = running_pid(program.pid_file)
    fingerprint = program.fingerprint()
    if running is not None:
        if program.pid_file.read_text().split()[-1] == fingerprint:
            return running
        stop(program.pid_file)
    for folder in (program.log.parent, program.pid_file.parent):
        folder.mkdir(parents=True, exist_ok=True)
    grown = program.log.exists() and program.log.stat().st_size > _LOG_LIMIT
    with program.log.open("wb" if grown else "ab") as log:
        log.write(f"--- {time.strftime('%F %T')} {shlex.join(program.command)}\n".encode())
        log.flush()
        try:
            process = subprocess.Popen(
                _wrapped(program),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **dict(program.environment)},
                cwd=program.directory,
            )
        except OSError as error:
            raise DevError(f"Cannot run {program.command[0]}: {error.strerror}.") from error
    record = f"{process.pid} {start_time(process.pid)} {fingerprint}"
    files.write_text(program.pid_file, record)
    # The pid file outlives this object; the interpreter must not warn that it still runs.
    process.returncode = 0
    return process.pid


def require_alive(program: Program) -> None:
    """Raise a DevError with the log's end when ``program`` has ended."""
    reap(program.pid_file)
    if running_pid(program.pid_file) is None:
        raise failed(f"Starting {program.name}", program.log)


def reap(pid_file: Path) -> None:
    """Collect the process if it is an ended child of ours, so that it is no zombie."""
    try:
        os.waitpid(int(pid_file.read_text().split()[0]), os.WNOHANG)
    except (FileNotFoundError, ChildProcessError, ValueError, IndexError):
        return


def stop(pid_file: Path, *, grace: float = 5.0) -> None:
    """End the process of ``pid_file``: SIGTERM, then SIGKILL after ``grace`` seconds."""
    pid = running_pid(pid_file)
    if pid is not None:
        end([pid], grace=grace)
    reap(pid_file)
    pid_file.unlink(missing_ok=True)


def end(pids: Sequence[int], *, grace: float) -> None:
    """End ``pids`` and wait until they are gone; the caller has made sure they are its own."""
    alive: Mapping[int, str] = {
        pid: started for pid in pids if (started := start_time(pid)) is not None
    }
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        if number == signal.SIGTERM and grace <= 0:
            continue
        for pid, started in alive.items():
            if start_time(pid) == started:
                _send(pid, number)
        deadline = time.monotonic() + seconds
        while alive and time.monotonic() < deadline:
            alive = {pid: begun for pid, begun in alive.items() if start_time(pid) == begun}
            if alive:
                time.sleep(_POLL)
    if alive:
        raise DevError(f"Processes {sorted(alive)} do not end, not even by SIGKILL.")


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
