"""Runs in a pod: asks a model about rows, drawn anew for each request, until standard input ends.

    python -c … URL TENSOR      each line of standard input is {"rows": [[…], …]} (null: missing):
                                from then on these rows are drawn from

Prints "started" after the first answer; then, every few seconds and whenever the rows change, which
were asked about since when: {"at", "rows": n, "asked": [places]}; in the end {"sent", "failed",
"failures"}. Standard library alone: it runs in any image that has Python.
"""

from __future__ import annotations

import datetime as dt
import http.client
import json
import math
import queue
import random
import struct
import sys
import threading
import time
import urllib.parse
from typing import Any

#: Rows of a request, seconds between two, and seconds between two reports.
ROWS, PAUSE, REPORT = 2, 0.03, 4.0
_TIMEOUT = 10.0
_KEPT_FAILURES = 5


def request(tensor: str, rows: list[list[float]]) -> tuple[bytes, dict[str, str]]:
    """Body and headers: the tensor as bytes, since JSON has no NaN for what is missing."""
    values = [value for row in rows for value in row]
    raw = struct.pack(f"<{len(values)}f", *values)
    described = {
        "name": tensor,
        "shape": [len(rows), len(rows[0])],
        "datatype": "FP32",
        "parameters": {"binary_data_size": len(raw)},
    }
    head = json.dumps({"inputs": [described]}).encode()
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(head)),
    }
    return head + raw, headers


def post(url: str, body: bytes, headers: dict[str, str]) -> None:
    """One request on a connection of its own; raises RuntimeError when its code is not 200."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=_TIMEOUT)
    try:
        connection.request("POST", parts.path, body, headers)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != http.client.OK:
            raise RuntimeError(f"HTTP {answer.status}: {text[:200]!r}")
    finally:
        connection.close()


class Asked:
    """Which rows were asked about, told in reports."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._at = dt.datetime.now(dt.UTC)
        self._places: list[int] = []

    def add(self, places: list[int]) -> None:
        """Remember; report when it is time."""
        self._places += places
        if (dt.datetime.now(dt.UTC) - self._at).total_seconds() >= REPORT:
            self.report()

    def report(self) -> None:
        """Print what was asked since the last report."""
        if self._places:
            at = self._at.strftime("%Y-%m-%dT%H:%M:%SZ")
            print(json.dumps({"at": at, "rows": self.number, "asked": self._places}), flush=True)
        self._at, self._places = dt.datetime.now(dt.UTC), []


def main(url: str, tensor: str) -> None:
    """Ask, take new rows, report."""
    given: queue.SimpleQueue[list[list[float]] | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(given,), daemon=True).start()
    rows = given.get()
    asked = Asked(0)
    sent = failed = 0
    failures: list[str] = []
    while rows is not None:
        places = [random.randrange(len(rows)) for _ in range(ROWS)]  # noqa: S311  # no secret
        try:
            post(url, *request(tensor, [rows[place] for place in places]))
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            failed += 1
            if len(failures) < _KEPT_FAILURES:
                failures.append(f"{type(error).__name__}: {error}")
        sent += 1
        if sent == 1:
            print("started", flush=True)
        asked.add(places)
        time.sleep(PAUSE)
        while not given.empty():
            asked.report()
            rows, asked = given.get(), Asked(asked.number + 1)
    print(json.dumps({"sent": sent, "failed": failed, "failures": failures}), flush=True)


def _listen(given: queue.SimpleQueue[list[list[float]] | None]) -> None:
    for line in sys.stdin:
        read: dict[str, Any] = json.loads(line)
        given.put([[math.nan if value is None else value for value in row] for row in read["rows"]])
    given.put(None)


if __name__ == "__main__":
    main(*sys.argv[1:])
