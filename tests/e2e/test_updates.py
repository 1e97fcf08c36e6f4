"""Replacing a model under a constant stream of requests, which never notices."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import pytest

from mooring_dev.demo_client import Client, service_url
from mooring_dev.demo_model import Model, condition, is_true, read_manifests
from mooring_dev.demo_store import example, example_file, expected

Named = Callable[[str], Model]


@pytest.fixture
def fraud(model: Named, uris: dict[str, str]) -> Model:
    """The example, serving v1."""
    deployment = model("fraud")
    manifest = read_manifests(example_file("onnx", "modeldeployment.yaml"))[0]
    manifest["spec"]["rollout"] = {"progressDeadline": "15s"}
    deployment.apply(manifest)
    deployment.wait_serving(uris["v1"])
    return deployment


def _point_to(model: Model, uri: str) -> None:
    model.patch({"spec": {"model": {"uri": uri}}})


def _versions(answers: Mapping[str, int]) -> list[str]:
    """Which models gave the answers, in the order in which they first did."""
    return [
        version
        for answer in answers
        for version in ("v1", "v2")
        if json.loads(answer)[0] == pytest.approx(expected(version, example().PAYMENTS), abs=1e-6)
    ]


def test_a_new_model_takes_over_without_one_failing_request(
    fraud: Model, client: Client, uris: dict[str, str]
) -> None:
    url = service_url("fraud", fraud.namespace)
    old = fraud.status()["stable"]["revision"]

    with client.stream(url, example().request()) as stream:
        _point_to(fraud, uris["v2"])
        status = fraud.wait_serving(uris["v2"])
        # The old pods end only after traffic has left them: the stream goes on until they have.
        fraud.kubectl("wait", "--for=delete", "pods", "-l", f"mooring.dev/revision={old}")

    assert stream.result.failures == ()
    assert stream.result.failed == 0
    assert _versions(stream.result.answers) == ["v1", "v2"]
    assert status["stable"]["revision"] != old


def test_a_bad_update_leaves_the_old_model_serving_and_is_rejected_at_its_deadline(
    fraud: Model, client: Client, uris: dict[str, str]
) -> None:
    before = fraud.status()["stable"]

    with client.stream(service_url("fraud", fraud.namespace), example().request()) as stream:
        _point_to(fraud, uris["corrupt"])
        status = fraud.wait(
            "a rejected revision",
            lambda status: is_true(status, "Stalled") and bool(status.get("rejectedRevisions")),
        )

    assert stream.result.failures == ()
    assert _versions(stream.result.answers) == ["v1"]
    assert condition(status, "Stalled")["reason"] == "RevisionRejected"
    assert "not an ONNX model" in status["rejectedRevisions"][0]["message"]
    assert status["stable"]["revision"] == before["revision"]
    assert status["stable"]["replicas"] == {"desired": 2, "ready": 2}
    # Rejected, it holds no pods.
    rejected = status["rejectedRevisions"][0]["revision"]
    selector = f"mooring.dev/revision={rejected}"
    fraud.kubectl("wait", "--for=delete", "pods", "-l", selector, "--timeout=60s")


def test_the_old_spec_again_drops_the_candidate_and_a_good_one_takes_over(
    fraud: Model, uris: dict[str, str]
) -> None:
    before = fraud.status()["stable"]["revision"]
    _point_to(fraud, uris["corrupt"])
    fraud.wait("a candidate", lambda status: "candidate" in status)

    _point_to(fraud, uris["v1"])
    status = fraud.wait_ready()
    assert status["stable"]["revision"] == before
    assert "candidate" not in status

    _point_to(fraud, uris["v2"])
    assert fraud.wait_serving(uris["v2"])["stable"]["revision"] != before


def test_scaling_restarts_no_pod_and_makes_no_revision(fraud: Model) -> None:
    revision = fraud.status()["stable"]["revision"]
    before = set(fraud.kubectl("get", "pods", "-o", "name").split())

    fraud.kubectl("scale", "mdep/fraud", "--replicas=3")
    status = fraud.wait(
        "three pods", lambda status: status["stable"]["replicas"] == {"desired": 3, "ready": 3}
    )

    assert status["stable"]["revision"] == revision
    assert set(fraud.kubectl("get", "pods", "-o", "name").split()) > before
