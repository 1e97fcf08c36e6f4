"""The command line against a real kube-apiserver: its words, its watches and its refusals.

The program runs as a process of its own, as people run it. Nobody but the tests writes status here,
except in the test that runs an operator.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.cli.objects import CANDIDATE, REJECTED, STABLE, rolling_out, serving

from mooring_dev.control_plane import ControlPlane
from mooring_dev.health import wait_until

pytestmark = pytest.mark.apiserver

OPERATOR = Path(__file__).parents[2] / "operator"
MDEP = "modeldeployments.mooring.dev"
_numbers = itertools.count(1)


@dataclass
class Mooring:
    """The program as one user in one namespace; ``close`` ends what still runs."""

    plane: ControlPlane
    kubeconfig: Path
    namespace: str
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def __call__(self, *arguments: str) -> tuple[int, str]:
        """Exit code and everything printed."""
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=60)
        assert "Traceback" not in output
        return process.returncode, output

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "mooring", *arguments, "-n", self.namespace],
            env={**os.environ, "PYTHONPATH": str(OPERATOR), "KUBECONFIG": str(self.kubeconfig)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.started.append(process)
        return process

    def as_user(self, kubeconfig: Path, namespace: str = "") -> Mooring:
        return Mooring(self.plane, kubeconfig, namespace or self.namespace, self.started)

    def close(self) -> None:
        for process in self.started:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

    def apply(self, name: str = "fraud", uri: str = "s3://models/fraud/v8") -> None:
        body = {
            "apiVersion": "mooring.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": name},
            "spec": {"model": {"uri": uri}, "runtime": {"name": "onnx"}},
        }
        path = self.kubeconfig.parent / f"{self.namespace}-{name}.json"
        path.write_text(json.dumps(body))
        self.plane.kubectl("apply", "-n", self.namespace, "-f", str(path))

    def write(self, status: dict[str, Any], name: str = "fraud") -> None:
        """Plays the operator: a status of the spec as it is now."""
        generation = self.read(name)["metadata"]["generation"]
        status = {**status, "observedGeneration": generation}
        self.plane.kubectl(
            "patch", MDEP, name, "-n", self.namespace, "--subresource=status", "--type=json",
            "-p", json.dumps([{"op": "add", "path": "/status", "value": status}]),
        )  # fmt: skip

    def read(self, name: str = "fraud") -> dict[str, Any]:
        text = self.plane.kubectl("get", MDEP, name, "-n", self.namespace, "-o", "json",
                                  "--show-managed-fields")  # fmt: skip
        return dict(json.loads(text))


@pytest.fixture
def mooring(control_plane_with_crds: ControlPlane) -> Iterator[Mooring]:
    """A namespace with one ModelDeployment in the middle of a rollout."""
    plane = control_plane_with_crds
    namespace = f"cli-{next(_numbers)}"
    plane.kubectl("create", "namespace", namespace)
    found = Mooring(plane, plane.kubeconfig, namespace)
    found.apply()
    found.write(rolling_out())
    yield found
    found.close()


def test_everything_that_status_may_hold_is_shown(mooring: Mooring) -> None:
    code, output = mooring("get", "fraud")
    assert code == 0
    for words in (
        f"stable {STABLE}  weight 75 % (measured 76 %)  3/3 pods ready",
        f"candidate {CANDIDATE}  weight 25 % (measured 24 %)",
        "rollout Waiting  step 2 of 6: weight 25 for 20m",
        "waits for: the step's time to be over",
        "next: step 3: weight 50 for 30m",
        "router envoy  2/2 ready  routes 7f3c2a taken",
        f"rejected {REJECTED}",
    ):
        assert words in output
    assert "fraud  RollingOut" in mooring("list")[1]


@contextmanager
def operator_that_answers(mooring: Mooring, result: str) -> Iterator[None]:
    """Answers to the first verb that it sees."""

    def answer() -> None:
        def action() -> str:
            annotations = mooring.read()["metadata"].get("annotations") or {}
            return str(annotations.get("mooring.dev/action") or "")

        wait_until("a verb", lambda: bool(action()), timeout=30.0, check=lambda: None)
        verb, revision, token = action().split("/")
        last = {"verb": verb, "revision": revision, "token": token, "result": result,
                "message": "so it is"}  # fmt: skip
        mooring.write({**rolling_out(), "lastAction": last})

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield
    finally:
        thread.join()


@pytest.mark.parametrize(("result", "code"), [("Accepted", 0), ("Refused", 1)])
def test_a_verb_waits_for_its_own_answer(mooring: Mooring, result: str, code: int) -> None:
    before = mooring.read()
    with operator_that_answers(mooring, result):
        found = mooring("promote", "fraud", "--timeout", "30s")
    assert found == (code, f"{result}: promote {CANDIDATE}: so it is\n")
    after = mooring.read()
    assert after["spec"] == before["spec"]
    managers = {m["manager"] for m in after["metadata"]["managedFields"]}
    assert "mooring-cli" in managers


def test_a_pipeline_waits_for_the_spec_that_it_applied(mooring: Mooring) -> None:
    mooring.write(serving())
    assert mooring("status", "fraud", "--timeout", "30s")[0] == 0
    mooring.apply(uri="s3://models/fraud/v9")
    code, output = mooring("status", "fraud", "--timeout", "0s")
    assert code == 3
    assert "has not looked at the newest spec" in output
    waiting = mooring.start("status", "fraud", "--timeout", "30s")
    mooring.write(serving())
    output, _ = waiting.communicate(timeout=60)
    assert (waiting.returncode, output.splitlines()[-1]) == (
        0,
        f"rolled out: revision {STABLE} serves s3://models/fraud/v7",
    )


def test_a_user_without_rights_is_told_which_one_is_missing(
    mooring: Mooring, control_plane_with_crds: ControlPlane
) -> None:
    poor = mooring.as_user(control_plane_with_crds.client("nobody"))
    code, output = poor("get", "fraud")
    assert code == 6
    assert "you may not get modeldeployments here" in output
    assert 'User "nobody" cannot get resource "modeldeployments"' in output
    assert poor("explain", "fraud")[0] == poor("abort", "fraud")[0] == 6


def test_a_reader_of_modeldeployments_alone_sees_all_but_pods(
    mooring: Mooring, control_plane_with_crds: ControlPlane
) -> None:
    plane, namespace = control_plane_with_crds, mooring.namespace
    plane.kubectl("create", "role", "reader", "-n", namespace, "--verb=get,list,watch",
                  f"--resource={MDEP}")  # fmt: skip
    plane.kubectl("create", "rolebinding", "reader", "-n", namespace, "--role=reader",
                  "--user=reader")  # fmt: skip
    reader = mooring.as_user(plane.client("reader"))
    code, output = reader("get", "fraud")
    assert code == 0
    assert f"candidate {CANDIDATE}" in output
    assert "pods are not shown: you may not list pods here" in output
    code, output = reader("promote", "fraud")
    assert code == 6
    assert "you may not patch modeldeployments here" in output


def test_a_misspelt_name_and_a_wrong_namespace_get_a_hint(mooring: Mooring) -> None:
    code, output = mooring("get", "fruad")
    assert code == 7
    assert output.endswith(f"in namespace {mooring.namespace}: did you mean fraud?\n")
    mooring.apply("only-here")
    code, output = mooring.as_user(mooring.kubeconfig, "default")("get", "only-here")
    assert code == 7
    assert output.endswith(f"in namespace default; there is one in {mooring.namespace}: use -n\n")


def test_a_cluster_without_the_kinds_is_told_from_a_missing_object(tmp_path: Path) -> None:
    with ControlPlane.start(tmp_path / "bare") as bare:
        mooring = Mooring(bare, bare.kubeconfig, "default")
        code, output = mooring("get", "fraud")
        assert code == 8
        assert "Mooring is not installed in this cluster" in output
        code, output = mooring("version", "-o", "json")
        mooring.close()
        assert json.loads(output)["cluster"]["installed"] is False


class Wire:
    """Passes bytes between a client and the API server, until it is cut."""

    def __init__(self, server: str) -> None:
        host, _, port = server.removeprefix("https://").partition(":")
        self._address = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._whole = True
        #: A connection that comes while all are cut is seen by one of the two.
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._listener.getsockname()[1]}"

    def cut(self) -> None:
        """Ends every connection, and lets none come about."""
        with self._lock:
            self._whole = False
            for end in self._open:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self._whole = True

    def close(self) -> None:
        self.cut()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for end in (*self._open, self._listener):
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._open.append(client)
                if not self._whole:
                    client.shutdown(socket.SHUT_RDWR)
                    continue
                server = socket.create_connection(self._address)
                self._open.append(server)
            for pair in ((client, server), (server, client)):
                thread = threading.Thread(target=self._copy, args=pair)
                self._threads.append(thread)
                thread.start()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def wire(mooring: Mooring) -> Iterator[Wire]:
    found = Wire(mooring.plane.server)
    yield found
    found.close()


def test_a_watch_outlives_its_connection(mooring: Mooring, wire: Wire, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(mooring.kubeconfig.read_text().replace(mooring.plane.server, wire.url))
    far = mooring.as_user(kubeconfig)
    watching, waiting = far.start("get", "fraud", "-w"), far.start("status", "fraud")
    assert watching.stdout is not None
    assert waiting.stdout is not None
    for first in (watching.stdout.readline(), waiting.stdout.readline()):
        assert "RollingOut; " in first
    wire.cut()
    assert "connection lost: the API server" in watching.stdout.readline()
    assert waiting.stdout.readline().startswith("connection lost, trying again: ")
    mooring.write(serving())  # while nobody is connected
    wire.mend()
    output, _ = waiting.communicate(timeout=60)
    assert waiting.returncode == 0
    assert output.splitlines()[-1].startswith("rolled out: ")
    while "Serving; " not in (line := watching.stdout.readline()):
        assert line, "the watch ended"
    watching.send_signal(signal.SIGINT)
    output, _ = watching.communicate(timeout=60)
    assert (watching.returncode, "Traceback" in output) == (0, False)


def test_what_happens_meanwhile_is_printed_once(mooring: Mooring) -> None:
    watching = mooring.start("get", "fraud", "-w", "-o", "json")
    assert watching.stdout is not None
    assert json.loads(watching.stdout.readline())["status"]["phase"] == "RollingOut"
    mooring.write({**rolling_out(), "phase": "Paused"})
    while json.loads(watching.stdout.readline())["status"]["phase"] != "Paused":
        pass
    mooring.plane.kubectl("delete", MDEP, "fraud", "-n", mooring.namespace)
    output, _ = watching.communicate(timeout=60)
    assert watching.returncode == 7
    assert output.endswith("Error: ModelDeployment fraud was deleted\n")
