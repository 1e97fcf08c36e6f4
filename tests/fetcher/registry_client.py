"""Pushes images and artifacts to a registry, and hands out its tokens."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from mooring_fetcher.web import Web

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
TITLE = "org.opencontainers.image.title"


def digest_of(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def tar(files: dict[str, bytes | None], *, gzipped: bool = True) -> bytes:
    """A layer; None makes a folder."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path, body in files.items():
            entry = tarfile.TarInfo(path)
            if body is None:
                entry.type = tarfile.DIRTYPE
                archive.addfile(entry)
            else:
                entry.size = len(body)
                archive.addfile(entry, io.BytesIO(body))
    raw = packed.getvalue()
    return gzip.compress(raw, mtime=0) if gzipped else raw


class Pusher:
    """One repository, written to as `authorization`."""

    def __init__(self, host: str, repository: str, authorization: str = "") -> None:
        self.host, self.repository = host, repository
        self._base = f"http://{host}/v2/{repository}"
        self._headers = {"Authorization": authorization} if authorization else {}

    def uri(self, reference: str) -> str:
        return f"oci://{self.host}/{self.repository}{reference}"

    def blob(self, body: bytes) -> str:
        place = self._ask("POST", f"{self._base}/blobs/uploads/", b"", 202)
        mark = "&" if "?" in place else "?"
        self._ask("PUT", f"{place}{mark}digest={digest_of(body)}", body, 201)
        return digest_of(body)

    def manifest(self, held: dict[str, Any], reference: str, kind: str = MANIFEST) -> str:
        """Stores a manifest under a tag, or under its digest where that is empty."""
        body = json.dumps({"schemaVersion": 2, "mediaType": kind, **held}).encode()
        place = f"{self._base}/manifests/{reference or digest_of(body)}"
        self._ask("PUT", place, body, 201, kind)
        return digest_of(body)

    def layers(self, layers: list[dict[str, Any]], reference: str) -> str:
        config = {"mediaType": "application/vnd.oci.empty.v1+json", "size": 2}
        return self.manifest(
            {"config": config | {"digest": self.blob(b"{}")}, "layers": layers}, reference
        )

    def artifact(self, files: dict[str, bytes], reference: str) -> str:
        """Files by their titles, as ORAS pushes them; returns the manifest's digest."""
        return self.layers([self.titled(path, body) for path, body in files.items()], reference)

    def image(self, layers: list[bytes], reference: str, how: str = "+gzip") -> str:
        """An image of packed layers; returns the manifest's digest."""
        return self.layers([self.layer(body, LAYER + how) for body in layers], reference)

    def titled(self, title: str, body: bytes, **annotations: str) -> dict[str, Any]:
        return self.layer(body, LAYER) | {"annotations": {TITLE: title} | annotations}

    def _ask(
        self,
        method: str,
        url: str,
        body: bytes,
        status: int,
        kind: str = "application/octet-stream",
    ) -> str:
        """Where the answer points to."""
        web = Web()
        try:
            headers = self._headers | {"Content-Type": kind}
            answer = web.ask(url, headers, method=method, body=body)
            assert answer.status == status, answer.words()
            answer.read()
            return answer.headers.get("Location", "")
        finally:
            web.close()

    def layer(self, body: bytes, kind: str) -> dict[str, Any]:
        return {"mediaType": kind, "digest": self.blob(body), "size": len(body)}


class TokenService:
    """A stand-in for what a registry's operator runs beside it: sells tokens that it accepts.

    Anybody may pull below ``public/``, the user ``reader`` (and whoever holds the identity token)
    everything, and ``writer`` may push.
    """

    issuer, service = "mooring-dev", "registry"
    reader, writer, identity = ("reader", "read-pass"), ("writer", "write-pass"), "identity-token"

    def __init__(self, folder: Path) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        numbers = self._key.public_key().public_numbers()
        key = {
            "kty": "RSA",
            "use": "sig",
            "alg": "RS256",
            "kid": "k1",
            "n": _encoded(numbers.n.to_bytes(256, "big")),
            "e": _encoded(numbers.e.to_bytes(3, "big")),
        }
        self._jwks = folder / "jwks.json"
        self._jwks.write_text(json.dumps({"keys": [key]}))
        self.asked: list[str] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments: Any) -> None:
                return

            def do_GET(self) -> None:
                owner.asked.append(self.path)
                self._answer(
                    parse_qs(urlsplit(self.path).query), self.headers.get("Authorization", "")
                )

            def do_POST(self) -> None:
                owner.asked.append(self.path)
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                form = parse_qs(body)
                known = form.get("refresh_token") == [owner.identity]
                self._answer(form, basic(*owner.reader) if known else "none")

            def _answer(self, query: dict[str, list[str]], authorization: str) -> None:
                token = owner.token(query["scope"][0], authorization)
                body = json.dumps({"token": token} if token else {"errors": []}).encode()
                self.send_response(200 if token else 401)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def configuration(self) -> str:
        """What the registry's configuration says of it, below ``auth:``."""
        realm = f"http://127.0.0.1:{self._server.server_address[1]}/token"
        return (
            f"  token: {{realm: '{realm}', service: {self.service}, issuer: {self.issuer}, "
            f"jwks: '{self._jwks}'}}"
        )

    def token(self, scope: str, authorization: str) -> str:
        """A token for the scope, or nothing."""
        _, name, _ = scope.split(":", 2)
        actions = {basic(*self.reader): ["pull"], basic(*self.writer): ["pull", "push"]}
        allowed = actions.get(authorization, [])
        if not authorization:
            allowed = ["pull"] if name.startswith("public/") else []
        if authorization and not allowed:
            return ""
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "sub": "someone",
            "aud": self.service,
            "exp": now + 300,
            "nbf": now - 10,
            "iat": now,
            "jti": "1",
            "access": [{"type": "repository", "name": name, "actions": allowed}],
        }
        header = {"alg": "RS256", "typ": "JWT", "kid": "k1"}
        parts = [_encoded(json.dumps(part).encode()) for part in (header, claims)]
        unsigned = ".".join(parts)
        signature = self._key.sign(unsigned.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{unsigned}.{_encoded(signature)}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def docker_config(host: str, **entry: str) -> dict[str, str]:
    """A Secret of the type kubernetes.io/dockerconfigjson."""
    return {".dockerconfigjson": json.dumps({"auths": {host: entry}})}


def _encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()
