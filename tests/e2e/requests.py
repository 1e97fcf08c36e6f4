"""Requests that go on in the client's pod while a test changes what serves them.

A program of ``faulty/`` sends them; it says ``started``, listens on its standard input and, when
that ends, prints its counts as one line of JSON.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Self

from mooring_dev.demo_client import Client

PROGRAMS = Path(__file__).parent / "faulty"


class Requests:
    """Requests while the block runs; the counts are there after it."""

    def __init__(self, client: Client, program: str, *arguments: str) -> None:
        self._client = client
        self._program = ("-c", (PROGRAMS / program).read_text(), *arguments)
        self.sent = self.failed = 0
        #: When the first request failed (seconds since the epoch), and what became of it.
        self.first_failure: float | None = None
        self.why = ""

    def __enter__(self) -> Self:
        self._process = self._client.begin(*self._program)
        assert self._process.stdout is not None
        assert self._process.stdout.readline().strip() == "started"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        output, _ = self._process.communicate(timeout=60)
        # A test that fails already is told by its own failure, whatever became of the program.
        if error is None:
            counts = json.loads(output.strip().splitlines()[-1])
            self.sent, self.failed = counts["sent"], counts["failed"]
            self.first_failure, self.why = counts["first_failure"], counts["why"]


def steady(client: Client, url: str, rate: float = 20) -> Requests:
    """Requests at a constant rate (a second), whatever becomes of them."""
    return Requests(client, "load.py", url, str(rate))
