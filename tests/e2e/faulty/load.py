"""Requests at a constant rate, whatever becomes of them, until standard input ends.

    python load.py http://fraud.shop.svc/predict 20
    python load.py grpc://fraud.shop.svc:9000 20

Prints "started", and at the end one line of JSON: sent, failed, and when the first one failed
(seconds since the epoch). A request that is not answered within 10 s has failed.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable
from concurrent import futures

TIMEOUT = 10.0


def over_http(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT)
    try:
        connection.request("POST", parts.path, b"{}")
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(answer.status)
    finally:
        connection.close()


def over_grpc(address: str) -> None:
    import grpc

    with grpc.insecure_channel(address) as channel:
        predict: Callable[..., bytes] = channel.unary_unary("/inference.Predict/Predict")
        predict(b"", timeout=TIMEOUT)


def main() -> None:
    url, rate = sys.argv[1], float(sys.argv[2])
    sent = 0
    failures: list[tuple[float, str]] = []
    ended = threading.Event()

    def send() -> None:
        try:
            if url.startswith("grpc://"):
                over_grpc(url.removeprefix("grpc://"))
            else:
                over_http(url)
        except Exception as error:  # noqa: BLE001 - whatever it was, the request has failed
            failures.append((time.time(), repr(error)))

    def listen() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=listen, daemon=True).start()
    with futures.ThreadPoolExecutor(128) as pool:
        print("started", flush=True)
        due = time.monotonic()
        while not ended.is_set():
            sent += 1
            pool.submit(send)
            due += 1 / rate
            ended.wait(max(0.0, due - time.monotonic()))
    first = min(failures, default=(None, ""))
    print(
        json.dumps(
            {"sent": sent, "failed": len(failures), "first_failure": first[0], "why": first[1]}
        ),
        flush=True,
    )


main()
