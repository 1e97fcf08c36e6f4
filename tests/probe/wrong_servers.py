"""A small server of the protocol in this process, of which a test can make single answers wrong."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Given = tuple[int, Any]
"""A status and a body: JSON, or bytes as they are (of a redirect, where it leads, too); a status of
0 hangs up without an answer."""
Wrong = dict[str, Given | Callable[[Any], Given]]
"""Answers by `METHOD path`, in place of the right ones; a function gets the request's JSON."""

METADATA: dict[str, Any] = {
    "name": "m",
    "platform": "",
    "versions": ["7"],
    "inputs": [
        {"name": "x", "datatype": "FP32", "shape": [-1, 2]},
        {"name": "s", "datatype": "BYTES", "shape": [1]},
    ],
    "outputs": [
        {"name": "y", "datatype": "INT64", "shape": [-1]},
        {"name": "z", "datatype": "FP32", "shape": [-1, 2]},
    ],
}
Y = {"name": "y", "datatype": "INT64", "shape": [1], "data": [3]}
Z = {"name": "z", "datatype": "FP32", "shape": [1, 2], "data": [[0.25, 0.75]]}
ABOUT = {"name": "small", "version": "1", "extensions": ["something_else"]}


def infer(request: Any) -> Given:
    """The right answer: outputs that are asked for, or a refusal of what does not fit."""
    if request is None:
        return 400, {"error": "no JSON"}
    for expected in METADATA["inputs"]:
        tensor = next((t for t in request["inputs"] if t["name"] == expected["name"]), None)
        if tensor is None:
            return 400, {"error": f"no {expected['name']}"}
        if tensor["datatype"] != expected["datatype"]:
            return 400, {"error": "datatype"}
        if len(tensor["shape"]) != len(expected["shape"]):
            return 400, {"error": "shape"}
    wanted = [o["name"] for o in request.get("outputs", [Y, Z])]
    answer = {"model_name": "m", "outputs": [o for o in (Y, Z) if o["name"] in wanted]}
    if "id" in request:
        answer["id"] = request["id"]
    return 200, answer


RIGHT: Wrong = {
    "GET /v2": (200, ABOUT),
    "GET /v2/health/live": (200, b""),
    "GET /v2/health/ready": (200, b""),
    "GET /v2/models/m": (200, METADATA),
    "GET /v2/models/m/ready": (200, b""),
    "GET /v2/models/m/versions/7": (200, METADATA),
    "GET /v2/models/m/versions/7/ready": (200, b""),
    "POST /v2/models/m/infer": infer,
    "POST /v2/models/m/versions/7/infer": infer,
}


@contextmanager
def small_server(wrong: Wrong) -> Iterator[str]:
    """The server's URL while it runs."""
    answers = {**RIGHT, **wrong}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 65_536  # head and body in one packet, or each answer waits for the client's ACK

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            given = answers.get(f"{self.command} {self.path}", (404, {"error": "no such path"}))
            if callable(given):
                try:
                    document = json.loads(body)
                except ValueError:
                    document = None
                given = given(document)
            status, content = given
            if status == 0:
                self.close_connection = True
                return
            shown = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("location", shown.decode())
            self.send_header("content-length", str(len(shown)))
            self.end_headers()
            self.wfile.write(shown)

        do_GET = do_POST = _answer  # noqa: N815  the library's names

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the library's name
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
