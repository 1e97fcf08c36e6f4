"""The whole loop on a real cluster: the data shifts, a Job makes the model anew, and it is adopted.

Everything is real: a model of scikit-learn's breast cancer data, the program and the PodTemplate of
examples/retrain-with-job, the S3 server, Prometheus, and an operator that is killed in between.
Three deployments live through the same minutes: one whose data shifts for good, one whose feed
breaks, one to which nothing happens. Windows are a minute long, the shortest there is, and four of
them pass; so it is run by `make test-slow`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mooring_dev import demo_chart, demo_samples, images
from mooring_dev.cluster import Cluster
from mooring_dev.demo_client import Client, service_url
from mooring_dev.demo_model import Model, condition, is_true, read_manifests
from mooring_dev.demo_samples import Asking, day
from mooring_dev.demo_store import BUCKET, example_file
from mooring_dev.s3 import S3Server

pytestmark = pytest.mark.slow

Named = Callable[[str], Model]
Status = dict[str, Any]
#: Two windows, the one that is under way, and a busy machine (seconds).
WINDOWS = 300.0
#: How much larger cells look under the new microscope.
MAGNIFICATION = 1.3
#: What grows with it.
LENGTHS = {"mean_radius", "mean_perimeter", "worst_radius", "worst_perimeter"}
AREAS = {"mean_area", "worst_area"}
STEPS = [{"weight": 50, "duration": "5s"}]


@pytest.fixture(scope="module")
def trainer(cluster: Cluster) -> str:
    """The example's image, built from its Dockerfile."""
    (built,) = images.load(cluster, ["screening-train"])
    return built.reference


@pytest.fixture
def first_model(
    measured: Cluster, store: S3Server, namespace: str, trainer: str, tmp_path: Path
) -> bytes:
    """The first model, with its reference and the template of the Job that makes others."""
    _, content = demo_samples.publish_first(store)
    template = read_manifests(example_file(demo_samples.FOLDER, "podtemplate.yaml"))[0]
    template["template"]["spec"]["containers"][0]["image"] = trainer
    for text in (demo_samples.reference(content, tmp_path), json.dumps(template)):
        measured.kubectl("apply", "--server-side", "-n", namespace, "-f", "-", input=text)
    return content


def declare(model: Model) -> None:
    """The example's manifest, with minutes for its hours."""
    manifest = read_manifests(example_file(demo_samples.FOLDER, "modeldeployment.yaml"))[0]
    spec = manifest["spec"]
    spec["model"]["name"] = demo_samples.NAME
    spec["replicas"] = 1
    spec["rollout"] = {"steps": STEPS}
    spec["monitoring"]["window"] = "1m"
    # There are 130,000 windows in a quarter of minutes: one of 130 may alarm for nothing.
    spec["monitoring"]["drift"] = {"falseAlarmsPerQuarter": 1000}
    spec["retraining"] |= {
        "triggers": [{"drift": {}}],
        "minDataWindow": "1m",
        "cooldown": "1m",
        "deadline": "10m",
    }
    model.apply(manifest)


def drift(status: Status) -> Status:
    found: Status = status.get("drift") or {}
    return found


def items(model: Model, what: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(model.kubectl("get", what, "-o", "json"))["items"]
    return found


def spec_of(model: Model) -> Status:
    found: Status = json.loads(model.kubectl("get", "mdep", model.name, "-o", "json"))["spec"]
    return found


def requests_of(model: Model) -> list[dict[str, Any]]:
    return [r for r in items(model, "retrainingrequests")
            if r["spec"]["deploymentRef"]["name"] == model.name]  # fmt: skip


def kill_operator(cluster: Cluster) -> None:
    """At once, as when its node is lost: it does not hand its lease over."""
    where = ("-n", demo_chart.NAMESPACE, "-l", "app.kubernetes.io/name=mooring-operator")
    cluster.kubectl("delete", "pod", *where, "--force", "--grace-period=0")


def accuracy(model: bytes, samples: Any) -> float:
    """The share of ``samples`` that ``model`` tells right."""
    from onnxruntime import InferenceSession  # type: ignore[import-untyped]

    rows = {demo_samples.TENSOR: samples.measured.astype(np.float32)}
    (labels,) = InferenceSession(model).run(["label"], rows)
    return float((labels == samples.malignant).mean())


def test_a_lasting_shift_is_retrained_once_while_broken_and_steady_data_are_not(
    measured: Cluster, first_model: bytes, model: Named, client: Client, store: S3Server
) -> None:
    shifting, broken, calm = model("screening"), model("broken-feed"), model("calm")
    for one in (shifting, broken, calm):
        declare(one)
    for one in (shifting, broken, calm):
        one.wait_ready(seconds=180)
    begin = time.monotonic()

    def told(what: str) -> None:
        print(f"{time.monotonic() - begin:6.1f} s  {what}")

    spec = spec_of(shifting)
    with ExitStack() as running:

        def asking(of: Model, labels: S3Server | None = None) -> Asking:
            url = service_url(of.name, of.namespace, demo_samples.NAME)
            return running.enter_context(Asking(client, url, day(1), labels))

        shifted, fed, same = asking(shifting, store), asking(broken), asking(calm)
        shifting.wait("a steady window", lambda s: drift(s).get("state") == "Steady",
                      seconds=WINDOWS)  # fmt: skip
        told("steady")
        shifted.become(day(2, magnification=MAGNIFICATION))
        fed.become(day(3, lose=0.5))

        status = shifting.wait("drift", lambda s: is_true(s, "Drifted"), seconds=WINDOWS)
        told(condition(status, "Drifted")["message"])
        kill_operator(measured)
        shifting.wait("a request", lambda _: bool(requests_of(shifting)), seconds=WINDOWS)
        told("asked for")
        shifting.wait("a candidate", lambda s: "candidate" in s, seconds=WINDOWS)
        told("a candidate")
        kill_operator(measured)
        status = shifting.wait(
            "the retrained model",
            lambda s: "/retrained/" in s["stable"]["modelUri"] and is_true(s, "Ready"),
            seconds=WINDOWS,
        )
        told("promoted")
        uri = status["stable"]["modelUri"]
        status = shifting.wait(
            "the alarm's end",
            lambda s: not is_true(s, "Drifted") and drift(s).get("state") == "Steady",
            seconds=WINDOWS,
        )
        told("steady again")

        (request,) = requests_of(shifting)
        evidence = {one["feature"] for one in request["spec"]["evidence"]}
        named = {name for name in evidence if not name.startswith("malignant")}
        assert LENGTHS | AREAS >= named >= {"mean_radius", "worst_radius", "mean_area"}, named
        (job,) = items(shifting, "jobs")
        assert job["status"]["succeeded"] == 1
        assert not job["status"].get("failed")
        assert uri == request["status"]["result"]["uri"]
        retrained = store.get(BUCKET, uri.removeprefix(f"s3://{BUCKET}/"))
        today = day(4, magnification=MAGNIFICATION)
        assert accuracy(first_model, today) < 0.9
        assert accuracy(retrained, today) > 0.93
        assert spec_of(shifting) == spec

        for one in (broken, calm):
            status = one.status()
            assert not is_true(status, "Drifted"), condition(status, "Drifted")
            assert requests_of(one) == []
        assert is_true(calm.status(), "DataHealthy")
        health = condition(broken.status(), "DataHealthy")
        assert health["status"] == "False"
        assert "mean_area" in health["message"]
    for stream in (shifted, fed, same):
        assert stream.failed == 0, stream.failures
