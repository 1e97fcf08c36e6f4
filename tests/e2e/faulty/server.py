"""A model server that misbehaves on demand, for rollouts that have to be rolled back.

FAULT says how: ``none``, ``errors:0.3`` (that share of the answers is 500), ``hang`` (never
answers), ``grpc:0.3`` (that share ends with a gRPC status, under HTTP's 200), ``slow:2`` (so many
times as slow), ``crash`` (its process ends a few seconds after it became ready, again and again).
No model is read.
"""

from __future__ import annotations

import http.server
import os
import random
import threading
import time
from concurrent import futures

import grpc

KIND, _, AMOUNT = os.environ.get("FAULT", "none").partition(":")
SHARE = float(AMOUNT or 0)
#: The time that an answer takes (seconds), ±20 %: long beside what a busy machine adds to it.
USUAL = 0.15
CRASH_AFTER = 4.0
DRAW = random.Random()


def takes() -> float:
    usual = USUAL * DRAW.uniform(0.8, 1.2)
    return usual * SHARE if KIND == "slow" else usual


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(200, b"ok")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if KIND == "hang":
            time.sleep(600)
        time.sleep(takes())
        failed = KIND == "errors" and DRAW.random() < SHARE
        self._answer(500 if failed else 200, b'{"outputs": []}')

    def _answer(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Says nothing."""


class Predict(grpc.GenericRpcHandler):
    """Answers every method."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        return grpc.unary_unary_rpc_method_handler(self._predict)

    def _predict(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        time.sleep(takes())
        if KIND == "grpc" and DRAW.random() < SHARE:
            context.abort(grpc.StatusCode.INTERNAL, "a fault on demand")
        return b""


def main() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(16))
    server.add_generic_rpc_handlers((Predict(),))
    server.add_insecure_port("0.0.0.0:9000")
    server.start()
    if KIND == "crash":
        threading.Timer(CRASH_AFTER, os._exit, (1,)).start()
    http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()


main()
