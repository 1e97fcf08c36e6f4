"""An API server as far as the command line needs one: lists, watches, merge patches, and faults.

What a real one answers is tested in test_real_api_server.py; this one breaks on demand.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

Json = dict[str, Any]


@dataclass
class FakeApi:
    """Objects by collection path and name, a log of changes, and what is to go wrong.

    ``refusals`` maps the beginning of a path to (status, body). ``on_patch`` is called with the
    object after a patch: it plays the operator. ``silent`` cuts off every request.
    """

    objects: dict[str, dict[str, Json]] = field(default_factory=dict)
    refusals: dict[str, tuple[int, Any]] = field(default_factory=dict)
    patches: list[tuple[str, Json]] = field(default_factory=list)
    on_patch: Callable[[Json], None] | None = None
    silent: bool = False
    watches: int = 0
    _log: list[tuple[int, str, str, Json]] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _drops: int = 0
    server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        assert self.server is not None
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def put(self, collection: str, obj: Json, type_: str = "MODIFIED") -> None:
        """Adds or replaces an object, as its watchers will see it."""
        with self._changed:
            version = len(self._log) + 1
            obj["metadata"]["resourceVersion"] = str(version)
            self.objects.setdefault(collection, {})[obj["metadata"]["name"]] = obj
            self._log.append((version, type_, collection, json.loads(json.dumps(obj))))
            self._changed.notify_all()

    def delete(self, collection: str, name: str) -> None:
        obj = self.objects[collection][name]
        self.put(collection, obj, "DELETED")
        del self.objects[collection][name]

    def drop(self) -> None:
        """Cuts every open watch in the middle of a line."""
        with self._changed:
            self._drops += 1
            self._changed.notify_all()

    def wait_for_watches(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.watches >= count, 10)

    @contextlib.contextmanager
    def running(self) -> Iterator[FakeApi]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                return None

            def do_GET(self) -> None:
                api._get(self)

            def do_PATCH(self) -> None:
                api._patch(self)

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                return None  # a client that goes away in the middle is part of the tests

        self.server = Server(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            self.drop()
            self.server.server_close()
            thread.join()

    def _get(self, handler: BaseHTTPRequestHandler) -> None:
        url = urlsplit(handler.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if self._refused(handler, url.path):
            return
        collection, _, name = url.path.rpartition("/")
        if query.get("watch"):
            self._watch(handler, url.path, query)
        elif name in self.objects.get(collection, {}):
            self._answer(handler, 200, self.objects[collection][name])
        elif url.path in self.objects or self._below(url.path):
            found = [obj for obj in self._in(url.path) if _selected(obj, query)]
            version = {"resourceVersion": str(len(self._log))}
            self._answer(handler, 200, {"metadata": version, "items": found})
        elif collection in self.objects:
            details = {"name": name, "kind": collection.rpartition("/")[2]}
            message = f'{details["kind"]} "{name}" not found'
            self._answer(handler, 404, {"kind": "Status", "message": message, "details": details})
        else:
            self._answer(handler, 404, "404 page not found")

    def _below(self, path: str) -> bool:
        """Whether this is a collection over all namespaces."""
        return any(self._spans(path, collection) for collection in self.objects)

    @staticmethod
    def _spans(path: str, collection: str) -> bool:
        group, _, plural = path.rpartition("/")
        return collection.startswith(f"{group}/namespaces/") and collection.endswith(f"/{plural}")

    def _in(self, path: str) -> list[Json]:
        if path in self.objects:
            return list(self.objects[path].values())
        return [o for c, objs in self.objects.items() if self._spans(path, c)
                for o in objs.values()]  # fmt: skip

    def _watch(self, handler: BaseHTTPRequestHandler, path: str, query: dict[str, str]) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        with self._changed:
            seen, drops = int(query.get("resourceVersion") or 0), self._drops
            self.watches += 1
            self._changed.notify_all()
            while self._drops == drops:
                for version, type_, collection, obj in self._log[seen:]:
                    seen = version
                    if collection == path and _selected(obj, query):
                        line = json.dumps({"type": type_, "object": obj}).encode() + b"\n"
                        handler.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                self._changed.wait()
        with contextlib.suppress(OSError):
            handler.wfile.write(b'40\r\n{"type": "MODIF')
            handler.wfile.flush()
            handler.connection.shutdown(socket.SHUT_RDWR)
        handler.close_connection = True

    def _patch(self, handler: BaseHTTPRequestHandler) -> None:
        url = urlsplit(handler.path)
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        if self._refused(handler, url.path):
            return
        collection, _, name = url.path.rpartition("/")
        obj = json.loads(json.dumps(self.objects[collection][name]))
        self.patches.append((url.path, body))
        obj["metadata"].setdefault("annotations", {}).update(body["metadata"]["annotations"])
        self.put(collection, obj)
        if self.on_patch is not None:
            obj = json.loads(json.dumps(obj))
            self.on_patch(obj)
            self.put(collection, obj)
        self._answer(handler, 200, obj)

    def _refused(self, handler: BaseHTTPRequestHandler, path: str) -> bool:
        if self.silent:
            handler.connection.shutdown(socket.SHUT_RDWR)
            handler.close_connection = True
            return True
        for prefix, (status, body) in self.refusals.items():
            if path.startswith(prefix):
                self._answer(handler, status, body)
                return True
        return False

    @staticmethod
    def _answer(handler: BaseHTTPRequestHandler, status: int, body: Any) -> None:
        text = (body if isinstance(body, str) else json.dumps(body)).encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(text)))
        handler.end_headers()
        handler.wfile.write(text)


def _selected(obj: Json, query: dict[str, str]) -> bool:
    labels = obj["metadata"].get("labels") or {}
    for pair in filter(None, query.get("labelSelector", "").split(",")):
        key, _, value = pair.partition("=")
        if labels.get(key) != value:
            return False
    for pair in filter(None, query.get("fieldSelector", "").split(",")):
        key, _, value = pair.partition("=")
        found: Any = obj
        for part in key.split("."):
            found = (found or {}).get(part)
        if found != value:
            return False
    return True


def write_kubeconfig(path: Path, server: str, namespace: str = "shop") -> Path:
    """A kubeconfig with one context, ``here``."""
    context = {"cluster": "here", "user": "me", "namespace": namespace}
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "here",
                "clusters": [{"name": "here", "cluster": {"server": server}}],
                "users": [{"name": "me", "user": {"token": "secret"}}],
                "contexts": [{"name": "here", "context": context}],
            }
        )
    )
    return path
