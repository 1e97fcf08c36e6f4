"""A pod that asks models for predictions from inside the cluster, as an application would.

From inside, because a port-forward is bound to one pod and would hide what a Service does when the
pods behind it change.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mooring_dev.binaries import ensure
from mooring_dev.cluster import Cluster
from mooring_dev.errors import DevError

NAME = "client"
_PROGRAM = Path(__file__).with_name("demo_client_program.py")
_PATH = "/client/program.py"
_READY_TIMEOUT = "60s"
_END_SECONDS = 30.0
#: kubectl's WebSockets never recover from a ping that comes late, and on a busy machine one does:
#: then the end of the input does not arrive. SPDY knows no pings.
_EXEC_ENVIRONMENT = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false"}


@dataclass(frozen=True)
class StreamResult:
    """What became of a constant stream of requests.

    ``answers`` counts each distinct answer (its outputs, as JSON); ``failures`` are the first few.
    """

    sent: int
    failed: int
    failures: tuple[str, ...]
    answers: Mapping[str, int]
    slowest_seconds: float
    seconds: float


class Stream:
    """Requests that go on while the block runs; ``result`` is there after it."""

    def __init__(self, begin: Callable[[], subprocess.Popen[str]], body: Mapping[str, Any]) -> None:
        self._begin = begin
        self._body = body
        self._process: subprocess.Popen[str]
        self._result: StreamResult | None = None

    @property
    def result(self) -> StreamResult:
        """Counts of the whole stream; raises RuntimeError inside the block."""
        if self._result is None:
            raise RuntimeError("the stream has not ended")
        return self._result

    def __enter__(self) -> Self:
        """Begin, and return when the first answer (or failure) is there."""
        self._process = self._begin()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(self._body) + "\n")
        self._process.stdin.flush()
        if self._process.stdout.readline().strip() != "started":
            _, errors = self._process.communicate()
            raise DevError(f"The stream of requests did not start: {errors.strip()}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the stream; its process is gone after this, whatever happened."""
        try:
            output, errors = self._process.communicate(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            if error is None:
                raise DevError("The stream of requests did not end.") from None
            return
        if error is not None:
            return
        if self._process.returncode != 0:
            raise DevError(f"The stream of requests broke off: {errors.strip()}")
        counts = json.loads(output.strip().splitlines()[-1])
        counts["failures"] = tuple(counts["failures"])
        self._result = StreamResult(**counts)


@dataclass(frozen=True)
class Client:
    """The pod, once it runs."""

    cluster: Cluster
    namespace: str

    @staticmethod
    def start(cluster: Cluster, namespace: str, image: str) -> Client:
        """Start the pod (``image`` needs no more than Python) and wait until it runs."""
        objects = [_config_map(namespace), _pod(namespace, image)]
        text = "\n---\n".join(json.dumps(each) for each in objects)
        cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=text)
        ready = ("wait", "--for=condition=Ready", f"pod/{NAME}", "-n", namespace)
        cluster.kubectl(*ready, f"--timeout={_READY_TIMEOUT}")
        return Client(cluster, namespace)

    def infer(
        self, url: str, body: Mapping[str, Any], *, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """The answer to one request.

        Raises:
            DevError: the answer was not 200, or there was none.
        """
        code, text = self.post(url, body, headers=headers)
        if code != 200:
            raise DevError(f"{url} answered {code}: {text}")
        answer: dict[str, Any] = json.loads(text)
        return answer

    def post(
        self, url: str, body: Mapping[str, Any], *, headers: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        """Status code and text of the answer to one request."""
        program = ("python", _PATH, "infer", url, json.dumps(dict(headers or {})))
        arguments = ("exec", "-i", "-n", self.namespace, NAME, "--", *program)
        answer = json.loads(self.cluster.kubectl(*arguments, input=json.dumps(body)))
        return int(answer["code"]), str(answer["body"])

    def stream(self, url: str, body: Mapping[str, Any], *, pause: float = 0.02) -> Stream:
        """The same request over and over, ``pause`` seconds apart, for as long as a block runs."""
        arguments = ("stream", url, str(pause))
        return Stream(lambda: self.begin(_PATH, *arguments, stderr=subprocess.PIPE), body)

    def begin(self, *arguments: str, stderr: int | None = None) -> subprocess.Popen[str]:
        """Python with these arguments in the pod, its standard input and output at hand.

        A program is told by the end of its input that it shall end. Where ``stderr`` is not given,
        what it complains of goes where ours goes.
        """
        kubectl = [str(ensure("kubectl")), f"--kubeconfig={self.cluster.kubeconfig}"]
        return subprocess.Popen(
            [*kubectl, "exec", "-i", "-n", self.namespace, NAME, "--", "python", *arguments],
            env={**os.environ, **_EXEC_ENVIRONMENT},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )


def service_url(name: str, namespace: str, model: str | None = None) -> str:
    """Where the public Service of a ModelDeployment takes predictions."""
    return f"http://{name}.{namespace}.svc/v2/models/{model or name}/infer"


def _config_map(namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": NAME, "namespace": namespace},
        "data": {"program.py": _PROGRAM.read_text()},
    }


def _pod(namespace: str, image: str) -> dict[str, Any]:
    container = {
        "name": "client",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-c", "import signal; signal.pause()"],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [{"name": "program", "mountPath": "/client", "readOnly": True}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": NAME, "namespace": namespace},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [{"name": "program", "configMap": {"name": NAME}}],
        },
    }
