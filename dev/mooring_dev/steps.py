"""Long work, shown: what runs, for how many seconds, and the end of its log when it fails."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mooring_dev.errors import DevError

_TAIL_LINES = 20
_ANNOUNCE_AFTER = 0.5


def no_colour() -> None:
    """Turn colour off for this process and what it starts, as ``--no-color`` asks."""
    os.environ["NO_COLOR"] = "1"


def console() -> Console:
    """A console on standard error: standard output is for data."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def tail(log: Path, lines: int = _TAIL_LINES) -> str:
    """The last ``lines`` lines of ``log``; empty when there is none yet."""
    try:
        with log.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - 65536))
            text = stream.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def failed(what: str, log: Path, hint: str = "") -> DevError:
    """An error that names the log of the step that failed and shows how it ended."""
    ending = tail(log) or "(the log is empty)"
    advice = f"\n{hint}" if hint else ""
    return DevError(f"{what} failed. Log: {log}{advice}\n--- last lines ---\n{ending}")


@contextmanager
def step(title: str) -> Iterator[None]:
    """Show ``title`` with elapsed seconds while the block runs, one plain line off a terminal."""
    begin = time.monotonic()
    screen = console()
    if screen.is_terminal:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=screen, transient=True) as progress:
            progress.add_task(title)
            yield
    else:
        yield
    elapsed = time.monotonic() - begin
    if elapsed >= _ANNOUNCE_AFTER:
        screen.print(f"{title}: {elapsed:.1f} s", markup=False)


def run_logged(
    title: str,
    command: Sequence[str],
    log: Path,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    hint: str = "",
) -> None:
    """Run ``command`` with its output appended to ``log``, shown as a step.

    The child is ended when the caller is interrupted, so that nothing goes on unseen.

    Raises:
        DevError: it exited with something other than 0; the message carries the log's end.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with step(title), log.open("ab") as stream:
        stream.write(f"$ {shlex.join(command)}\n".encode())
        stream.flush()
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=dict(env) if env is not None else None,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
        try:
            code = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if code != 0:
        raise failed(f"{title} (exit code {code})", log, hint)


def note(text: str) -> None:
    """One line for the person at the terminal."""
    console().print(text, markup=False)
