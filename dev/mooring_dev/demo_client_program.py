"""Runs in a pod: sends predictions to a Service the way an application in the cluster would.

    python program.py infer URL HEADERS    body on standard input; prints {"code", "body"}; further
                                           headers as a JSON object
    python program.py stream URL SECONDS   body on the first line; sends it over and over, SECONDS
                                           apart, until standard input ends; prints what came of it

Standard library alone: it runs in any image that has Python.
"""

from __future__ import annotations

import collections
import http.client
import json
import sys
import threading
import time
import urllib.parse

_TIMEOUT = 10.0
_KEPT_FAILURES = 5


def post(url: str, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, str]:
    """One request on a connection of its own, so that the Service chooses a pod each time."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=_TIMEOUT)
    try:
        sent = {"Content-Type": "application/json", **(headers or {})}
        connection.request("POST", parts.path, body, sent)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def post_or_fail(url: str, body: bytes) -> str:
    """The answer's text; raises RuntimeError when its code is not 200."""
    code, text = post(url, body)
    if code != 200:
        raise RuntimeError(f"HTTP {code}: {text[:200]}")
    return text


def answer_of(text: str) -> str:
    """What tells two models apart: the outputs without the request's id and the model's name."""
    return json.dumps([output["data"] for output in json.loads(text)["outputs"]])


def infer(url: str, headers: str) -> None:
    """Send standard input once."""
    code, text = post(url, sys.stdin.buffer.read(), json.loads(headers))
    json.dump({"code": code, "body": text}, sys.stdout)


def stream(url: str, pause: float) -> None:
    """Send the first line until the input ends, then tell how often what was answered."""
    body = sys.stdin.buffer.readline()
    ended = threading.Event()
    threading.Thread(target=_set_at_end_of_input, args=(ended,), daemon=True).start()
    answers: collections.Counter[str] = collections.Counter()
    failures: list[str] = []
    failed = 0
    slowest = 0.0
    begin = time.monotonic()
    while not ended.is_set():
        sent = time.monotonic()
        try:
            answers[answer_of(post_or_fail(url, body))] += 1
        except (OSError, RuntimeError, ValueError, KeyError, http.client.HTTPException) as error:
            failed += 1
            if len(failures) < _KEPT_FAILURES:
                failures.append(f"after {sent - begin:.1f} s: {type(error).__name__}: {error}")
        slowest = max(slowest, time.monotonic() - sent)
        if sum(answers.values()) + failed == 1:
            print("started", flush=True)
        ended.wait(pause)
    summary = {
        "sent": sum(answers.values()) + failed,
        "failed": failed,
        "failures": failures,
        "answers": dict(answers),
        "slowest_seconds": slowest,
        "seconds": time.monotonic() - begin,
    }
    print(json.dumps(summary), flush=True)


def _set_at_end_of_input(ended: threading.Event) -> None:
    sys.stdin.buffer.read()
    ended.set()


if __name__ == "__main__":
    if sys.argv[1] == "infer":
        infer(sys.argv[2], sys.argv[3])
    else:
        stream(sys.argv[2], float(sys.argv[3]))
