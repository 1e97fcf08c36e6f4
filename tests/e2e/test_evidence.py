"""Rollouts decided by a real Prometheus: bad candidates go back by themselves, good ones on.

The model server is one that misbehaves on demand (``faulty/server.py``). Scrapes and looks are
five seconds apart; requests come at a constant rate, whatever becomes of them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.e2e.requests import PROGRAMS, Requests, steady

from mooring_dev.cluster import Cluster
from mooring_dev.demo_client import Client
from mooring_dev.demo_model import Model, condition, is_true
from mooring_dev.images import Built

Named = Callable[[str], Model]
Status = dict[str, Any]
#: A candidate's share of the requests (percent).
WEIGHT = 10
#: From a candidate's first failure to its weight of 0 (seconds).
CAUGHT_WITHIN = 45.0
ERRORS = {"name": "errors", "errorRate": {"maxRatio": 1.5, "max": 0.02}}
LATENCY = {"name": "latency", "latency": {"quantile": 0.95, "max": "500ms"}}
SLOWER = {"name": "slower", "latency": {"quantile": 0.95, "maxRatio": 1.3}}


@pytest.fixture
def faulty(measured: Cluster, model: Named, built: tuple[Built, ...]) -> Callable[..., Model]:
    """A model called fraud that serves without a fault, with an analysis of its own."""
    image = next(one for one in built if one.image.name == "onnx-server").reference

    def serving(metrics: list[dict[str, Any]], **rollout: Any) -> Model:
        deployment = model("fraud")
        runtime = json.dumps(_runtime(image))
        measured.kubectl("apply", "-n", deployment.namespace, "-f", "-", input=runtime)
        deployment.apply(_deployment(metrics, rollout))
        deployment.wait_ready()
        return deployment

    return serving


def _runtime(image: str) -> dict[str, Any]:
    name, _, version = image.rpartition(":")
    return {
        "apiVersion": "mooring.dev/v1alpha1",
        "kind": "ModelRuntime",
        "metadata": {"name": "faulty"},
        "spec": {
            "formats": [{"name": "faulty"}],
            "protocols": ["custom"],
            "image": f"{name}:{{{{ runtime.version }}}}",
            "version": version,
            "command": ["python", "/etc/faulty/server.py"],
            "config": [
                {"path": "/etc/faulty/server.py", "content": (PROGRAMS / "server.py").read_text()}
            ],
            "ports": [
                {"name": "http", "containerPort": 8080},
                {"name": "grpc", "containerPort": 9000, "appProtocol": "grpc"},
            ],
            "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1},
            "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
        },
    }


def _deployment(metrics: list[dict[str, Any]], rollout: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "mooring.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "fraud"},
        "spec": {
            "model": {"uri": "file:///etc/hostname", "format": {"name": "faulty"}},
            "runtime": {"name": "faulty", "env": _fault("none", 0)},
            "replicas": 2,
            "rollout": {
                "progressDeadline": "2m",
                "steps": [
                    {"weight": WEIGHT, "duration": "30s"},
                    {"weight": 50, "duration": "30s"},
                ],
                **rollout,
            },
            "analysis": {"metrics": metrics},
        },
    }


def _fault(text: str, turn: int) -> list[dict[str, str]]:
    return [{"name": "FAULT", "value": text}, {"name": "TURN", "value": str(turn)}]


def change_to(model: Model, fault: str, turn: int = 1) -> None:
    model.patch({"spec": {"runtime": {"env": _fault(fault, turn)}}})


def http_url(model: Model) -> str:
    return f"http://fraud.{model.namespace}.svc/predict"


def grpc_url(model: Model) -> str:
    return f"grpc://fraud.{model.namespace}.svc:9000"


def taken_back(status: Status) -> bool:
    return is_true(status, "RolledBack") and status["stable"].get("weight") == 100


def rolled_back(
    model: Model, fault: str, load: Requests, turn: int = 1
) -> tuple[Status, float, Requests]:
    """Changes to a faulty candidate under load; the status, when its weight was 0, the counts."""
    stable = model.status()["stable"]["revision"]
    with load:
        change_to(model, fault, turn)
        status = model.wait("the rollback", taken_back, seconds=180)
        at = time.time()
    assert status["stable"]["revision"] == stable
    return status, at, load


def promoted(model: Model, load: Requests, turn: int = 1) -> None:
    """Changes to a good candidate under load, which is promoted without a failed request."""
    stable = model.status()["stable"]["revision"]
    with load:
        change_to(model, "none", turn)
        status = model.wait(
            "the promotion",
            lambda s: s["stable"]["revision"] != stable and s["stable"].get("weight") == 100,
            seconds=240,
        )
    assert not is_true(status, "RolledBack")
    assert status["analysis"]["verdict"] == "Pass"
    assert load.failed == 0, load.why


CASES = [
    ("errors:0.3", [ERRORS], http_url),
    ("hang", [ERRORS, LATENCY], http_url),
    ("grpc:0.3", [ERRORS], grpc_url),
]


@pytest.mark.parametrize(("fault", "metrics", "url"), CASES, ids=[case[0] for case in CASES])
def test_a_bad_candidate_is_rolled_back_by_itself_soon_after_its_first_failure(
    faulty: Callable[..., Model],
    client: Client,
    fault: str,
    metrics: list[dict[str, Any]],
    url: Callable[[Model], str],
) -> None:
    fraud = faulty(metrics)
    status, at, load = rolled_back(fraud, fault, steady(client, url(fraud)))
    found = condition(status, "RolledBack")
    assert found["reason"] == "AnalysisFailed", found
    assert load.first_failure is not None
    print(f"{fault}: {at - load.first_failure:.1f} s after the first of {load.failed} failures "
          f"of {load.sent}: {found['message']}")  # fmt: skip
    assert at - load.first_failure <= CAUGHT_WITHIN
    assert load.failed <= load.sent * WEIGHT / 100 * 1.5, "only the candidate's share can fail"


def test_a_candidate_whose_pods_crash_in_a_loop_is_rolled_back(
    faulty: Callable[..., Model], client: Client
) -> None:
    fraud = faulty([ERRORS])
    status, _, load = rolled_back(fraud, "crash", steady(client, http_url(fraud)))
    assert condition(status, "RolledBack")["reason"] == "AnalysisFailed"
    assert load.failed <= load.sent * WEIGHT / 100


def test_a_candidate_that_is_twice_as_slow_is_rolled_back(
    faulty: Callable[..., Model], client: Client
) -> None:
    fraud = faulty([SLOWER], steps=[{"weight": 50, "duration": "3m"}])
    status, _, load = rolled_back(fraud, "slow:2", steady(client, http_url(fraud)))
    found = condition(status, "RolledBack")
    assert found["reason"] == "AnalysisFailed"
    assert "p95" in found["message"]
    assert load.failed == 0, load.why


def test_a_good_candidate_is_promoted_through_the_same_steps(
    faulty: Callable[..., Model], client: Client
) -> None:
    fraud = faulty([ERRORS, LATENCY])
    promoted(fraud, steady(client, http_url(fraud)))


def test_without_prometheus_nothing_moves_and_status_says_why_until_it_is_back(
    faulty: Callable[..., Model], client: Client, measured: Cluster
) -> None:
    fraud = faulty([ERRORS])
    stable = fraud.status()["stable"]["revision"]
    scale = ("scale", "deployment/prometheus", "-n", "monitoring")
    with steady(client, http_url(fraud)) as load:
        change_to(fraud, "none")
        fraud.wait("the first look", lambda s: s.get("analysis", {}).get("metrics"))
        measured.kubectl(*scale, "--replicas=0")
        try:
            status = fraud.wait(
                "the missing scrapes", lambda s: condition(s, "Stalled")["reason"] == "NoData"
            )
            assert "Nobody listens" in condition(status, "Stalled")["message"]
            status = fraud.wait(
                "the end of the step's time",
                lambda s: condition(s, "Reconciling")["reason"] == "NoData",
            )
            assert status["candidate"]["weight"] == WEIGHT
            assert is_true(status, "Ready")
        finally:
            measured.kubectl(*scale, "--replicas=1")
        status = fraud.wait(
            "the promotion", lambda s: s["stable"]["revision"] != stable, seconds=240
        )
    assert not is_true(status, "RolledBack")
    assert load.failed == 0, load.why


TURNS = 10


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("fault", "metrics", "url"), [*CASES, ("crash", [ERRORS], http_url)],
    ids=[*(case[0] for case in CASES), "crash"],
)  # fmt: skip
def test_ten_times_every_bad_candidate_is_rolled_back_in_time(
    faulty: Callable[..., Model],
    client: Client,
    fault: str,
    metrics: list[dict[str, Any]],
    url: Callable[[Model], str],
) -> None:
    fraud = faulty(metrics)
    took = []
    for turn in range(1, TURNS + 1):
        status, at, load = rolled_back(fraud, fault, steady(client, url(fraud)), turn)
        assert condition(status, "RolledBack")["reason"] == "AnalysisFailed"
        if load.first_failure is not None:
            took.append(at - load.first_failure)
    print(f"{fault}: {', '.join(f'{seconds:.0f}' for seconds in took)} s after the first failure")
    assert max(took, default=0.0) <= CAUGHT_WITHIN


@pytest.mark.slow
@pytest.mark.timeout(1800)  # each takes a minute and a half: steps last their time
def test_ten_times_a_good_candidate_is_promoted(
    faulty: Callable[..., Model], client: Client
) -> None:
    fraud = faulty([ERRORS, LATENCY])
    for turn in range(1, TURNS + 1):
        promoted(fraud, steady(client, http_url(fraud)), turn)
