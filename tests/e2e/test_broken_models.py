"""A model that cannot be served is never Ready, and status repeats who said why."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from mooring_dev.binaries import ensure
from mooring_dev.demo_model import RESOURCE, Model, condition, is_true, read_manifests
from mooring_dev.demo_store import example_file

Named = Callable[[str], Model]


@dataclass(frozen=True)
class Broken:
    """A file of examples/broken-model and what its status has to say."""

    name: str
    reason: str
    words: tuple[str, ...]
    stalled: bool
    """Whether waiting is known to be in vain, so that Stalled is true before any deadline."""


CASES = (
    Broken("missing-object", "FetchFailed", ("s3://models/fraud/v9/model.onnx",), stalled=True),
    Broken("wrong-digest", "FetchFailed", ("sha256:0000", "digest"), stalled=True),
    Broken("corrupt-model", "ServerFailed", ("model.onnx", "not an ONNX model"), stalled=False),
    Broken("crash", "ServerFailed", ("--no-such-option",), stalled=False),
)


@contextmanager
def _every_ready_status(model: Model, file: Path) -> Iterator[None]:
    """Write the status of Ready to ``file``, a line for each time that the object changed."""
    path = '-o=jsonpath={.status.conditions[?(@.type=="Ready")].status}{"\\n"}'
    command = [str(ensure("kubectl")), f"--kubeconfig={model.cluster.kubeconfig}", "get", RESOURCE]
    with file.open("w") as output:
        watch = subprocess.Popen(
            [*command, model.name, "--namespace", model.namespace, "--watch", path], stdout=output
        )
        try:
            yield
        finally:
            watch.terminate()
            watch.wait()


@pytest.mark.parametrize("broken", CASES, ids=lambda broken: broken.name)
def test_a_broken_model_is_never_ready_and_its_last_words_are_in_status(
    broken: Broken, model: Named, tmp_path: Path
) -> None:
    deployment = model(broken.name)
    deployment.apply(read_manifests(example_file("broken-model", f"{broken.name}.yaml"))[0])

    with _every_ready_status(deployment, tmp_path / "ready"):
        status = deployment.wait(
            "last words",
            lambda status: (
                condition(status, "Ready").get("reason") == broken.reason
                and (is_true(status, "Stalled") or not broken.stalled)
            ),
        )

    seen = (tmp_path / "ready").read_text().split()
    assert "True" not in seen
    assert condition(status, "Ready")["status"] == "False"
    for word in broken.words:
        assert word in condition(status, "Ready")["message"]
    if broken.stalled:
        assert condition(status, "Stalled")["reason"] == broken.reason
        assert broken.words[0] in status["message"]


def test_a_crashing_model_stalls_when_its_deadline_is_over(model: Named) -> None:
    crash = model("crash")
    manifest = read_manifests(example_file("broken-model", "crash.yaml"))[0]
    manifest["spec"]["rollout"] = {"progressDeadline": "10s"}
    crash.apply(manifest)

    # On a busy machine the server has not ended yet when the deadline is over.
    said = crash.wait(
        "what the server said",
        lambda status: "--no-such-option" in condition(status, "Stalled").get("message", ""),
    )
    assert condition(said, "Stalled")["reason"] == "ProgressDeadlineExceeded"


def test_a_missing_secret_is_named_and_the_model_serves_once_it_is_there(
    model: Named,
) -> None:
    fraud = model("fraud")
    manifest = read_manifests(example_file("onnx", "modeldeployment.yaml"))[0]
    manifest["spec"]["model"]["credentials"]["secretName"] = "another"
    fraud.apply(manifest)

    stalled = fraud.wait_condition("Stalled")
    assert stalled["reason"] == "FetchFailed"
    assert "Secret another" in stalled["message"]

    secret = fraud.kubectl("get", "secret", "model-store", "-o", "json")
    fraud.cluster.kubectl("apply", "-f", "-", input=secret.replace('"model-store"', '"another"'))
    fraud.wait_ready(seconds=180)


def test_an_unknown_runtime_stalls_with_the_names_that_there_are(model: Named) -> None:
    fraud = model("fraud")
    manifest = read_manifests(example_file("onnx", "modeldeployment.yaml"))[0]
    manifest["spec"]["runtime"] = {"name": "onyx"}
    fraud.apply(manifest)

    stalled = fraud.wait_condition("Stalled")

    assert "onyx" in stalled["message"]
    assert "onnx" in stalled["message"].replace("onyx", "")
