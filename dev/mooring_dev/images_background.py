"""Build and load images in a process of its own, while the caller shows something else.

Building waits for the network much of the time, and a cluster that starts waits for itself.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Self

from mooring_dev import images
from mooring_dev.images_catalog import USUAL
from mooring_dev.steps import failed, step


class Background:
    """``python -m mooring_dev images ...`` for as long as a block runs.

    Nothing is started where there is no ``command``; leaving the block ends the process.
    """

    def __init__(self, what: str, log: str, command: Sequence[str] = ()) -> None:
        self._what = what
        self._command = tuple(command)
        self._process: subprocess.Popen[bytes] | None = None
        self.log = images.images_root() / "logs" / log
        """What the process says."""

    @property
    def running(self) -> bool:
        """Whether there was something to do, and still is."""
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Self:
        """Begin."""
        if self._command:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("wb") as output:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "mooring_dev", "images", *self._command],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    # A group of its own: what it has started is ended with it.
                    start_new_session=True,
                )
        return self

    def wait(self) -> None:
        """Return when it is done.

        Raises:
            DevError: it failed, with the end of its log.
        """
        if self._process is None:
            return
        if self.running:
            with step("Waiting for the images"):
                self._process.wait()
        if self._process.returncode != 0:
            raise failed(self._what, self.log)

    def __exit__(self, *_: object) -> None:
        """End the process if it still runs."""
        if self._process is not None and self.running:
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait()


def building(names: Sequence[str] = USUAL) -> Background:
    """Builds what is missing of ``names``."""
    command = () if images.all_built(names) else ("build", *_only(names))
    return Background("Building the images", "background.log", command)


def loading(cluster: str, names: Sequence[str]) -> Background:
    """Builds what is missing of ``names``, and hands to ``cluster`` what it does not have."""
    command = ("load", "--name", cluster, *_only(names))
    return Background("Loading the images", "background-load.log", command)


def _only(names: Sequence[str]) -> list[str]:
    return [word for name in names for word in ("--only", name)]
