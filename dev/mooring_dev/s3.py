"""An S3 server for tests and the demo: versitygw on a folder.

It runs on this machine. Pods of a local cluster reach it when it listens on the cluster's
``host_address``; this machine reaches it there as well, so that one URL serves both.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import http.client
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlsplit

from mooring_dev import processes
from mooring_dev.binaries import ensure
from mooring_dev.errors import DevError
from mooring_dev.health import wait_until
from mooring_dev.ports import Claim, claim, is_free
from mooring_dev.processes import Program

REGION = "us-east-1"
_READY_SECONDS = 20.0
_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class S3Server:
    """A running S3 server; use it as a context manager, or call ``stop``.

    Attributes:
        directory: buckets are folders of ``directory/data``.
        endpoint: URL, to be addressed by path style.
    """

    directory: Path
    endpoint: str
    access_key: str
    secret_key: str
    claim: Claim

    @staticmethod
    def start(directory: Path, *, address: str = "127.0.0.1", with_owner: bool = True) -> S3Server:
        """Start a server that keeps everything in ``directory`` and wait until it answers.

        Args:
            directory: made if missing; needs a file system with extended attributes.
            address: where it listens; ``Cluster.host_address`` for Pods to reach it.
            with_owner: it is killed when the calling thread ends, however it ends.

        Raises:
            DevError: it cannot be built or does not start; the message names its log.
        """
        binary = ensure("versitygw")
        directory = directory.absolute()
        data = directory / "data"
        data.mkdir(parents=True, exist_ok=True)
        processes.stop(directory / "pids" / "versitygw", grace=0.0)
        ports = claim(1)
        port = ports.ports[0]
        access_key, secret_key = "mooring-dev", secrets.token_hex(16)
        # On loopback as well: that is where this process talks to it.
        listen = [f"127.0.0.1:{port}"] + ([f"{address}:{port}"] if address != "127.0.0.1" else [])
        command = (str(binary), *(f"--port={each}" for each in listen), "--region", REGION)
        program = Program(
            "versitygw",
            (*command, "--quiet", "posix", str(data)),
            directory,
            with_owner=with_owner,
            # Not as arguments: those can be read by everybody on the machine.
            environment=(
                ("ROOT_ACCESS_KEY_ID", access_key),
                ("ROOT_SECRET_ACCESS_KEY", secret_key),
            ),
        )
        server = S3Server(directory, f"http://{address}:{port}", access_key, secret_key, ports)
        try:
            processes.start(program)
            wait_until(
                f"the S3 server answers (log: {program.log})",
                lambda: _listens(port) and not is_free(port, address),
                timeout=_READY_SECONDS,
                check=lambda: processes.require_alive(program),
            )
        except BaseException:
            server.stop()
            raise
        return server

    @property
    def environment(self) -> dict[str, str]:
        """Keys of a Secret, or variables, by which an S3 client finds this server."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": REGION,
        }

    def put(self, bucket: str, key: str, content: bytes) -> str:
        """Store ``content``, making the bucket if there is none; return its ``s3://`` URI."""
        if self._request("HEAD", f"/{bucket}")[0] == http.client.NOT_FOUND:
            self._expect_ok("PUT", f"/{bucket}")
        self._expect_ok("PUT", f"/{bucket}/{key}", content)
        return f"s3://{bucket}/{key}"

    def put_tree(self, bucket: str, prefix: str, folder: Path) -> str:
        """Store every file under ``folder``; return the ``s3://`` URI of ``prefix``."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                key = f"{prefix.rstrip('/')}/{path.relative_to(folder)}"
                self.put(bucket, key, path.read_bytes())
        return f"s3://{bucket}/{prefix}"

    def get(self, bucket: str, key: str) -> bytes:
        """What is stored under ``key``."""
        return self._expect_ok("GET", f"/{bucket}/{key}")

    def delete(self, bucket: str, key: str) -> None:
        """Remove ``key``, so that fetching it fails."""
        self._expect_ok("DELETE", f"/{bucket}/{key}")

    def stop(self) -> None:
        """Stop the server; what it stored stays in the folder."""
        processes.stop(self.directory / "pids" / "versitygw", grace=1.0)
        self.claim.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _expect_ok(self, method: str, path: str, body: bytes = b"") -> bytes:
        status, answer = self._request(method, path, body)
        if status >= http.client.MULTIPLE_CHOICES:
            shown = answer.decode(errors="replace")[:500]
            raise DevError(f"S3: {method} {path} was answered by {status}: {shown}")
        return answer

    def _request(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        port = urlsplit(self.endpoint).port
        encoded = quote(path, safe="/-_.~")
        now = dt.datetime.now(dt.UTC)
        headers = self._signed(method, encoded, f"127.0.0.1:{port}", body, now)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_SECONDS)
        try:
            connection.request(method, encoded, body=body or None, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _signed(
        self, method: str, path: str, host: str, body: bytes, now: dt.datetime
    ) -> dict[str, str]:
        """Headers of a request without query, by AWS Signature Version 4."""
        stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
        digest = hashlib.sha256(body).hexdigest()
        signed = {"host": host, "x-amz-content-sha256": digest, "x-amz-date": stamp}
        names = ";".join(signed)
        lines = "".join(f"{name}:{value}\n" for name, value in signed.items())
        canonical = f"{method}\n{path}\n\n{lines}\n{names}\n{digest}"
        scope = f"{day}/{REGION}/s3/aws4_request"
        hashed = hashlib.sha256(canonical.encode()).hexdigest()
        to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashed}"
        key = f"AWS4{self.secret_key}".encode()
        for part in (day, REGION, "s3", "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
        credential = f"{self.access_key}/{scope}"
        authorization = (
            f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, "
            f"Signature={signature}"
        )
        return {**signed, "authorization": authorization, "content-length": str(len(body))}


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True
